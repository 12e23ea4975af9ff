import { closeSync, openSync, readSync, statSync } from 'node:fs';
import { addon } from '../../addon.js';
import { PAGE_MASK } from '../../address.js';
import { fromNative, VmiError } from '../../errors.js';
import { type Machine, PhysicalMemory, type VcpuRegisters } from '../physical-memory.js';
import { type Candidate, ramSplits, type Source, splitRanges } from '../source.js';
import { type FileRange, isElf, type ReadAt, readElfCore } from './elf-core.js';
import { isKdump, unpackKdump } from './kdump.js';
import { isLime, readLime } from './lime.js';

/** Smallest file that can hold a Linux guest's RAM; anything less is a mistake. */
const MIN_IMAGE = 16n << 20n;

/**
 * Opens a memory image: an ELF core, a kdump, a LiME dump, or raw RAM (a `memory-backend-file`, `pmemsave`).
 * @throws {VmiError} `VMI_ATTACH`: no such file, no right, truncated, or no image
 */
export function openImage(path: string): Source {
  const fd = openFile(path);
  try {
    const size = statSync(path, { bigint: true }).size;
    const readAt: ReadAt = (offset, length) => {
      const bytes = Buffer.alloc(length);
      return bytes.subarray(0, readSync(fd, bytes, 0, length, offset));
    };
    const head = readAt(0n, 4096);
    if (isElf(head)) {
      const core = readElfCore(readAt, size, path);
      const registers = core.registers;
      return {
        candidates: [
          {
            assumption: 'ELF core',
            proven: true,
            open: () => openRanges(path, core.ranges, 'ELF core', registers),
          },
        ],
        close: async () => {},
      };
    }
    if (isLime(head)) {
      const ranges = readLime(readAt, size, path);
      const open = () => openRanges(path, ranges, 'LiME dump', []);
      return {
        candidates: [{ assumption: 'LiME dump', proven: true, open }],
        close: async () => {},
      };
    }
    if (isKdump(head)) {
      const { fd: unpacked, ranges, registers } = unpackKdump(readAt, size, path);
      const open = () => openDescriptor(unpacked, path, ranges, 'kdump, unpacked', registers);
      return { candidates: [{ assumption: 'kdump', proven: true, open }], close: async () => {} };
    }
    return rawSource(path, size, head);
  } finally {
    closeSync(fd);
  }
}

const FOREIGN: readonly (readonly [magic: string, name: string, advice: string])[] = [
  ['QFI\xfb', 'a qcow2 disk', 'give a memory image: dump-guest-memory or a memory-backend-file'],
  ['LibvirtQemudSave', 'a libvirt save file', "use 'virsh dump --memory-only --format elf'"],
  ['\x1f\x8b', 'a gzip file', 'unpack it first'],
  ['\xfd7zXZ', 'an xz file', 'unpack it first'],
  ['(\xb5/\xfd', 'a zstd file', 'unpack it first'],
];

function rawSource(path: string, size: bigint, head: Buffer): Source {
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
  const candidates: Candidate[] = splits.map(({ low, assumption }) => ({
    assumption,
    proven: splits.length === 1,
    open: () => openRanges(path, splitRanges(whole, low), 'raw RAM', []),
  }));
  if (splits.length > 1) {
    // A flat dump (pmemsave) holds the hole below 4 GiB as well.
    candidates.push({
      assumption: 'one flat image, the hole below 4 GiB included',
      proven: false,
      open: () => openRanges(path, [{ physical: 0n, length: whole, offset: 0n }], 'raw RAM', []),
    });
  }
  return { candidates, close: async () => {} };
}

function openRanges(
  path: string,
  ranges: readonly FileRange[],
  format: string,
  registers: readonly VcpuRegisters[],
): PhysicalMemory {
  return openDescriptor(openFile(path), path, ranges, format, registers);
}

/** Maps ranges of an open file; the descriptor is closed, the mapping keeps the file. */
function openDescriptor(
  fd: number,
  path: string,
  ranges: readonly FileRange[],
  format: string,
  registers: readonly VcpuRegisters[],
): PhysicalMemory {
  try {
    const segments = ranges.flatMap((range) =>
      wholePages(range).map((pages) => ({ ...pages, kind: 'file' as const, fd })),
    );
    const native = addon().openMemory({ segments });
    const machine: Machine | undefined =
      registers.length > 0
        ? { registers: async () => [...registers], close: async () => {} }
        : undefined;
    return new PhysicalMemory({
      native,
      source: 'image',
      description: `${path} (${format})`,
      live: false,
      ...(machine === undefined ? {} : { machine }),
    });
  } catch (error) {
    throw fromNative(error);
  } finally {
    closeSync(fd);
  }
}

function openFile(path: string): number {
  try {
    if (!statSync(path).isFile()) {
      throw new VmiError('VMI_ATTACH', `${path} is no memory image: it is not a regular file`);
    }
    return openSync(path, 'r');
  } catch (error) {
    if (error instanceof VmiError) throw error;
    const why = { ENOENT: 'there is no such file', EACCES: 'no right to read it' }[
      (error as NodeJS.ErrnoException).code ?? ''
    ];
    throw new VmiError('VMI_ATTACH', `cannot open ${path}: ${why ?? (error as Error).message}`, {
      cause: error,
    });
  }
}

/** The whole pages of a range: firmware's map of RAM may start or end within one, and no page table names a part. */
function wholePages({ physical, length, offset }: FileRange): FileRange[] {
  const start = (physical + PAGE_MASK) & ~PAGE_MASK;
  const end = (physical + length) & ~PAGE_MASK;
  return end > start
    ? [{ physical: start, length: end - start, offset: offset + (start - physical) }]
    : [];
}
