import { hex } from '../errors.js';
import type { Task } from '../tasks/task.js';
import { EventStream } from './event-stream.js';
import { RunningTask, type RunningTaskJson, type Switch, type SwitchJson } from './switch.js';

/** A write to CR3 and whose address space it loads. */
export interface NamedWrite {
  readonly vcpu: number;
  readonly value: bigint;
  readonly previous: bigint;
  /** The kernel's own page table. */
  readonly kernel: boolean;
  /** `undefined`: the kernel's, or of a process that is there no more. */
  readonly task: Task | undefined;
}

/** Writes to CR3 as a guest names them. */
export interface NamedWrites {
  /** When the last one was taken at the latest, as `performance.now()`. */
  readonly taken: number;
  /** Writes that were lost by then. */
  readonly droppedByThen: number;
  next(): Promise<IteratorResult<NamedWrite, undefined>>;
  return(): Promise<unknown>;
}

/** Which reported switches are given, and how many wait for their reader. */
export interface ReportOptions {
  /** Only switches to or from these processes. */
  readonly pids?: readonly number[] | undefined;
  /**
   * Switches that are kept for a slow reader, 1 to 1,048,576; default 4,096. Of more, the oldest
   * are dropped.
   */
  readonly queue?: number | undefined;
  /** Ends the stream with `VMI_ABORTED`. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * A CPU went over to another address space, as the hypervisor reports it. Threads of one process
 * have one address space, and kernel threads run on the one that is there: switches between those
 * are not reported, so that `count` and `began` are `null`.
 */
export interface ReportedSwitch extends Omit<Switch, 'task' | 'cr3'> {
  /** Host time at which it was known, as of {@link Switch}; the order is that of the hypervisor. */
  readonly time: bigint;
  /** Page-table base that was loaded. */
  readonly cr3: bigint;
  /**
   * The process whose address space it is, of a moment after the switch; `null`: the kernel's own,
   * or of a process that is there no more.
   */
  readonly task: RunningTask | null;
  /**
   * Whether it is the kernel's own page table, on which an idle CPU and kernel threads run: then
   * nobody knows which of them.
   */
  readonly kernel: boolean;
  /**
   * The process that had the CPU before; `null` also where its address space was the kernel's, and
   * where something may have been lost in between.
   */
  readonly previous: RunningTask | null;
  /**
   * 0: no report was lost since the one before of the same CPU. `null`: some were, of any CPU, and
   * nobody knows how many of this one. Switches that are not reported at all are not counted.
   */
  readonly missed: 0 | null;
  readonly by: 'reported';
}

/** A switch in the form that `JSON.stringify` gives, as `switchJson` does of others. */
export function reportedSwitchJson(event: ReportedSwitch): ReportedSwitchJson {
  return {
    time: event.time.toString(),
    began: null,
    cpu: event.cpu,
    cr3: hex(event.cr3),
    task: event.task?.toJSON() ?? null,
    kernel: event.kernel,
    previous: event.previous?.toJSON() ?? null,
    missed: event.missed,
    by: event.by,
  };
}

/** What {@link reportedSwitchJson} gives: times are decimal strings, addresses hex strings. */
export interface ReportedSwitchJson extends Omit<SwitchJson, 'task'> {
  readonly task: RunningTaskJson | null;
  readonly kernel: boolean;
}

/** What a CPU has loaded, and whose it is. */
interface Loaded {
  readonly value: bigint;
  readonly task: RunningTask | null;
  /** Writes that were lost by then. */
  readonly dropped: number;
}

/**
 * Every switch of address spaces, as the hypervisor reports writes to CR3. Made by
 * `Guest.watchSwitches` with `by: 'reported'`; leaving a `for await` ends it.
 */
export class ReportedSwitches extends EventStream<ReportedSwitch> {
  readonly #writes: NamedWrites;
  readonly #base: (value: bigint) => bigint;
  readonly #pids: ReadonlySet<number> | undefined;
  readonly #loaded = new Map<number, Loaded>();
  /** Of the batch that the last write came with: when it was taken, and what was lost by then. */
  #batch = { taken: Number.NaN, dropped: 0, isWhole: true };

  /**
   * @internal
   * @param base page-table base of a value that CR3 can hold
   */
  constructor(writes: NamedWrites, base: (value: bigint) => bigint, options: ReportOptions) {
    super();
    this.#writes = writes;
    this.#base = base;
    this.#pids = options.pids === undefined ? undefined : new Set(options.pids);
  }

  /** Reports that were lost so far because nobody took them in time, as of the last switch. */
  get dropped(): number {
    return this.#writes.droppedByThen;
  }

  /** @internal */
  protected async take(): Promise<IteratorResult<ReportedSwitch, undefined>> {
    for (;;) {
      const result = await this.#writes.next();
      if (result.done === true) return result;
      const event = this.#switch(result.value);
      if (this.#isWanted(event)) return { done: false, value: event };
    }
  }

  /** @internal */
  protected async end(): Promise<void> {
    await this.#writes.return();
  }

  #switch(write: NamedWrite): ReportedSwitch {
    const { vcpu: cpu, value, kernel } = write;
    const { taken, droppedByThen: dropped } = this.#writes;
    const task = write.task === undefined ? null : runningTask(write.task);
    const before = this.#loaded.get(cpu);
    this.#loaded.set(cpu, { value, task, dropped });
    const isWhole = this.#isWhole() && before?.dropped === dropped;
    const follows = isWhole && before.value === write.previous;
    return {
      time: hostTime(taken),
      began: null,
      cpu,
      seenUntil: null,
      cr3: this.#base(value),
      task,
      kernel,
      previous: follows ? before.task : null,
      missed: follows || before === undefined ? 0 : null,
      count: null,
      by: 'reported',
    };
  }

  /** Whether nothing was lost in the batch of the last write: where in a batch, nobody knows. */
  #isWhole(): boolean {
    const { taken, droppedByThen: dropped } = this.#writes;
    if (taken !== this.#batch.taken)
      this.#batch = { taken, dropped, isWhole: dropped === this.#batch.dropped };
    return this.#batch.isWhole;
  }

  #isWanted({ task, previous }: ReportedSwitch): boolean {
    const pids = this.#pids;
    if (pids === undefined) return true;
    return [task, previous].some((one) => one !== null && pids.has(one.tgid));
  }
}

/** The same time on the clock of `process.hrtime.bigint()`. @param time as `performance.now()` */
function hostTime(time: number): bigint {
  return process.hrtime.bigint() - BigInt(Math.round((performance.now() - time) * 1e6));
}

function runningTask(task: Task): RunningTask {
  return new RunningTask({
    address: task.address,
    pid: task.pid,
    tgid: task.tgid,
    startTime: task.startTime,
    mm: task.mm ?? 0n,
    flags: task.flags,
    comm: task.commBytes,
  });
}
