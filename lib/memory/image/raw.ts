// Raw RAM: the bytes of a memory block one after the other (a memory-backend-file, LiME
// format=raw), or all addresses from 0 on, holes and all (pmemsave, LiME format=padded). Nothing in
// the file says which.
import { VmiError } from '../../errors.js';
import { otherSplits, ramSplits, splitRanges } from '../../ram-layout.js';
import type { DumpRange } from './content.js';
import type { ImageFile } from './file.js';

/** No machine has a hole below this unless it was told to. */
const LOWEST_HOLE = 1n << 30n;
/** Smallest file that can hold a Linux guest's RAM; anything less is a mistake. */
const MIN_IMAGE = 16n << 20n;

const FOREIGN: readonly (readonly [magic: string, name: string, advice: string])[] = [
  ['QFI\xfb', 'a qcow2 disk', 'give a memory image: dump-guest-memory or a memory-backend-file'],
  ['BZh', 'a bzip2 file', 'unpack it first'],
  ['\xfd7zXZ', 'an xz file', 'unpack it first'],
  ['\x04"M\x18', 'an lz4 file', 'unpack it first'],
  ['\x89LZO\0', 'an lzop file', 'unpack it first'],
  ['KDMV', 'a VMware disk', 'give its memory: the .vmem of a suspended or snapshot guest'],
  ['<<< ', 'a VirtualBox disk', 'give its memory: vboxmanage debugvm NAME dumpvmcore'],
];

/** One way in which a file without a header can be the RAM of a PC. */
export interface RawLayout {
  readonly assumption: string;
  readonly proven: boolean;
  readonly ranges: readonly DumpRange[];
}

/**
 * Every such way.
 * @throws {VmiError} `VMI_ATTACH`: it is something else, or too small
 */
export function rawRam({ path, size }: ImageFile, head: Buffer): RawLayout[] {
  const start = head.toString('latin1', 0, 16);
  for (const [magic, name, advice] of FOREIGN) {
    if (start.startsWith(magic)) {
      throw new VmiError(
        'VMI_ATTACH',
        `${path} is ${name}, which cannot be read as it is: ${advice}`,
      );
    }
  }
  if (size < MIN_IMAGE) {
    throw new VmiError(
      'VMI_ATTACH',
      `${path} is no memory image: it has ${size} bytes, and no guest's RAM is smaller than ${MIN_IMAGE >> 20n} MiB`,
    );
  }
  const whole = size & ~0xfffn;
  const splits = ramSplits(whole);
  const layouts = splits.map(
    ({ low, assumption }): RawLayout => ({
      assumption,
      proven: whole <= LOWEST_HOLE,
      ranges: splitRanges(whole, low),
    }),
  );
  if (whole > LOWEST_HOLE) {
    // A flat dump (pmemsave) holds the hole below 4 GiB as well.
    layouts.push({
      assumption: 'one flat image, the hole below 4 GiB included',
      proven: false,
      ranges: [{ physical: 0n, length: whole, offset: 0n }],
    });
    for (const { low, assumption } of otherSplits(whole))
      layouts.push({ assumption, proven: false, ranges: splitRanges(whole, low) });
  }
  return layouts;
}
