import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { VmiError } from '../errors.js';
import { PACKAGE_ROOT } from '../package-root.js';

/** The guard's program, as it is built. */
const MAIN = join(PACKAGE_ROOT, 'dist', 'memory', 'pause-guard-main.js');
/** How long the guard may take to start, milliseconds. */
const START_DEADLINE = 10_000;

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

/**
 * A small process of its own that resumes the guest when this process ends before it has: by an
 * exception, a signal, SIGKILL. It waits on a pipe, which the kernel closes with whoever holds the
 * other end.
 */
export class PauseGuard {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  /**
   * Starts the guard; only when it is ready may the guest be stopped.
   * @throws {VmiError} `VMI_BUSY`: the guard did not start
   */
  static async start(words: GuardWords): Promise<PauseGuard> {
    const child = spawn(process.execPath, [MAIN, ...words], {
      detached: true,
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    await new Promise<void>((resolve, reject) => {
      const fail = (cause?: unknown) =>
        reject(
          new VmiError(
            'VMI_BUSY',
            'cannot pause: the process that guards the pause did not start',
            {
              cause,
            },
          ),
        );
      const timer = setTimeout(fail, START_DEADLINE);
      child.once('error', fail);
      child.once('exit', fail);
      child.stdout?.once('data', () => {
        clearTimeout(timer);
        child.removeAllListeners('exit');
        resolve();
      });
    });
    child.unref();
    for (const stream of [child.stdin, child.stdout])
      (stream as unknown as { unref?(): void })?.unref?.();
    return new PauseGuard(child);
  }

  /** Sends the guard home: the guest has been resumed. */
  release(): void {
    this.#child.stdin?.on('error', () => {});
    this.#child.stdin?.end('resumed\n');
  }
}
