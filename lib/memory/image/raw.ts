// Raw RAM: the bytes of a memory block one after the other (a memory-backend-file, LiME
// format=raw), or all addresses from 0 on, holes and all (pmemsave, LiME format=padded). Nothing in
// the file says which.
import { VmiError } from '../../errors.js';
import { type Candidate, ramSplits, type Source, splitRanges } from '../source.js';
import type { DumpRange } from './content.js';
import type { ImageFile } from './file.js';
import { openContent } from './open-content.js';

/** Smallest file that can hold a Linux guest's RAM; anything less is a mistake. */
const MIN_IMAGE = 16n << 20n;

const FOREIGN: readonly (readonly [magic: string, name: string, advice: string])[] = [
  ['QFI\xfb', 'a qcow2 disk', 'give a memory image: dump-guest-memory or a memory-backend-file'],
  ['LibvirtQemudSave', 'a libvirt save file', "use 'virsh dump --memory-only --format elf'"],
  ['\x1f\x8b', 'a gzip file', 'unpack it first'],
  ['\xfd7zXZ', 'an xz file', 'unpack it first'],
  ['(\xb5/\xfd', 'a zstd file', 'unpack it first'],
];

/**
 * Every way in which a file without a header can be the RAM of a PC.
 * @throws {VmiError} `VMI_ATTACH`: it is something else, or too small
 */
export function rawSource(file: ImageFile, head: Buffer): Source {
  const { path, size } = file;
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
  const open = (ranges: readonly DumpRange[]) =>
    openContent(path, { format: 'raw RAM', ranges, registers: [] });
  const splits = ramSplits(whole);
  const candidates: Candidate[] = splits.map(({ low, assumption }) => ({
    assumption,
    proven: splits.length === 1,
    open: () => open(splitRanges(whole, low)),
  }));
  if (splits.length > 1) {
    // A flat dump (pmemsave) holds the hole below 4 GiB as well.
    candidates.push({
      assumption: 'one flat image, the hole below 4 GiB included',
      proven: false,
      open: () => open([{ physical: 0n, length: whole, offset: 0n }]),
    });
  }
  return { candidates, close: async () => {} };
}
