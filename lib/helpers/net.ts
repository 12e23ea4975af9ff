import { escapeBytes } from '../escape.js';
import type { KernelObjects } from '../objects/kernel-objects.js';
import type { Pointer } from '../objects/pointer.js';
import type { StructObject } from '../objects/struct-object.js';
import { files } from './files.js';
import { processes } from './tasks.js';

// include/linux/socket.h.
const FAMILIES: Readonly<Record<number, string>> = {
  1: 'unix',
  2: 'inet',
  10: 'inet6',
  16: 'netlink',
  17: 'packet',
  40: 'vsock',
};
// include/net/tcp_states.h.
const STATES = [
  '',
  'ESTABLISHED',
  'SYN_SENT',
  'SYN_RECV',
  'FIN_WAIT1',
  'FIN_WAIT2',
  'TIME_WAIT',
  'CLOSE',
  'CLOSE_WAIT',
  'LAST_ACK',
  'LISTEN',
  'CLOSING',
  'NEW_SYN_RECV',
];

/** A socket that a process has open. */
export interface Socket {
  readonly pid: number;
  readonly fd: number;
  /** `inet`, `inet6`, `unix`, `netlink`, …; the family's number where it has no name here. */
  readonly family: string;
  /** `TCP`, `UDP`, `UNIX-STREAM`, …, as the kernel calls the protocol. */
  readonly protocol: string;
  /** `LISTEN`, `ESTABLISHED`, …: of TCP what it says, of others only whether they are connected. */
  readonly state: string;
  /** `127.0.0.1:22`, `[::1]:22`, a path or name of a unix socket; empty where there is none. */
  readonly local: string;
  readonly remote: string;
  readonly inode: bigint;
  /** `struct sock` */
  readonly object: StructObject;
}

/**
 * Sockets by their owners: every one that a process has open, once for each descriptor.
 *
 * Source: net/socket.c, sock_from_file: `file->private_data` is the `struct socket` where
 * `file->f_op` is `socket_file_ops`; include/net/sock.h, `struct sock_common`;
 * include/net/af_unix.h, `struct unix_sock`.
 */
export function* sockets(objects: KernelObjects): Generator<Socket> {
  const operations = objects.symbols.find('socket_file_ops');
  for (const task of processes(objects)) {
    for (const { fd, object: file } of files(task)) {
      if (file.f_op?.$address !== operations || operations === undefined) continue;
      const socket = (file.$follow('private_data') as Pointer).cast(
        'struct socket',
      ) as StructObject;
      const sk = socket.sk as StructObject | null;
      if (sk !== null) yield toSocket(task.pid, fd, file, sk);
    }
  }
}

function toSocket(pid: number, fd: number, file: StructObject, sk: StructObject): Socket {
  const common = sk.__sk_common as StructObject;
  const family = common.skc_family as number;
  const [local, remote] = endpoints(sk, common, family);
  return {
    pid,
    fd,
    family: FAMILIES[family] ?? String(family),
    protocol: common.skc_prot?.name ?? '',
    state: STATES[common.skc_state as number] ?? String(common.skc_state),
    local,
    remote,
    inode: file.$follow('f_inode').i_ino,
    object: sk,
  };
}

function endpoints(sk: StructObject, common: StructObject, family: number): [string, string] {
  if (family === 1) {
    const socket = sk.$cast('struct unix_sock') as StructObject;
    const peer = socket.peer as StructObject | null;
    const remote = peer === null ? '' : unixName(peer.$cast('struct unix_sock'));
    return [unixName(socket), remote];
  }
  if (family !== 2 && family !== 10) return ['', ''];
  const address = (four: string, six: string) =>
    family === 2
      ? ipv4(common.$member(four).bytes())
      : `[${ipv6((common[six] as StructObject).$bytes())}]`;
  // skc_num is in the host's order, skc_dport in the network's.
  const port = common.$member('skc_dport').bytes().readUInt16BE();
  return [
    `${address('skc_rcv_saddr', 'skc_v6_rcv_saddr')}:${common.skc_num}`,
    `${address('skc_daddr', 'skc_v6_daddr')}:${port}`,
  ];
}

/**
 * `struct unix_address { int len; struct sockaddr_un name[]; }`; an abstract name begins with a
 * NUL.
 */
function unixName(socket: StructObject): string {
  const address = socket.addr as StructObject | null;
  if (address === null) return '';
  const length = Math.min(Math.max((address.len as number) - 2, 0), 108);
  const bytes = address.name.at(0).$member('sun_path').bytes().subarray(0, length) as Buffer;
  if (bytes[0] === 0) return `@${escapeBytes(bytes.subarray(1))}`;
  const end = bytes.indexOf(0);
  return escapeBytes(end < 0 ? bytes : bytes.subarray(0, end));
}

function ipv4(bytes: Buffer): string {
  return bytes.subarray(0, 4).join('.');
}

/** RFC 5952: the longest run of zeroes is left out. */
function ipv6(bytes: Buffer): string {
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(i * 2).toString(16));
  const text = groups.join(':');
  const runs = [...text.matchAll(/(?:^|:)0(?::0)+(?:$|:)/g)].map(([run]) => run);
  const longest = runs.sort((a, b) => b.length - a.length)[0];
  return longest === undefined ? text : text.replace(longest, '::');
}
