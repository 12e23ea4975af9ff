import { closeSync, openSync, readdirSync } from 'node:fs';
import { readHostFile } from '../host.js';
import { type XenDomain, xenDomains, xenHost } from '../memory/libvmi/xen-domains.js';
import { hasKvm } from '../memory/process/open-process.js';
import { type QemuProcess, qemuProcesses, verified } from '../memory/qemu/process.js';
import { formatTarget } from '../target.js';

/** A guest on this host, as {@link listGuests} finds it. */
export interface ListedGuest {
  /** Process id of its QEMU; `null` for a domain of Xen. */
  readonly pid: number | null;
  /** Number of the domain of Xen; `null` for a QEMU. */
  readonly domain: number | null;
  readonly name: string;
  /** Bytes of RAM, a decimal number; `null` where it is not mapped, or cannot be looked at. */
  readonly memory: number | null;
  /** QEMU's machine type, or the kind of Xen's domain: `xen-pv`, `xen-pvh`, `xen-hvm`. */
  readonly machine: string | null;
  /** Sockets that it listens on: paths as this process finds them, and `tcp:HOST:PORT`. */
  readonly qmpSockets: readonly string[];
  /** Whether this user may read its memory. */
  readonly readable: boolean;
  /** What to give to the other commands, the best first. */
  readonly targets: readonly string[];
}

/**
 * Lists the guests of this host that this user can see: QEMUs by process id, then Xen's domains by
 * number, then other processes that run a virtual machine of KVM. Reads /proc and asks Xen's tools;
 * touches no guest.
 *
 * @returns a snapshot; a guest may have ended by the time it is attached
 * @example
 * listGuests().find(({ readable }) => readable)?.targets[0] // 'qemu:4242'
 */
export function listGuests(): ListedGuest[] {
  const processes = qemuProcesses().map(verified);
  const pids = new Set(processes.map(({ pid }) => pid));
  return [...guestsOf(processes, xenDomains()), ...otherGuests(pids)];
}

/** Processes that run virtual machines of KVM and are no QEMU by their name. */
function otherGuests(qemus: ReadonlySet<number>): ListedGuest[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry) && !qemus.has(Number(entry)))
    .map(Number)
    .filter(hasKvm)
    .map((pid) => ({
      pid,
      domain: null,
      name: readHostFile(`/proc/${pid}/comm`)?.trimEnd() ?? '',
      memory: null,
      machine: null,
      qmpSockets: [],
      readable: mayRead(pid),
      targets: [formatTarget({ kind: 'process', pid })],
    }));
}

/** What is told of a process. */
type ListedProcess = Pick<
  QemuProcess,
  'pid' | 'args' | 'name' | 'libvirt' | 'qmpSockets' | 'memory' | 'machine'
>;

/** The same of processes and domains that were found already. */
export function guestsOf(
  processes: readonly ListedProcess[],
  domains: readonly XenDomain[],
): ListedGuest[] {
  return [...listProcesses(processes), ...listDomains(domains)];
}

function listDomains(domains: readonly XenDomain[]): ListedGuest[] {
  const readable = domains.length > 0 && xenHost().privcmd === 'usable';
  return domains.map(({ id, name, type, memory }) => ({
    pid: null,
    domain: id,
    name,
    memory: memory === undefined ? null : Number(memory),
    machine: type === undefined ? 'xen' : `xen-${type}`,
    qmpSockets: [],
    readable,
    targets: [formatTarget({ kind: 'libvmi', driver: 'xen', name })],
  }));
}

function listProcesses(processes: readonly ListedProcess[]): ListedGuest[] {
  return (
    [...processes]
      // The device model of a Xen domain: its RAM is Xen's.
      .filter(({ args }) => !args.includes('-xen-domid'))
      .sort((a, b) => a.pid - b.pid)
      .map((process) => ({
        pid: process.pid,
        domain: null,
        name: process.name,
        memory: process.memory === undefined ? null : Number(process.memory),
        machine: process.machine ?? null,
        qmpSockets: process.qmpSockets,
        readable: mayRead(process.pid),
        targets: [
          formatTarget({ kind: 'qemu', pid: process.pid }),
          ...(process.libvirt ? [formatTarget({ kind: 'libvirt', name: process.name })] : []),
          ...process.qmpSockets.map((socket) => formatTarget({ kind: 'qmp', socket })),
        ],
      }))
  );
}

/**
 * Opening /proc/PID/mem asks the kernel the same as reading the process does. ptrace(2),
 * PTRACE_MODE_ATTACH_FSCREDS.
 */
function mayRead(pid: number): boolean {
  try {
    closeSync(openSync(`/proc/${pid}/mem`, 'r'));
    return true;
  } catch {
    return false;
  }
}
