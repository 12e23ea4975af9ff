import { setTimeout as sleep } from 'node:timers/promises';
import { VmiError } from '../errors.js';
import { EventStream } from './event-stream.js';

/** Events that looks at a guest bring, some time apart, for as long as a reader waits for one. */
export abstract class PolledStream<T> extends EventStream<T> {
  readonly #interval: number;
  readonly #signal: AbortSignal | undefined;
  readonly #closed: () => void;
  #events: Iterator<T> | undefined;
  #hasEnded = false;

  /**
   * @internal
   * @param interval milliseconds between two looks
   * @param signal ends the stream with `VMI_ABORTED`
   * @param closed called once, at the end
   */
  constructor(interval: number, signal: AbortSignal | undefined, closed: () => void) {
    super();
    this.#interval = interval;
    this.#signal = signal;
    this.#closed = closed;
  }

  /** @internal What happened since the last look. */
  protected abstract look(): Iterable<T>;

  /** @internal Lets go of what the looks need. Called once. */
  protected abstract release(): void;

  /** @internal */
  protected async take(): Promise<IteratorResult<T, undefined>> {
    try {
      for (;;) {
        if (this.#hasEnded) return { done: true, value: undefined };
        if (this.#signal?.aborted)
          throw new VmiError('VMI_ABORTED', 'watching was aborted', { cause: this.#signal.reason });
        const result = this.#events?.next();
        if (result?.done === false) return result;
        if (this.#events !== undefined) await this.#wait();
        if (!this.#hasEnded && this.#signal?.aborted !== true)
          this.#events = this.look()[Symbol.iterator]();
      }
    } catch (error) {
      const hadEnded = this.#hasEnded;
      this.end();
      // Whoever ended the stream is told that it has ended, and of nothing else.
      if (hadEnded) return { done: true, value: undefined };
      throw error;
    }
  }

  /** @internal */
  protected end(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#events = undefined;
    this.release();
    this.#closed();
  }

  async #wait(): Promise<void> {
    const signal = this.#signal;
    await sleep(this.#interval, undefined, signal === undefined ? {} : { signal }).catch(() => {});
  }
}
