import { closeSync, openSync } from 'node:fs';
import { type XenDomain, xenDomains, xenHost } from '../../memory/libvmi/xen-domains.js';
import { type QemuProcess, qemuProcesses } from '../../memory/qemu/process.js';
import { formatTarget } from '../../target.js';
import { bytesText } from '../../text/printable.js';
import { table } from '../../text/table.js';
import { type Command, JSON_OPTION } from '../command.js';
import { EXIT } from '../exit-code.js';

/** A guest on this host, as `vmi list --json` gives it. */
export interface ListedGuest {
  /** Process id of its QEMU; `null` for a domain of Xen. */
  readonly pid: number | null;
  /** Number of the domain of Xen; `null` for a QEMU. */
  readonly domain: number | null;
  readonly name: string;
  /** Bytes of RAM, a decimal number; `null` when the command line does not tell. */
  readonly memory: number | null;
  /** QEMU's machine type, or the kind of Xen's domain: `xen-pv`, `xen-pvh`, `xen-hvm`. */
  readonly machine: string | null;
  readonly qmpSockets: readonly string[];
  /** Whether this user may read its memory. */
  readonly readable: boolean;
  /** What to give to the other commands, the best first. */
  readonly targets: readonly string[];
}

export const list: Command = {
  name: 'list',
  summary: 'show what on this host can be attached',
  operands: [],
  options: JSON_OPTION,
  details: [
    'Every QEMU that this user can see, and in dom0 of Xen its domains. A domain of the system\'s libvirt has a target libvirt:NAME as well, which adds registers and pause. "readable: no" means that its memory belongs to another user: run as that user or as root.',
  ],
  examples: ['vmi list', "vmi list --json | jq -r 'select(.readable).targets[0]'"],
  run({ has, out }) {
    const guests = listGuests();
    if (has('json')) {
      out.json(guests);
      return EXIT.done;
    }
    if (guests.length === 0) {
      out.note(
        'no QEMU runs on this host that this user can see, and no domain of Xen; image:PATH attaches to a memory image',
      );
      return EXIT.done;
    }
    out.lines(
      table(
        guests,
        [
          { heading: 'PID', align: 'right', cell: ({ pid }) => String(pid ?? '-') },
          ...(guests.some(({ domain }) => domain !== null)
            ? [
                {
                  heading: 'DOMAIN',
                  align: 'right' as const,
                  cell: ({ domain }: ListedGuest) => String(domain ?? '-'),
                },
              ]
            : []),
          { heading: 'NAME', cell: (guest) => guest.name || '-' },
          {
            heading: 'MEMORY',
            align: 'right',
            cell: ({ memory }) => (memory === null ? '?' : bytesText(BigInt(memory))),
          },
          { heading: 'MACHINE', cell: (guest) => guest.machine ?? '?' },
          { heading: 'READABLE', cell: (guest) => (guest.readable ? 'yes' : 'no') },
          { heading: 'TARGETS', cell: (guest) => guest.targets.join('  ') },
        ],
        { styles: out.styles },
      ),
    );
    return EXIT.done;
  },
};

/** Guests on this host: QEMUs by process id, then Xen's domains by number. */
export function listGuests(
  processes: readonly QemuProcess[] = qemuProcesses(),
  domains: readonly XenDomain[] = xenDomains(),
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

function listProcesses(processes: readonly QemuProcess[]): ListedGuest[] {
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

/** Opening /proc/PID/mem asks the kernel the same as reading the process does. ptrace(2), PTRACE_MODE_ATTACH_FSCREDS. */
function mayRead(pid: number): boolean {
  try {
    closeSync(openSync(`/proc/${pid}/mem`, 'r'));
    return true;
  } catch {
    return false;
  }
}
