import { VmiError } from '../errors.js';
import {
  type Cr3WriteOptions,
  checkCr3Writes,
  type RawCr3Write,
  type RawCr3Writes,
} from '../memory/cr3-writes.js';
import type { LibvmiSession } from './session.js';

/** A vCPU loaded CR3. */
export type Cr3Write = RawCr3Write;
export type { Cr3WriteOptions };

/** Writes that are kept unless told otherwise. */
export const DEFAULT_QUEUE = 4_096;
/** Milliseconds between two looks at whether libvmi still answers. */
const LOOK = 1_000;

/**
 * Writes to CR3, as they happen. Listening begins with the first `next()` and ends with `return()`,
 * which leaving a `for await` calls. The guest never waits for whoever reads this: a process of its
 * own takes what the hypervisor reports into a queue, and lets the guest go when it ends itself, or
 * this process does, by whatever means; see docs/xen.md.
 */
export class Cr3WriteStream implements RawCr3Writes {
  readonly #open: (signal: AbortSignal | undefined) => Promise<LibvmiSession>;
  readonly #queue: number;
  readonly #signal: AbortSignal | undefined;
  #session: Promise<LibvmiSession> | undefined;
  #batch: BigUint64Array = new BigUint64Array();
  #at = 0;
  #taken = 0;
  #droppedByThen = 0;
  /** Of a session that is closed. */
  #dropped = 0;
  #listening: LibvmiSession | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | undefined;

  /**
   * @internal
   * @param open attaches to the guest with events
   * @throws {TypeError} @throws {RangeError} an option
   */
  constructor(
    open: (signal: AbortSignal | undefined) => Promise<LibvmiSession>,
    options: Cr3WriteOptions = {},
  ) {
    checkCr3Writes(options);
    this.#open = open;
    this.#queue = options.queue ?? DEFAULT_QUEUE;
    this.#signal = options.signal;
  }

  /**
   * Writes that were lost so far because nobody took them in time: as of now, and so it may count
   * some that were written after the next one to be read. 0 before the first `next()`; stays what
   * it was once the stream is closed.
   */
  get dropped(): number {
    return this.#listening?.droppedWrites ?? this.#dropped;
  }

  /**
   * The next write; `done` once the stream is closed.
   * @throws {VmiError} `VMI_CLOSED`: the guest has ended. `VMI_EVENTS_TAKEN`: somebody else listens
   *   to this domain of Xen, or has left its events on. `VMI_BUSY`: the process that listens was
   *   stopped or took nothing, and the guest was let go. `VMI_CRASHED`, `VMI_ABORTED`,
   *   `VMI_UNSUPPORTED` with the reason. The stream is closed then
   */
  next(): Promise<IteratorResult<Cr3Write, undefined>> {
    const turn = this.#turn.then(() => this.#next());
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /**
   * When the write that `next()` gave last was taken from the hypervisor at the latest, as
   * `performance.now()`.
   */
  get taken(): number {
    return this.#taken;
  }

  /**
   * Writes that were lost before the last one of those that were taken with the write that `next()`
   * gave last. It only grows, and what comes in a batch for which it has not grown is without gap.
   */
  get droppedByThen(): number {
    return this.#droppedByThen;
  }

  /** Ends listening and lets go of the guest. Idempotent. */
  async return(): Promise<IteratorResult<Cr3Write, undefined>> {
    await this.close();
    return { done: true, value: undefined };
  }

  /** The same as {@link return}. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #next(): Promise<IteratorResult<Cr3Write, undefined>> {
    try {
      while (this.#closing === undefined && this.#at === this.#batch.length) await this.#refill();
    } catch (error) {
      // Whoever closed the stream is told that it is closed, and of nothing else.
      if (this.#closing === undefined) {
        await this.close().catch(() => {});
        throw error;
      }
    }
    if (this.#closing !== undefined) return { done: true, value: undefined };
    const [vcpu, value, previous] = this.#batch.subarray(this.#at, this.#at + 3);
    this.#at += 3;
    return { done: false, value: { vcpu: Number(vcpu), value: value!, previous: previous! } };
  }

  async #refill(): Promise<void> {
    const signal = this.#signal;
    if (signal?.aborted)
      throw new VmiError('VMI_ABORTED', 'listening was aborted', { cause: signal.reason });
    this.#session ??= this.#start(signal);
    const session = await this.#session;
    if (this.#closing !== undefined) return;
    const { writes, dropped } = await session.takeWrites(LOOK, signal);
    this.#batch = writes;
    this.#droppedByThen = dropped;
    this.#at = 0;
    this.#taken = performance.now();
  }

  async #start(signal: AbortSignal | undefined): Promise<LibvmiSession> {
    const session = await this.#open(signal).catch((error) => {
      // The guest itself can be attached to, or there would be nobody to ask for events.
      if (!(error instanceof VmiError) || error.code !== 'VMI_ATTACH') throw error;
      throw new VmiError('VMI_UNSUPPORTED', error.message, { cause: error });
    });
    try {
      await session.listen(this.#queue, { signal });
      this.#listening = session;
      return session;
    } catch (error) {
      await session.close().catch(() => {});
      throw error;
    }
  }

  async #close(): Promise<void> {
    const session = await this.#session?.catch(() => undefined);
    if (session === undefined) return;
    try {
      await session.unlisten();
    } catch (error) {
      // What libvmi does at the end clears the event too; one that is gone has nothing to clear.
      if (!(error instanceof VmiError)) throw error;
    } finally {
      this.#dropped = this.dropped;
      this.#listening = undefined;
      await session.close();
    }
  }
}
