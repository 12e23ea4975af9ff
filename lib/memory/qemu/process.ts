import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { VmiError } from '../../errors.js';
import { readHostFile } from '../../host.js';
import { hostMappings, runsOfSize } from '../process/host-mappings.js';
import { type QemuCommand, readCommand } from './command-line.js';
import { listensOn } from './listeners.js';

/** A QEMU process on this host, as /proc shows it. */
export interface QemuProcess extends QemuCommand {
  readonly pid: number;
  readonly executable: string;
  readonly args: readonly string[];
  /**
   * QMP sockets that its command line names, in order: paths as this process finds them, and
   * `tcp:HOST:PORT`.
   */
  readonly qmpSockets: readonly string[];
  /** Those among them whose first client starts the guest, unless that has started. */
  readonly startingSockets: readonly string[];
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
      `process ${pid} is no QEMU system emulator (it runs '${executable}'); process:${pid} takes any VMM, and 'vmi list' shows the guests that run here`,
    );
  }
  const { directory, path } = viewOf(pid);
  const command = readCommand(args, directory, (file) => readHostFile(path(file)));
  const sockets = command.monitors.map(({ address, waits }) => ({
    address: address.startsWith('tcp:') ? address : path(address),
    waits,
  }));
  return {
    ...command,
    pid,
    executable,
    args,
    qmpSockets: sockets.map(({ address }) => address),
    startingSockets: sockets.filter(({ waits }) => waits).map(({ address }) => address),
  };
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

/** Whether the RAM that its command line asks for is there: it is not before the guest starts. */
export function hasItsRam({ pid, blocks }: QemuProcess): boolean {
  try {
    const mappings = hostMappings(pid);
    return blocks?.every(({ size }) => runsOfSize(mappings, size).length > 0) ?? false;
  } catch (error) {
    if (error instanceof VmiError) return false;
    throw error;
  }
}

/** What of a command line is so: the size of RAM that it has mapped, sockets that it listens on. */
export function verified(process: QemuProcess): QemuProcess {
  return {
    ...process,
    memory: hasItsRam(process) ? process.memory : undefined,
    qmpSockets: process.qmpSockets.filter((socket) => listensOn(process.pid, socket)),
  };
}

function executableOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/exe`);
  } catch {
    return undefined;
  }
}

/**
 * How a process sees files: what its relative paths start from, and where a path of its is for us.
 * One in a container or a chroot has another root. proc_pid_root(5).
 */
function viewOf(pid: number): { directory: string; path: (path: string) => string } {
  const link = (name: string) => {
    try {
      return readlinkSync(`/proc/${pid}/${name}`);
    } catch {
      return undefined;
    }
  };
  const [root, cwd] = [link('root') ?? '/', link('cwd') ?? '/'];
  // What the link shows begins with the root where that is not ours.
  const directory = root !== '/' && cwd.startsWith(`${root}/`) ? cwd.slice(root.length) : cwd;
  const isOurs = root === '/' && link('ns/mnt') === readlinkSync('/proc/self/ns/mnt');
  return { directory, path: (path) => (isOurs ? path : throughRoot(pid, path)) };
}

/** The path itself where it leads to the same file, else the one through the process's root. */
function throughRoot(pid: number, path: string): string {
  const through = join(`/proc/${pid}/root`, path);
  const fileAt = (name: string) => {
    try {
      const { dev, ino } = statSync(name, { bigint: true });
      return `${dev} ${ino}`;
    } catch {
      return undefined;
    }
  };
  const theirs = fileAt(through);
  return theirs === undefined || theirs === fileAt(path) ? path : through;
}

function isQemuName(arg: string | undefined): boolean {
  return arg !== undefined && /(^|\/)(qemu-system-[\w-]+|qemu-kvm|kvm)$/.test(arg);
}
