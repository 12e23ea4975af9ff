import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { VmiError } from '../errors.js';
import { PACKAGE_ROOT } from '../package-root.js';
import { BEAT, type GuardWords, HELD, RESUMED } from './guard-words.js';

export type { AccessWords, GuardWords } from './guard-words.js';

/** The guard's program, as it is built. */
const MAIN = join(PACKAGE_ROOT, 'dist', 'memory', 'pause-guard-main.js');
/** How long the guard may take to start, milliseconds. */
const START_DEADLINE = 10_000;
/** Time between two words to a guard that waits for them, milliseconds. */
const INTERVAL = 500;

/**
 * A small process of its own that resumes the guest when this process ends before it has: by an
 * exception, a signal, SIGKILL. It waits on a pipe, which the kernel closes with whoever holds the
 * other end.
 */
export class PauseGuard {
  readonly #child: ChildProcess;
  #beats: NodeJS.Timeout | undefined;

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

  /** Says now and then that this process attends to the guest's stops, until {@link hold}. */
  attend(): void {
    this.#child.stdin?.on('error', () => {});
    const beat = () => this.#child.stdin?.write(BEAT);
    beat();
    this.#beats = setInterval(beat, INTERVAL).unref();
  }

  /** Says that the guest stands still on purpose from now on. */
  hold(): void {
    clearInterval(this.#beats);
    this.#child.stdin?.write(HELD);
  }

  /** Sends the guard home: the guest has been resumed. */
  release(): void {
    clearInterval(this.#beats);
    this.#child.stdin?.on('error', () => {});
    this.#child.stdin?.end(RESUMED);
  }
}
