import { readdirSync, readlinkSync, statSync } from 'node:fs';
import { readHostFile } from '../../host.js';

/** `__SO_ACCEPTCON` in the flags of /proc/net/unix: it listens. include/linux/net.h. */
const ACCEPTS = 0x10000;
/** `TCP_LISTEN` in /proc/net/tcp. include/net/tcp_states.h. */
const LISTENS = '0A';

/** What listens in a network namespace, by the namespace: all processes of a host share few. */
type Tables = Map<string, readonly Listener[]>;

interface Listener {
  /** As the one that made it calls it: a path, or `tcp:PORT`. */
  readonly name: string;
  /** As /proc/PID/fd names it. */
  readonly socket: string;
}

/**
 * The process that listens on a UNIX socket or a port of this host, by the socket's inode.
 * proc_pid_net(5). A process in a container or a chroot knows its socket by another path, so the
 * files are compared.
 * @returns `undefined` when no process that this user may look at holds it
 */
export function listenerOf(address: string): number | undefined {
  const tables: Tables = new Map();
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .find((pid) => listensOn(pid, address, tables));
}

/** Whether a process listens on a socket: a path of ours, or `tcp:HOST:PORT`. */
export function listensOn(pid: number, address: string, tables: Tables = new Map()): boolean {
  const port = /^tcp:.*:(\d+)$/.exec(address)?.[1];
  const wanted = port === undefined ? fileAt(address) : undefined;
  try {
    const namespace = readlinkSync(`/proc/${pid}/ns/net`);
    if (!tables.has(namespace)) tables.set(namespace, listeners(pid));
    // A port of another namespace is not one that can be reached from here.
    if (port !== undefined && namespace !== readlinkSync('/proc/self/ns/net')) return false;
    const sockets = new Set<string>();
    for (const { name, socket } of tables.get(namespace)!) {
      const isIt =
        port === undefined
          ? name.startsWith('/') &&
            (fileAt(`/proc/${pid}/root${name}`) ?? name) === (wanted ?? address)
          : name === `tcp:${port}`;
      if (isIt) sockets.add(socket);
    }
    if (sockets.size === 0) return false;
    const fds = readdirSync(`/proc/${pid}/fd`);
    return fds.some((fd) => sockets.has(readlinkSync(`/proc/${pid}/fd/${fd}`)));
  } catch {
    // Gone, or another user's.
    return false;
  }
}

function listeners(pid: number): Listener[] {
  const found: Listener[] = [];
  const rows = (table: string) =>
    (readHostFile(`/proc/${pid}/net/${table}`) ?? '')
      .split('\n')
      .slice(1)
      .map((line) => line.trim().split(/\s+/));
  for (const fields of rows('unix')) {
    if (fields.length < 8 || (Number.parseInt(fields[3]!, 16) & ACCEPTS) === 0) continue;
    found.push({ name: fields.slice(7).join(' '), socket: `socket:[${fields[6]}]` });
  }
  for (const fields of [...rows('tcp'), ...rows('tcp6')]) {
    if (fields[3] !== LISTENS) continue;
    const port = Number.parseInt(fields[1]!.split(':')[1]!, 16);
    found.push({ name: `tcp:${port}`, socket: `socket:[${fields[9]}]` });
  }
  return found;
}

function fileAt(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path, { bigint: true });
    return `${dev} ${ino}`;
  } catch {
    return undefined;
  }
}
