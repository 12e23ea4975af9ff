import { checkOptions, describe } from './options.js';
import { didYouMean } from './suggest.js';

/** What to attach to, parsed. */
export type Target =
  | { readonly kind: 'qemu'; readonly pid: number }
  | { readonly kind: 'qmp'; readonly socket: string }
  | { readonly kind: 'process'; readonly pid: number }
  | {
      readonly kind: 'libvirt';
      readonly name: string;
      /**
       * The connection; `$LIBVIRT_DEFAULT_URI`, then `qemu:///system` when left out. No part of the
       * string form.
       */
      readonly uri?: string | undefined;
    }
  | { readonly kind: 'image'; readonly path: string }
  | { readonly kind: 'replay'; readonly path: string }
  | ({ readonly kind: 'libvmi' } & LibvmiTarget);

/** What to attach to through libvmi, and how. The string form has `driver` and `name` only. */
export interface LibvmiTarget {
  readonly driver: 'xen' | 'kvm' | 'file';
  /** Domain name, or path of a file of raw memory. */
  readonly name: string;
  /** Path of the library; `$LIBVMI_LIBRARY`, then `libvmi.so.0` when left out. */
  readonly library?: string | undefined;
  /** Milliseconds any one call into libvmi may take; default 5,000. */
  readonly deadline?: number | undefined;
  /** The same for attaching; default 30,000. */
  readonly attachDeadline?: number | undefined;
  /** File driver: bytes of RAM below 4 GiB; the rest of the file is RAM from 4 GiB on. */
  readonly split?: bigint | undefined;
  /**
   * File driver: whether bytes are loaded from a mapping of the file instead of through
   * vmi_read_pa; default true. libvmi's memory is that file and nothing else, and its reads cost a
   * copy of a page for every 8 bytes on a page it has not cached. Attaching compares the two; where
   * they differ, vmi_read_pa it is.
   */
  readonly map?: boolean | undefined;
  /**
   * Whether reads may run on the calling thread, without a deadline; default: with the file driver
   * only.
   */
  readonly direct?: boolean | undefined;
  /**
   * Whether a process guards a pause, so that no way to end leaves the guest paused; default true.
   */
  readonly guard?: boolean | undefined;
  /** Whether libvmi runs in a process of its own; default false. */
  readonly isolate?: boolean | undefined;
}

/** A form of a target, for messages, help and docs. */
export interface TargetForm {
  /** What stands before the colon. */
  readonly prefix: string;
  /** What stands behind it. */
  readonly name: string;
  readonly summary: string;
}

/** Every form that a target string has, the likeliest first. */
export const TARGETS: readonly TargetForm[] = [
  {
    prefix: 'qemu',
    name: 'PID',
    summary: "a QEMU process on this host, libvirt's too ('vmi list' shows them)",
  },
  {
    prefix: 'libvirt',
    name: 'NAME',
    summary: 'a libvirt domain on this host: its own memory map, registers, pause',
  },
  { prefix: 'qmp', name: 'SOCKET', summary: 'the QEMU behind a QMP socket' },
  {
    prefix: 'process',
    name: 'PID',
    summary: "the guest of any other VMM's process: RAM alone, proven by the guest's page tables",
  },
  {
    prefix: 'image',
    name: 'PATH',
    summary: 'a memory image: raw, ELF core (dump-guest-memory), kdump or LiME',
  },
  { prefix: 'replay', name: 'FILE', summary: "what 'vmi record' made: answers, with no guest" },
  { prefix: 'xen', name: 'NAME', summary: 'a domain of Xen, through libvmi in dom0' },
  { prefix: 'kvm', name: 'NAME', summary: 'a libvirt domain, through libvmi' },
  { prefix: 'libvmi', name: 'PATH', summary: "a file of raw RAM, through libvmi's file driver" },
];

/** The forms of a target, for messages. */
export const TARGET_FORMS = TARGETS.map(({ prefix, name }) => `${prefix}:${name}`)
  .join(', ')
  .replace(/, ([^,]*)$/, ' or $1');

/**
 * Parses a target string. Everything after the first colon is taken as it is, so names and paths
 * may hold colons and spaces.
 * @throws {TypeError} not a string
 * @throws {RangeError} unknown kind, nothing after the colon, or a PID that is none
 */
export function parseTarget(text: string): Target {
  if (typeof text !== 'string') {
    throw new TypeError(
      `Expected target as a string (${TARGET_FORMS}) but received ${describe(text)}`,
    );
  }
  const colon = text.indexOf(':');
  const kind = text.slice(0, colon);
  const rest = text.slice(colon + 1);
  if (colon < 0) throw unknownForm(text);
  if (rest === '')
    throw new RangeError(`Expected target as ${TARGET_FORMS} but received '${text}'`);
  switch (kind) {
    case 'qemu':
    case 'process':
      if (!isPid(/^[0-9]+$/.test(rest) ? Number(rest) : undefined)) throw noPid(kind, `'${text}'`);
      return { kind, pid: Number(rest) };
    case 'qmp':
      return checkTarget({ kind, socket: rest });
    case 'libvirt':
      return { kind, name: rest };
    case 'image':
    case 'replay':
      return { kind, path: rest };
    case 'xen':
    case 'kvm':
      return { kind: 'libvmi', driver: kind, name: rest };
    case 'libvmi':
      return { kind, driver: 'file', name: rest };
    default:
      throw unknownForm(text, kind);
  }
}

/** Says what was most likely meant: a path, a PID, another kind. */
function unknownForm(text: string, kind?: string): RangeError {
  const hint =
    kind !== undefined
      ? didYouMean(
          kind,
          TARGETS.map(({ prefix }) => prefix),
        )
      : /^[0-9]+$/.test(text)
        ? `; did you mean qemu:${text}?`
        : text.includes('/') || text.startsWith('.')
          ? `; did you mean image:${text}?`
          : '';
  return new RangeError(`Expected target as ${TARGET_FORMS} but received '${text}'${hint}`);
}

function isPid(pid: unknown): boolean {
  return Number.isSafeInteger(pid) && (pid as number) >= 1 && (pid as number) <= 0x7fff_ffff;
}

function noPid(kind: 'qemu' | 'process', received: string): RangeError {
  const what = kind === 'qemu' ? 'a QEMU' : 'a VMM';
  return new RangeError(
    `Expected ${kind}:PID with the process id of ${what} but received ${received}; 'vmi list' shows what runs here`,
  );
}

type Kind = Target['kind'];
/** Fields of each kind: the type of each, `?` where it may be left out. */
const FIELDS: { readonly [K in Kind]: Readonly<Record<string, string>> } = {
  qemu: { pid: 'number' },
  qmp: { socket: 'string' },
  process: { pid: 'number' },
  libvirt: { name: 'string', uri: 'string?' },
  image: { path: 'string' },
  replay: { path: 'string' },
  libvmi: {
    driver: 'string',
    name: 'string',
    library: 'string?',
    deadline: 'number?',
    attachDeadline: 'number?',
    split: 'bigint?',
    map: 'boolean?',
    direct: 'boolean?',
    guard: 'boolean?',
    isolate: 'boolean?',
  },
};

/** `tcp:HOST:PORT`, with brackets around an IPv6 address; without a host it is this one. */
const TCP = /^tcp:(\[[^\]]+\]|[^:]*):(\d+)$/;

/** Host and port of a QMP socket that is none of this host's files; `undefined`: it is a path. */
export function tcpSocket(socket: string): { host: string; port: number } | undefined {
  const [, host = '', port] = TCP.exec(socket) ?? [];
  if (port === undefined || Number(port) < 1 || Number(port) > 65_535) return undefined;
  return { host: host.replace(/^\[|\]$/g, '') || 'localhost', port: Number(port) };
}

/** @throws {RangeError} `tcp:` without a port: nobody means a path by it */
function checkSocket(socket: string): void {
  if (!socket.startsWith('tcp:') || tcpSocket(socket) !== undefined) return;
  throw new RangeError(
    `Expected qmp:tcp:HOST:PORT with a port of 1 to 65535 but received 'qmp:${socket}'; a path that begins with tcp: is written ./${socket}`,
  );
}

/**
 * Checks a target that was given as an object.
 * @throws {TypeError} no object, another kind, a field that it lacks or that nobody reads
 * @throws {RangeError} a PID or a driver that is none, an empty name
 */
export function checkTarget(target: unknown): Target {
  if (typeof target !== 'object' || target === null || Array.isArray(target)) {
    const hint = isPid(target) ? `; did you mean 'qemu:${target}'?` : '';
    throw new TypeError(
      `Expected target as a string (${TARGET_FORMS}) or an object but received ${describe(target)}${hint}`,
    );
  }
  const { kind, ...fields } = target as { kind?: unknown } & Record<string, unknown>;
  const known = typeof kind === 'string' && Object.hasOwn(FIELDS, kind);
  if (!known) {
    const kinds = Object.keys(FIELDS).join(', ');
    throw new TypeError(`Expected target.kind as one of ${kinds} but received ${describe(kind)}`);
  }
  const form = FIELDS[kind as Kind];
  const names = Object.fromEntries(Object.keys(form).map((name) => [name, true as const]));
  checkOptions(fields, names, `a target of kind ${kind}`);
  for (const [name, type] of Object.entries(form)) {
    const value = fields[name];
    if (value === undefined && type.endsWith('?')) continue;
    if (typeof value !== type.replace('?', '') || value === '')
      throw new TypeError(
        `Expected target.${name} as a ${type.replace('?', '')} but received ${describe(value)}`,
      );
  }
  if ((kind === 'qemu' || kind === 'process') && !isPid(fields.pid))
    throw noPid(kind, describe(fields.pid));
  if (kind === 'qmp') checkSocket(fields.socket as string);
  if (kind === 'libvmi' && !['xen', 'kvm', 'file'].includes(fields.driver as string))
    throw new RangeError(
      `Expected target.driver as one of xen, kvm, file but received ${describe(fields.driver)}`,
    );
  return target as Target;
}

/**
 * The string form of a target; `parseTarget` gives the same target back.
 * @throws {TypeError} @throws {RangeError} no target
 */
export function formatTarget(target: Target): string {
  checkTarget(target);
  switch (target.kind) {
    case 'qemu':
    case 'process':
      return `${target.kind}:${target.pid}`;
    case 'qmp':
      return `qmp:${target.socket}`;
    case 'libvirt':
      return `libvirt:${target.name}`;
    case 'image':
    case 'replay':
      return `${target.kind}:${target.path}`;
    case 'libvmi':
      return `${target.driver === 'file' ? 'libvmi' : target.driver}:${target.name}`;
  }
}
