import { closeSync, openSync } from 'node:fs';
import { otherSplits, ramSplits, splitRanges } from '../../ram-layout.js';
import type { Candidate, Source } from '../source.js';
import { isAvml, readAvml } from './avml.js';
import type { DumpContent, DumpRange } from './content.js';
import { isElf, readElfCore } from './elf-core.js';
import { ImageFile } from './file.js';
import { isKdump, readKdump } from './kdump.js';
import { isLime, readLime } from './lime.js';
import { isMigration, type Migration, readMigration } from './migration.js';
import { openContent } from './open-content.js';
import { rawRam } from './raw.js';
import { isRecording, recordingSource } from './recording.js';
import { isVmwareState, readVmware, vmwareStateOf } from './vmware.js';
import { packedWith, unwrap } from './wrapped.js';
import { isXenCore, readXenCore } from './xen-core.js';

/** A format that a dump names itself. */
interface DumpFormat {
  /** Whether a file starts like it. @param head up to 4,096 bytes */
  readonly is: (head: Buffer, file: ImageFile) => boolean;
  /** @throws {VmiError} `VMI_ATTACH` */
  readonly read: (file: ImageFile) => DumpContent;
}

const FORMATS: readonly DumpFormat[] = [
  { is: (head, file) => isElf(head) && isXenCore(file, head), read: readXenCore },
  { is: isElf, read: readElfCore },
  { is: isLime, read: readLime },
  { is: isAvml, read: readAvml },
  { is: isKdump, read: readKdump },
];

const HEAD = 4096;
/** No device's memory is as large; a block that is, is main memory. */
const LARGE_BLOCK = 64n << 20n;

/** One way in which what was read may be laid out. */
interface Layout {
  readonly content: DumpContent;
  readonly assumption: string;
  readonly proven: boolean;
}

/**
 * Opens a memory image: one of {@link FORMATS}, a migration stream, VMware's memory, or raw RAM (a
 * `memory-backend-file`, `pmemsave`), also packed by gzip or zstd.
 * @throws {VmiError} `VMI_ATTACH`: no such file, no right, broken, or no image
 */
export async function openImage(path: string): Promise<Source> {
  const packed = new ImageFile(path);
  const how = packedWith(packed.read(0n, HEAD));
  let file = packed;
  try {
    if (how !== undefined) file = await unwrap(packed, how);
  } finally {
    if (file !== packed || how !== undefined) packed.close();
  }
  try {
    if (isRecording(file.read(0n, HEAD))) {
      const source = recordingSource(file);
      file.close();
      return source;
    }
    return sourceOf(file, layouts(file));
  } catch (error) {
    file.close();
    throw error;
  }
}

function layouts(file: ImageFile): Layout[] {
  const head = file.read(0n, HEAD);
  const format = FORMATS.find(({ is }) => is(head, file));
  if (format !== undefined) {
    const content = format.read(file);
    return [{ content, assumption: content.format, proven: true }];
  }
  if (isMigration(head)) return migrated(file, readMigration(file));
  if (isVmwareState(head)) {
    throw file.fail(
      'it is the state of a VMware guest, whose memory is in the .vmem beside it: give that',
    );
  }
  const state = vmwareStateOf(file.path);
  const content = state === undefined ? undefined : readVmware(file, state);
  if (content !== undefined) return [{ content, assumption: content.format, proven: true }];
  return rawRam(file, head).map(({ ranges, assumption, proven }) => ({
    content: { format: 'raw RAM', ranges, registers: [] },
    assumption,
    proven,
  }));
}

/** A stream says how large main memory is, not where it lies: that is by the machine's rule. */
function migrated(file: ImageFile, { machine, blocks, unpacked, present }: Migration): Layout[] {
  const large = blocks.filter(({ length }) => length >= LARGE_BLOCK);
  const main = large[0] ?? blocks.reduce((a, b) => (b.length > a.length ? b : a));
  if (large.length > 1) {
    closeSync(unpacked);
    throw file.fail(
      'it has several blocks of main memory, and does not tell where they lie: dump the guest instead (dump-guest-memory)',
    );
  }
  const type = /q35/.test(machine) ? 'q35' : /^pc/.test(machine) ? 'pc' : undefined;
  const splits = [...ramSplits(main.length, type), ...otherSplits(main.length, type)];
  return splits.map(({ low, assumption }) => {
    const ranges = splitRanges(main.length, low).map(
      (range): DumpRange => ({ ...range, offset: main.offset + range.offset }),
    );
    const format = 'migration stream, unpacked';
    return {
      content: { format, ranges, registers: [], unpacked, present },
      assumption,
      proven: false,
    };
  });
}

/** Candidates share the open file: each opens it anew, and it is closed with the source. */
function sourceOf(file: ImageFile, all: readonly Layout[]): Source {
  const unpacked = all[0]!.content.unpacked;
  const fd = unpacked ?? file.fd;
  if (unpacked !== undefined) file.close();
  let open = true;
  const close = () => {
    if (open) closeSync(fd);
    open = false;
  };
  const candidates = all.map(
    ({ content, assumption, proven }): Candidate => ({
      assumption,
      proven,
      // A file without a name has one here as long as it is open. proc_pid_fd(5).
      open: () => openContent(openSync(`/proc/self/fd/${fd}`, 'r'), file.path, content),
    }),
  );
  return { candidates, kept: close, close: async () => close() };
}
