import type { NativeSamplerOptions, Sampler } from '../../types/addon.js';
import { fromNative, VmiError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import { checkList, checkWhole, describe } from '../options.js';
import { ClockTie } from './clock-tie.js';
import { RunningTask, type Switch } from './switch.js';
import { type SwitchLayout, switchLayout } from './switch-layout.js';

/** Words of a record, and records taken at a time. types/addon.d.ts, Sampler. */
const WORDS = 16;
const BATCH = 1_024;
/** Flags of a record. */
const FIRST = 1n;
const UNCOUNTED = 2n;

/** What the native statistics are, in their order. types/addon.d.ts, Sampler. */
const STATISTICS = [
  'looks',
  'records',
  'dropped',
  'torn',
  'unreadable',
  'cpuTime',
  'interval',
  'late',
  'lateTime',
  'longestGap',
  'waited',
] as const;
/** In `waited`: the host does not say. */
const UNKNOWN = 2 ** 64;

/** Part of a core that sampling takes where no rate is given. */
const SHARE = 0.05;
/** Nanoseconds between looks to begin with, where the share decides. */
const FIRST_INTERVAL = 250_000;
/** Records kept for a slow reader, 128 bytes each. */
const QUEUE = 65_536;
const MAX_QUEUE = 1 << 20;
const MAX_RATE = 1_000_000;
/** Above the number of any CPU. kernel: NR_CPUS is 8,192 at most. */
const MAX_CPU = 0xffff;

/** How often the CPUs are looked at, and what of them is told. */
export interface SampleOptions {
  /**
   * Looks a second at every CPU, above 0 to 1,000,000; `'full'`: one after the other, which takes a
   * core. Left out: as often as 5 % of a core allows.
   */
  readonly rate?: number | 'full' | undefined;
  /** Numbers of the CPUs to look at; default all that are online when it begins. */
  readonly cpus?: readonly number[] | undefined;
  /**
   * Switches kept for a slow reader, 1 to 1,048,576; default 65,536. Those of more count as missed.
   */
  readonly queue?: number | undefined;
}

/** What a sampler has done so far. */
export interface SampleStatistics {
  /** Looks at all CPUs. */
  readonly looks: number;
  /** Switches that were seen. */
  readonly seen: number;
  /** Of them, those that were dropped because nobody took them in time; they count as missed. */
  readonly dropped: number;
  /**
   * Looks at a CPU in the middle of a switch that did not end while it was looked at; seen later,
   * or missed.
   */
  readonly torn: number;
  /** Looks that could not read what they were to look at. */
  readonly unreadable: number;
  /** CPU time of the sampler's thread, seconds. */
  readonly cpuSeconds: number;
  /** Looks a second that are aimed at now; `Infinity` at full speed. */
  readonly rate: number;
  /**
   * Looks that came 25 µs after they were due or later. Slices that began and ended in between were
   * not seen.
   */
  readonly late: number;
  /** By how much they were late in all, seconds: so long the guest was not looked at. */
  readonly lateSeconds: number;
  /** The longest time between two looks of which one was late, seconds; 0: none was. */
  readonly longestGap: number;
  /**
   * How long the sampler's thread was ready and the host had no free core for it, seconds; `null`
   * where the host does not say. What else it was late by, it was too slow.
   */
  readonly waitedSeconds: number | null;
}

/** What `Guest` gives a sampler: memory that starts one, and the kernel in it. */
export interface SampledGuest {
  readonly kernel: Kernel;
  startSampler(options: NativeSamplerOptions): Sampler;
}

/** The native sampler of one guest, its records decoded. Begins with the constructor. */
export class SwitchSampler {
  readonly layout: SwitchLayout;
  /** The guest's scheduler clock on the host's. */
  readonly clock = new ClockTie();
  readonly #native: Sampler;
  readonly #words = new BigUint64Array(WORDS * BATCH);
  readonly #bytes = new Uint8Array(this.#words.buffer);
  /** The task of each CPU's last record, and its count. */
  readonly #last: ({ readonly task: RunningTask; readonly count: bigint } | undefined)[] = [];

  /**
   * @throws {RangeError} an option that is out of range
   * @throws {VmiError} as {@link switchLayout}
   */
  constructor(guest: SampledGuest, options: SampleOptions = {}) {
    checkSampling(options);
    const pace = toPace(options.rate);
    const { queue: capacity = QUEUE } = options;
    guest.kernel.memory.begin();
    this.layout = switchLayout(guest.kernel, options.cpus);
    try {
      this.#native = guest.startSampler({ ...this.layout.native, ...pace, capacity });
    } catch (error) {
      throw fromNative(error);
    }
  }

  get statistics(): SampleStatistics {
    const words = this.#native.statistics;
    const native = Object.fromEntries(
      STATISTICS.map((name, i) => [name, Number(words[i]!)]),
    ) as Record<(typeof STATISTICS)[number], number>;
    const { looks, dropped, torn, unreadable, late } = native;
    return {
      looks,
      seen: native.records + dropped,
      dropped,
      torn,
      unreadable,
      cpuSeconds: native.cpuTime / 1e9,
      rate: native.interval === 0 ? Number.POSITIVE_INFINITY : 1e9 / native.interval,
      late,
      lateSeconds: native.lateTime / 1e9,
      longestGap: native.longestGap / 1e9,
      waitedSeconds: native.waited >= UNKNOWN ? null : native.waited / 1e9,
    };
  }

  /**
   * What was seen since the last call, oldest first for each CPU; at most 1,024 switches, and none
   * when there is nothing new.
   * @throws {VmiError} `VMI_CLOSED`: the guest is gone or was closed, and nothing is left
   */
  take(): Switch[] {
    let count: number;
    try {
      count = this.#native.take(this.#words);
    } catch (error) {
      throw fromNative(error);
    }
    return Array.from({ length: count }, (_, row) => this.#decode(row * WORDS));
  }

  /** Ends the thread; what it saw can still be taken. Idempotent. */
  stop(): void {
    this.#native.stop();
  }

  #decode(at: number): Switch {
    const word = (index: number) => this.#words[at + index]!;
    const flags = word(5);
    const index = Number(word(4));
    const ids = word(12);
    const task = new RunningTask({
      address: word(6),
      pid: Number(ids & 0xffff_ffffn),
      tgid: Number(ids >> 32n),
      startTime: word(8),
      mm: word(9),
      flags: Number(word(13)),
      comm: this.#bytes.slice((at + 14) * 8, (at + 16) * 8),
    });
    const time = word(0);
    const before = word(1);
    const arrival = word(7);
    const first = (flags & FIRST) !== 0n;
    const counted = (flags & UNCOUNTED) === 0n;
    const missed = counted ? Number(word(3)) : null;
    const count = word(2);
    const last = this.#last[index];
    // By the counts, and not by `missed`: what was told once too often is made good there.
    const known = counted && !first && last !== undefined && count - last.count <= 1n;
    const previous = known ? last.task : null;
    this.#last[index] = { task, count };
    // An idle task has no arrival; what is in its place is not looked at.
    const began = arrival === 0n || task.idle ? null : arrival;
    if (began !== null && before !== 0n && known) this.clock.add(began, before, time);
    return {
      time,
      began,
      seenUntil: before === 0n ? null : before,
      cpu: this.layout.cpus[index]!,
      cr3: word(11) === 0n ? null : word(11),
      task,
      previous,
      missed,
      count: counted ? count : null,
      by: 'sampled',
    };
  }
}

/**
 * Checks how a guest is to be sampled.
 * @throws {TypeError} @throws {RangeError}
 */
export function checkSampling({ rate, cpus, queue }: SampleOptions): void {
  checkList(cpus, 'cpus', (cpu, name) => checkWhole(cpu, name, 0, MAX_CPU));
  if (queue !== undefined) checkWhole(queue, 'queue', 1, MAX_QUEUE);
  if (rate === undefined || rate === 'full') return;
  if (typeof rate === 'number' && rate > 0 && rate <= MAX_RATE) return;
  const Failure = typeof rate === 'number' ? RangeError : TypeError;
  throw new Failure(
    `Expected rate as 'full' or a number above 0 and up to ${MAX_RATE} looks a second but received ${describe(rate)}`,
  );
}

function toPace(rate: number | 'full' | undefined): { interval: number; share: number } {
  if (rate === undefined) return { interval: FIRST_INTERVAL, share: SHARE };
  if (rate === 'full') return { interval: 0, share: 0 };
  return { interval: Math.min(Math.round(1e9 / rate), 3.6e12), share: 0 };
}

/** The error of a guest that nobody can sample. */
export function cannotSample(description: string, why: string): VmiError {
  return new VmiError('VMI_UNSUPPORTED', `the CPUs of ${description} cannot be sampled: ${why}`);
}
