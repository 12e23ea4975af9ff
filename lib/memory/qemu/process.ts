import {
  type BigIntStats,
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
} from 'node:fs';
import { VmiError } from '../../errors.js';

/** One line of /proc/PID/maps. proc_pid_maps(5). */
export interface HostMapping {
  readonly start: bigint;
  readonly end: bigint;
  readonly shared: boolean;
  readonly offset: bigint;
  readonly inode: bigint;
  readonly device: string;
  readonly path: string;
}

/** A QEMU process on this host, as /proc shows it. */
export interface QemuProcess {
  readonly pid: number;
  readonly executable: string;
  readonly args: readonly string[];
  /** `-name`, without its options; empty when none was given. */
  readonly name: string;
  /** `-uuid`; libvirt gives every domain one. */
  readonly uuid: string | undefined;
  /** Whether the system's libvirtd started it: then `name` is the domain's. */
  readonly libvirt: boolean;
  /** QMP sockets on the command line, in order: paths, and `tcp:HOST:PORT`. */
  readonly qmpSockets: readonly string[];
  /** Bytes of `-m`; `undefined` when it cannot be told. */
  readonly memory: bigint | undefined;
  readonly machine: 'pc' | 'q35' | undefined;
  /** Bytes of `-machine max-ram-below-4g`; `undefined`: the machine's own rule. */
  readonly lowRam?: bigint | undefined;
  /**
   * Ids of the memory backends that are shared (`-object memory-backend-…,share=on`): the names of
   * their RAM blocks.
   */
  readonly sharedBackends: readonly string[];
}

/**
 * Looks at one process.
 * @throws {VmiError} `VMI_ATTACH`: no such process, no right to look at it, or it is no QEMU
 */
export function qemuProcess(pid: number): QemuProcess {
  let args: string[];
  try {
    args = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
  } catch (error) {
    throw new VmiError(
      'VMI_ATTACH',
      `there is no process ${pid} on this host; 'vmi list' shows the guests that run here`,
      { cause: error },
    );
  }
  const executable = executableOf(pid) ?? args[0] ?? '';
  if (
    !/(^|\/)(qemu-system-[\w-]+|qemu-kvm|kvm)( \(deleted\))?$/.test(executable) &&
    !isQemuName(args[0])
  ) {
    throw new VmiError(
      'VMI_ATTACH',
      `process ${pid} is no QEMU system emulator (it runs '${executable}'); 'vmi list' shows the guests that run here`,
    );
  }
  const machine = option(args, 'machine') ?? option(args, 'M');
  return {
    pid,
    executable,
    args,
    name: guestName(option(args, 'name') ?? ''),
    uuid: option(args, 'uuid')?.toLowerCase(),
    libvirt: args.some((arg) => LIBVIRT_KEY.test(arg)),
    qmpSockets: qmpSockets(args, workingDirectory(pid)),
    memory: memorySize(option(args, 'm')),
    machine: machineType(machine),
    lowRam: lowRam(machine),
    sharedBackends: sharedBackends(args),
  };
}

/**
 * Where the system's libvirtd keeps the key of each domain. libvirt src/qemu/qemu_domain.c,
 * `qemuDomainGetMasterKeyFilePath`.
 */
const LIBVIRT_KEY = /"?file"?[:=]"?\/var\/lib\/libvirt\/qemu\/domain-[^"]*\/master-key\.aes/;

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

/** Every QEMU on this host that this user can see. */
export function qemuProcesses(): QemuProcess[] {
  const found: QemuProcess[] = [];
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      found.push(qemuProcess(Number(entry)));
    } catch {
      // Not a QEMU, gone already, or another user's.
    }
  }
  return found;
}

/**
 * The process that listens on a UNIX socket, by the socket's inode. proc_pid_net(5).
 * @returns `undefined` when no process that this user may look at holds it
 */
export function listenerOf(socketPath: string): number | undefined {
  const inodes = new Set<string>(tcpListeners(socketPath));
  for (const line of readFileSync('/proc/net/unix', 'utf8').split('\n')) {
    const fields = line.trim().split(/\s+/);
    if (fields.length >= 8 && fields.slice(7).join(' ') === socketPath)
      inodes.add(`socket:[${fields[6]}]`);
  }
  if (inodes.size === 0) return undefined;
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      for (const fd of readdirSync(`/proc/${entry}/fd`)) {
        if (inodes.has(readlinkSync(`/proc/${entry}/fd/${fd}`))) return Number(entry);
      }
    } catch {
      // Gone, or another user's.
    }
  }
  return undefined;
}

/** `TCP_LISTEN` in /proc/net/tcp. include/net/tcp_states.h. */
const LISTENS = '0A';

/** Sockets of this host that listen on the port of `tcp:HOST:PORT`. proc_pid_net(5). */
function tcpListeners(socket: string): string[] {
  const port = /^tcp:.*:(\d+)$/.exec(socket)?.[1];
  if (port === undefined) return [];
  const wanted = Number(port).toString(16).toUpperCase().padStart(4, '0');
  const lines = ['/proc/net/tcp', '/proc/net/tcp6'].flatMap((table) =>
    existsSync(table) ? readFileSync(table, 'utf8').split('\n').slice(1) : [],
  );
  return lines
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[1]?.endsWith(`:${wanted}`) === true && fields[3] === LISTENS)
    .map((fields) => `socket:[${fields[9]}]`);
}

const MAPPING = /^([0-9a-f]+)-([0-9a-f]+) r.-([sp]) ([0-9a-f]+) (\S+) (\d+) *(.*)$/;
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
      shared: match[3] === 's',
      offset: BigInt(`0x${match[4]}`),
      device: match[5]!,
      inode: BigInt(match[6]!),
      path: match[7]!,
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

function executableOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/exe`);
  } catch {
    return undefined;
  }
}

function workingDirectory(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    return '/';
  }
}

function isQemuName(arg: string | undefined): boolean {
  return arg !== undefined && /(^|\/)(qemu-system-[\w-]+|qemu-kvm|kvm)$/.test(arg);
}

/**
 * `NAME,option=…` or `guest=NAME,option=…`; a comma in the name is written twice. QEMU
 * util/qemu-option.c.
 */
function guestName(value: string): string {
  return property(value, 'guest') ?? (/^(?:[^,]|,,)*/.exec(value)?.[0] ?? '').replaceAll(',,', ',');
}

function option(args: readonly string[], name: string): string | undefined {
  const at = args.findIndex((arg) => arg === `-${name}` || arg === `--${name}`);
  return at < 0 ? undefined : args[at + 1];
}

function qmpSockets(args: readonly string[], directory: string): string[] {
  const absolute = (path: string) => (path.startsWith('/') ? path : `${directory}/${path}`);
  const paths: string[] = [];
  const chardevs = new Map<string, string>();
  for (const [i, arg] of args.entries()) {
    const value = args[i + 1] ?? '';
    if (/^--?chardev$/.test(arg) && value.startsWith('socket,')) {
      const id = property(value, 'id');
      const path = property(value, 'path');
      const port = property(value, 'port');
      if (id !== undefined && path !== undefined) chardevs.set(id, absolute(path));
      else if (id !== undefined && port !== undefined)
        chardevs.set(id, `tcp:${property(value, 'host') ?? ''}:${port}`);
    }
  }
  for (const [i, arg] of args.entries()) {
    const value = args[i + 1] ?? '';
    if (/^--?qmp(-pretty)?$/.test(arg)) {
      const match = /^unix:([^,]+)/.exec(value);
      const tcp = /^(?:tcp|telnet):[^,]+/.exec(value);
      if (match !== null) paths.push(absolute(match[1]!));
      else if (tcp !== null) paths.push(tcp[0].replace(/^telnet/, 'tcp'));
      else if (value.startsWith('chardev:')) paths.push(chardevs.get(value.slice(8)) ?? '');
    } else if (/^--?mon$/.test(arg) && property(value, 'mode') === 'control') {
      const id = property(value, 'chardev') ?? value.split(',')[0] ?? '';
      paths.push(chardevs.get(id) ?? '');
    }
  }
  return paths.filter((path) => path !== '');
}

function property(value: string, name: string): string | undefined {
  return new RegExp(`(?:^|,)${name}=((?:[^,]|,,)*)`).exec(value)?.[1]?.replaceAll(',,', ',');
}

/**
 * `-m 512`, `-m 4G`, `-m size=2048,slots=…`: mebibytes without a suffix. QEMU qemu-options.hx,
 * `-m`.
 */
function memorySize(value: string | undefined): bigint | undefined {
  if (value === undefined) return 128n << 20n;
  const match = /^(?:size=)?(\d+)([kKmMgGtT]?)/.exec(value);
  if (match === null) return undefined;
  const shift = { k: 10n, m: 20n, '': 20n, g: 30n, t: 40n }[match[2]!.toLowerCase()]!;
  return BigInt(match[1]!) << shift;
}

/** What is written as JSON is left out. QEMU qapi/qom.json, `MemoryBackendProperties`. */
function sharedBackends(args: readonly string[]): string[] {
  const ids: string[] = [];
  for (const [i, arg] of args.entries()) {
    const value = args[i + 1] ?? '';
    if (!/^--?object$/.test(arg) || !value.startsWith('memory-backend-')) continue;
    const id = property(value, 'id');
    if (id !== undefined && property(value, 'share') === 'on') ids.push(id);
  }
  return ids;
}

/** The part of RAM below 4 GiB where the command line limits it. QEMU hw/i386/pc.c. */
function lowRam(machine: string | undefined): bigint | undefined {
  const value = property(machine ?? '', 'max-ram-below-4g');
  const match = /^(\d+)([kKmMgG]?)$/.exec(value ?? '');
  if (match === null) return undefined;
  const shift = { k: 10n, m: 20n, g: 30n, '': 0n }[match[2]!.toLowerCase()]!;
  return BigInt(match[1]!) << shift;
}

function machineType(value: string | undefined): 'pc' | 'q35' | undefined {
  const name = value?.split(',').find((part) => !part.includes('=') || part.startsWith('type='));
  if (name === undefined) return value === undefined ? 'pc' : undefined;
  if (/q35/.test(name)) return 'q35';
  return /^(type=)?pc(-i440fx|$)/.test(name) ? 'pc' : undefined;
}

function deviceName(dev: bigint): string {
  // makedev(3): the split of glibc's gnu_dev_major and gnu_dev_minor.
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
  const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn);
  return `${major.toString(16).padStart(2, '0')}:${minor.toString(16).padStart(2, '0')}`;
}
