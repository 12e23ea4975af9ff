import type { ClockTie } from './clock-tie.js';
import { PolledStream } from './polled-stream.js';
import type { SampleStatistics, SwitchSampler } from './sampled-switches.js';
import type { Switch } from './switch.js';

/** Milliseconds between two looks at the ring of a reader that waits. */
const POLL = 10;

/** What every stream of switches takes. */
export interface StreamOptions {
  /**
   * Only switches to or from these tasks: PIDs, TIDs, and PIDs of processes for all their threads.
   */
  readonly pids?: readonly number[] | undefined;
  /** Ends the stream with `VMI_ABORTED`. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Switches as they were sampled. Made by `Guest.watchSwitches`; leaving a `for await` ends it.
 * Switches of one CPU come in order, those of several nearly.
 */
export class SwitchStream extends PolledStream<Switch> {
  readonly #sampler: SwitchSampler;
  readonly #pids: ReadonlySet<number> | undefined;
  #missed = 0;
  /** Switches that nobody saw on each CPU since the last one of it that was handed out. */
  readonly #unseen = new Map<number, number>();

  /** @internal */
  constructor(sampler: SwitchSampler, options: StreamOptions, closed: () => void) {
    super(POLL, options.signal, closed);
    this.#sampler = sampler;
    this.#pids = options.pids === undefined ? undefined : new Set(options.pids);
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

  /** @internal All that wait in the ring. */
  protected *look(): Generator<Switch, void> {
    for (;;) {
      const batch = this.#sampler.take();
      if (batch.length === 0) return;
      for (const event of batch) {
        const chosen = this.#choose(event);
        if (chosen !== undefined) yield chosen;
      }
    }
  }

  /** @internal */
  protected release(): void {
    this.#sampler.stop();
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
}
