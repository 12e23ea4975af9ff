/** The way to a QEMU's monitor: a QMP socket, a libvirt domain. */
export type AccessWords =
  | readonly ['qmp', path: string]
  | readonly ['libvirt', uri: string, uuid: string];

/**
 * How another process resumes a guest: by a monitor, a guest of libvmi, or a monitor and the socket
 * of a debug stub.
 */
export type GuardWords =
  | AccessWords
  | readonly ['stub', path: string, ...monitor: AccessWords]
  | readonly ['libvmi', driver: 'xen' | 'kvm' | 'file', name: string, library: string];

/** What a guard is told: its user attends to the guest's stops. */
export const BEAT = '.';
/** The guest stands still on purpose, and no {@link BEAT} follows. */
export const HELD = '=';
/** The guest has been resumed. */
export const RESUMED = 'resumed\n';
