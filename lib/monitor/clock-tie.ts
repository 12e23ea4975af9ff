/**
 * A moment that both clocks show: the guest's, and between which two of the host's it lies.
 * Nanoseconds.
 */
interface Tie {
  readonly guest: number;
  readonly host: number;
  /** Half of the host's interval. */
  readonly error: number;
}

/** Host nanoseconds of which only the closest tie is kept. */
const BUCKET = 100_000_000;
/** Ties kept: a minute of them. */
const MAX_TIES = 600;
/**
 * A guest that was stopped has a clock that was, too: ties that are this far off a straight line
 * are of another time.
 */
const JUMP = 50_000_000;

/**
 * Ties the guest's scheduler clock to the host's monotonic clock. Each switch that was sampled says
 * that its slice began between two looks of the host; of many such intervals the narrowest are
 * kept, one every 100 ms, and a time between two of them is interpolated. Both clocks may run at
 * different speeds.
 */
export class ClockTie {
  readonly #ties: Tie[] = [];

  /** Ties that are kept. */
  get count(): number {
    return this.#ties.length;
  }

  /**
   * Takes the begin of a slice and the two looks that it lies between.
   * @param guest guest time; nanoseconds, as all of them
   * @param before host time of the last look that did not see the slice
   * @param after host time of the look that saw it
   */
  add(guest: bigint, before: bigint, after: bigint): void {
    const error = Number(after - before) / 2;
    if (error < 0) return;
    const tie = { guest: Number(guest), host: Number(before) + error, error };
    const last = this.#ties.at(-1);
    if (last !== undefined && Math.floor(last.host / BUCKET) === Math.floor(tie.host / BUCKET)) {
      if (tie.error < last.error) this.#ties[this.#ties.length - 1] = tie;
      return;
    }
    // A slice that had begun long before it was seen; or the guest was stopped meanwhile.
    if (last !== undefined) {
      const gap = Math.abs(tie.host - last.host - (tie.guest - last.guest));
      if (gap > JUMP + tie.error + last.error) {
        if (tie.error > JUMP) return;
        this.#ties.length = 0;
      }
    }
    this.#ties.push(tie);
    if (this.#ties.length > MAX_TIES) this.#ties.shift();
  }

  /**
   * Host time of a guest time, and how far it may be off; `undefined` before the first tie.
   * @returns nanoseconds on the clock of `process.hrtime.bigint()`
   */
  toHost(guest: bigint): { readonly time: bigint; readonly error: number } | undefined {
    const at = Number(guest);
    const found = this.#around(at, 'guest');
    if (found === undefined) return undefined;
    const [from, to] = found;
    const slope = from === to ? 1 : (to.host - from.host) / (to.guest - from.guest);
    return {
      time: BigInt(Math.round(from.host + (at - from.guest) * slope)),
      error: Math.max(from.error, to.error),
    };
  }

  /** Guest time of a host time, the way back of {@link toHost}. */
  toGuest(host: bigint): { readonly time: bigint; readonly error: number } | undefined {
    const at = Number(host);
    const found = this.#around(at, 'host');
    if (found === undefined) return undefined;
    const [from, to] = found;
    const slope = from === to ? 1 : (to.guest - from.guest) / (to.host - from.host);
    return {
      time: BigInt(Math.round(from.guest + (at - from.host) * slope)),
      error: Math.max(from.error, to.error),
    };
  }

  /**
   * The ties before and after a time; those at both ends where it lies outside, so that a short
   * step is not drawn out.
   */
  #around(at: number, clock: 'guest' | 'host'): [Tie, Tie] | undefined {
    const ties = this.#ties;
    if (ties.length === 0) return undefined;
    const first = ties[0]!;
    const last = ties.at(-1)!;
    if (at <= first[clock] || at >= last[clock]) {
      const near = at <= first[clock] ? first : last;
      const far = at <= first[clock] ? last : first;
      return distinct(near, far);
    }
    let low = 0;
    let high = ties.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (ties[middle]![clock] <= at) low = middle;
      else high = middle;
    }
    return distinct(ties[low]!, ties[high]!);
  }
}

/** Two ties of the same moment make no line. */
function distinct(from: Tie, to: Tie): [Tie, Tie] {
  return from.guest === to.guest || from.host === to.host ? [from, from] : [from, to];
}
