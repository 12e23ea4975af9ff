import { setTimeout as sleep } from 'node:timers/promises';
import { VmiError } from '../errors.js';
import type { ClockTie } from './clock-tie.js';
import type { SampleStatistics, SwitchSampler } from './sampled-switches.js';
import type { Switch } from './switch.js';

/** Milliseconds between two looks at the ring of a reader that waits. */
const POLL = 10;

export interface StreamOptions {
  /**
   * Only switches to or from these tasks: PIDs, TIDs, and PIDs of processes for all their threads.
   */
  readonly pids?: readonly number[] | undefined;
  /** Ends the stream with `VMI_ABORTED`. */
  readonly signal?: AbortSignal | undefined;
}

/** Switches as they were sampled. Made by `Guest.watchSwitches`; leaving a `for await` ends it. */
export class SwitchStream implements AsyncIterableIterator<Switch>, AsyncDisposable {
  readonly #sampler: SwitchSampler;
  readonly #pids: ReadonlySet<number> | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #closed: () => void;
  #batch: Switch[] = [];
  #at = 0;
  #missed = 0;
  #turn: Promise<unknown> = Promise.resolve();
  #isClosed = false;
  /** Switches that nobody saw on each CPU since the last one of it that was handed out. */
  readonly #unseen = new Map<number, number>();

  /** @internal */
  constructor(sampler: SwitchSampler, options: StreamOptions, closed: () => void) {
    this.#sampler = sampler;
    this.#pids = options.pids === undefined ? undefined : new Set(options.pids);
    this.#signal = options.signal;
    this.#closed = closed;
  }

  /** Ties the guest's scheduler clock to the host's: `clock.toHost(event.began)`. */
  get clock(): ClockTie {
    return this.#sampler.clock;
  }

  /** What this kernel does not show, in sentences; empty for a usual one. */
  get limits(): readonly string[] {
    return this.#sampler.layout.limits;
  }

  /** Numbers of the CPUs that are looked at. */
  get cpus(): readonly number[] {
    return this.#sampler.layout.cpus;
  }

  /** Switches of all CPUs so far that nobody saw, by the kernel's own count. */
  get missed(): number {
    return this.#missed;
  }

  get statistics(): SampleStatistics {
    return this.#sampler.statistics;
  }

  /**
   * The next switch; `done` once the stream is closed. Switches of one CPU come in order, those of
   * several nearly.
   * @throws {VmiError} `VMI_ABORTED`; `VMI_CLOSED`: the guest has ended. The stream is closed then
   */
  next(): Promise<IteratorResult<Switch, undefined>> {
    const turn = this.#turn.then(() => this.#next());
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** Ends sampling. Idempotent. */
  async return(): Promise<IteratorResult<Switch, undefined>> {
    this.#close();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#close();
  }

  async #next(): Promise<IteratorResult<Switch, undefined>> {
    try {
      for (;;) {
        if (this.#isClosed) return { done: true, value: undefined };
        if (this.#signal?.aborted) throw aborted(this.#signal);
        while (this.#at < this.#batch.length) {
          const event = this.#choose(this.#batch[this.#at++]!);
          if (event !== undefined) return { done: false, value: event };
        }
        this.#batch = this.#sampler.take();
        this.#at = 0;
        if (this.#batch.length === 0) await this.#wait();
      }
    } catch (error) {
      const wasClosed = this.#isClosed;
      this.#close();
      // Whoever closed the stream is told that it is closed, and of nothing else.
      if (wasClosed) return { done: true, value: undefined };
      throw error;
    }
  }

  async #wait(): Promise<void> {
    const signal = this.#signal;
    await sleep(POLL, undefined, signal === undefined ? {} : { signal }).catch(() => {});
  }

  /** An event that is wanted, with what was missed since the last one of its CPU that was. */
  #choose(event: Switch): Switch | undefined {
    this.#missed += event.missed ?? 0;
    const pids = this.#pids;
    if (pids === undefined) return event;
    const unseen = (this.#unseen.get(event.cpu) ?? 0) + (event.missed ?? 0);
    const isOf = (task: Switch['previous']) =>
      task !== null && (pids.has(task.pid) || pids.has(task.tgid));
    const isWanted = isOf(event.task) || isOf(event.previous);
    this.#unseen.set(event.cpu, isWanted ? 0 : unseen);
    if (!isWanted) return undefined;
    return event.missed === null ? event : { ...event, missed: unseen };
  }

  #close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#batch = [];
    this.#sampler.stop();
    this.#closed();
  }
}

function aborted(signal: AbortSignal): VmiError {
  return new VmiError('VMI_ABORTED', 'watching was aborted', { cause: signal.reason });
}
