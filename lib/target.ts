/** What to attach to, parsed. */
export type Target =
  | { readonly kind: 'qemu'; readonly pid: number }
  | { readonly kind: 'qmp'; readonly socket: string }
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
  | {
      readonly kind: 'libvmi';
      readonly driver: 'xen' | 'kvm' | 'file';
      readonly name: string;
      /** Whether libvmi runs in a process of its own. */
      readonly isolate?: boolean | undefined;
      /** File driver: `false` sends every read through libvmi although the file could be mapped. */
      readonly map?: boolean | undefined;
    };

/** The forms of a target, for messages. */
export const TARGET_FORMS =
  'qemu:PID, libvirt:NAME, qmp:SOCKET, image:PATH, xen:NAME, kvm:NAME or libvmi:PATH';

/**
 * Parses a target string. Everything after the first colon is taken as it is, so names and paths
 * may hold colons and spaces.
 * @throws {TypeError} not a string
 * @throws {RangeError} unknown kind, nothing after the colon, or a PID that is none
 */
export function parseTarget(text: string): Target {
  if (typeof text !== 'string') {
    throw new TypeError(
      `Expected target as a string (${TARGET_FORMS}) but received ${typeof text}`,
    );
  }
  const colon = text.indexOf(':');
  const kind = text.slice(0, colon);
  const rest = text.slice(colon + 1);
  if (colon < 0 || rest === '') {
    throw new RangeError(`Expected target as ${TARGET_FORMS} but received '${text}'`);
  }
  switch (kind) {
    case 'qemu': {
      const pid = Number(rest);
      if (!/^[0-9]+$/.test(rest) || !Number.isSafeInteger(pid) || pid < 1 || pid > 0x7fff_ffff) {
        throw new RangeError(
          `Expected qemu:PID with the process id of a QEMU but received '${text}'; 'vmi list' shows what runs here`,
        );
      }
      return { kind, pid };
    }
    case 'qmp':
      return { kind, socket: rest };
    case 'libvirt':
      return { kind, name: rest };
    case 'image':
      return { kind, path: rest };
    case 'xen':
    case 'kvm':
      return { kind: 'libvmi', driver: kind, name: rest };
    case 'libvmi':
      return { kind, driver: 'file', name: rest };
    default:
      throw new RangeError(`Expected target as ${TARGET_FORMS} but received '${text}'`);
  }
}

/** The string form of a target; `parseTarget` gives the same target back. */
export function formatTarget(target: Target): string {
  switch (target.kind) {
    case 'qemu':
      return `qemu:${target.pid}`;
    case 'qmp':
      return `qmp:${target.socket}`;
    case 'libvirt':
      return `libvirt:${target.name}`;
    case 'image':
      return `image:${target.path}`;
    case 'libvmi':
      return `${target.driver === 'file' ? 'libvmi' : target.driver}:${target.name}`;
  }
}
