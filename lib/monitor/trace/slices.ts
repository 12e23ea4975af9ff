import type { ClockTie } from '../clock-tie.js';
import type { RunningTask, Switch } from '../switch.js';

/** A stretch of time in which a CPU ran one task, or switched unseen. */
export interface Slice {
  readonly cpu: number;
  /** Nanoseconds since the trace began. */
  readonly start: number;
  readonly end: number;
  /** `undefined`: switches that nobody saw. */
  readonly task: RunningTask | undefined;
  readonly cr3: bigint | null;
  /** Switches in it that nobody saw; 0 for a slice of a task. */
  readonly missed: number;
  /** Whether `start` is the scheduler's own word, and not only between two looks. */
  readonly exact: boolean;
}

/** A slice that has not ended. */
interface Open {
  readonly event: Switch;
  readonly start: number;
  readonly exact: boolean;
}

/**
 * Makes slices of switches: of each CPU without gaps and without overlap. Where switches were
 * missed, the slice before ends when it was last seen, and what lies between is a slice without a
 * task.
 */
export class Slices {
  readonly #clock: ClockTie | undefined;
  readonly #open = new Map<number, Open>();
  #origin: number | undefined;

  /**
   * @param clock ties guest time to host time; left out: times are those at which switches were
   * known
   */
  constructor(clock?: ClockTie) {
    this.#clock = clock;
  }

  /** Host time at which the trace begins, nanoseconds on the clock of `process.hrtime.bigint()`. */
  get origin(): bigint {
    return BigInt(this.#origin ?? 0);
  }

  /** The slices that a switch ends; in the order of their CPU's time. */
  add(event: Switch): Slice[] {
    const tied = event.began === null ? undefined : this.#clock?.toHost(event.began);
    const exact = tied !== undefined;
    this.#origin ??= Number(tied?.time ?? event.time);
    const open = this.#open.get(event.cpu);
    const seen = Number(event.seenUntil ?? event.time) - this.#origin;
    // A begin that is only known to lie between two looks is that of the later.
    let start = Number(tied?.time ?? event.time) - this.#origin;
    // A trace begins with the first switch that was handed over; another CPU's may be older.
    start = Math.max(start, open?.start ?? 0);
    this.#open.set(event.cpu, { event, start, exact });
    if (open === undefined) return [];
    const missed = event.missed ?? 0;
    if (missed === 0) return [sliceOf(open, start)];
    const end = Math.min(Math.max(seen, open.start), start);
    const gap: Slice = {
      cpu: event.cpu,
      start: end,
      end: start,
      task: undefined,
      cr3: null,
      missed,
      exact: false,
    };
    return [sliceOf(open, end), gap];
  }

  /** The slices that had not ended when watching did. @param time host time */
  finish(time: bigint): Slice[] {
    const end = Number(time) - (this.#origin ?? 0);
    const slices = [...this.#open.values()].map((open) => sliceOf(open, Math.max(open.start, end)));
    this.#open.clear();
    return slices;
  }
}

function sliceOf({ event, start, exact }: Open, end: number): Slice {
  return { cpu: event.cpu, start, end, task: event.task, cr3: event.cr3, missed: 0, exact };
}
