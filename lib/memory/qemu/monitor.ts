import type { AccessWords } from '../pause-guard.js';

/** What answers for a QEMU while it is asked. */
export interface Monitor {
  /**
   * Runs one QMP command.
   * @throws {VmiError} `VMI_UNSUPPORTED`: QEMU refused it; `VMI_CLOSED`: QEMU went away;
   * `VMI_BUSY`: no answer
   */
  execute(command: string, args?: object): Promise<unknown>;
  /** Runs a command of the human monitor and returns its text. */
  human(commandLine: string): Promise<string>;
}

/** The way to a monitor that others want to use as well: it is held for a question and let go. */
export interface MonitorAccess {
  use<T>(work: (monitor: Monitor) => T | Promise<T>): Promise<T>;
  /** The same access for the guard of a pause, in another process. */
  readonly words: AccessWords;
}
