import {
  type BigIntStats,
  closeSync,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
} from 'node:fs';
import { VmiError } from '../../errors.js';

/** One line of /proc/PID/maps. proc_pid_maps(5). */
export interface HostMapping {
  readonly start: bigint;
  readonly end: bigint;
  readonly shared: boolean;
  readonly writable: boolean;
  readonly offset: bigint;
  readonly inode: bigint;
  readonly device: string;
  readonly path: string;
}

/**
 * When a process started, in clock ticks; `undefined` when it has ended. proc_pid_stat(5), field
 * 22.
 */
export function processStart(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

const MAPPING = /^([0-9a-f]+)-([0-9a-f]+) r(.)-([sp]) ([0-9a-f]+) (\S+) (\d+) *(.*)$/;
const LIBRARY = /\.so[.\d]*$/;

/**
 * What of the memory map of a process may be a guest's RAM: not what cannot be read, nor code, nor
 * what is of a shared library, which is most of it.
 * @throws {VmiError} `VMI_ATTACH`: no right to look at it
 */
export function hostMappings(pid: number): HostMapping[] {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/maps`, 'utf8');
  } catch (error) {
    throw noRight(pid, error);
  }
  const mappings: HostMapping[] = [];
  for (let at = 0, end: number; at < text.length; at = end + 1) {
    end = text.indexOf('\n', at);
    if (end < 0) end = text.length;
    const access = text.indexOf(' ', at) + 1;
    if (text[access] !== 'r' || text[access + 2] === 'x') continue;
    const line = text.slice(at, end);
    const match = LIBRARY.test(line) ? null : MAPPING.exec(line);
    if (match === null) continue;
    mappings.push({
      start: BigInt(`0x${match[1]}`),
      end: BigInt(`0x${match[2]}`),
      shared: match[4] === 's',
      writable: match[3] === 'w',
      offset: BigInt(`0x${match[5]}`),
      device: match[6]!,
      inode: BigInt(match[7]!),
      path: match[8]!,
    });
  }
  return mappings;
}

/**
 * Where a RAM block of `size` bytes may be: runs of neighbouring mappings that are exactly that
 * long. Advice and NUMA policy split a block into several, and the kernel places whatever is mapped
 * next right in front of it: neither where a run begins nor where it ends shows but by its length.
 * @returns host addresses, ascending
 */
export function runsOfSize(mappings: readonly HostMapping[], size: bigint): bigint[] {
  const starts: bigint[] = [];
  for (const [i, first] of mappings.entries()) {
    let end = first.start;
    for (const { start, end: next, inode, shared } of mappings.slice(i)) {
      const follows = start === end && inode === first.inode && shared === first.shared;
      if (!follows || end - first.start >= size) break;
      end = next;
    }
    if (end - first.start === size) starts.push(first.start);
  }
  return starts;
}

/**
 * Opens the file behind a shared mapping for reading, or for writing, too: by its path, else by the
 * process's own descriptor.
 * @returns `undefined` when neither is to be had
 */
export function openMapping(pid: number, mapping: HostMapping, write = false): number | undefined {
  const isIt = ({ ino, dev }: BigIntStats) =>
    ino === mapping.inode && deviceName(dev) === mapping.device;
  const open = (path: string): number | undefined => {
    try {
      if (!isIt(statSync(path, { bigint: true }))) return undefined;
      const fd = openSync(path, write ? 'r+' : 'r');
      // Another file may have taken its name since.
      if (isIt(fstatSync(fd, { bigint: true }))) return fd;
      closeSync(fd);
    } catch {
      // Not there, or not to be opened.
    }
    return undefined;
  };
  // Mostly it is where it was, and one look costs less than one at each descriptor.
  const found = open(mapping.path);
  if (found !== undefined) return found;
  let names: string[] = [];
  try {
    names = readdirSync(`/proc/${pid}/fd`);
  } catch {
    // No right to list them.
  }
  for (const name of names) {
    const fd = open(`/proc/${pid}/fd/${name}`);
    if (fd !== undefined) return fd;
  }
  return undefined;
}

/** The error for a process that may not be read. ptrace(2), "Ptrace access mode checking". */
export function noRight(pid: number, cause: unknown): VmiError {
  return new VmiError(
    'VMI_ATTACH',
    `no right to read the memory of process ${pid}: run as its user or as root (CAP_SYS_PTRACE); where kernel.yama.ptrace_scope is 1 or more, only root may`,
    { cause },
  );
}

function deviceName(dev: bigint): string {
  // makedev(3): the split of glibc's gnu_dev_major and gnu_dev_minor.
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
  const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn);
  return `${major.toString(16).padStart(2, '0')}:${minor.toString(16).padStart(2, '0')}`;
}
