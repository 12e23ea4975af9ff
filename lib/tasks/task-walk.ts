import { CorruptError, FaultError, hex } from '../errors.js';
import { Listing } from './listing.js';
import { salvage } from './salvage.js';
import { IDENTITY_FAULTS, type TaskRows } from './task-members.js';
import type { TaskReaders } from './task-readers.js';
import { type Processes, walkThreads } from './threads.js';

/** Which tasks are listed, and how. */
export interface ListOptions {
  /** Every thread of every process instead of processes only; default false. */
  readonly threads?: boolean;
}

/** Bytes of rows that are kept for the next listing to write to. */
const MAX_KEPT = 8 << 20;

/** Walks all tasks of one kernel, again and again. */
export class TaskWalk {
  readonly #readers: TaskReaders;
  /** Processes that the next walk makes its buffer for. */
  #expected = 0;
  /** Row buffer reused by {@link reuse}. */
  #buffer: ArrayBuffer | undefined;

  constructor(readers: TaskReaders) {
    this.#readers = readers;
  }

  /**
   * Walks `init_task.tasks`, and with `threads` every process's `signal->thread_head`. The rows are
   * the caller's.
   * @throws {CorruptError} a list that is none
   */
  walk(options: ListOptions = {}): Listing {
    return this.#walk(options, this.#readers.members.plan.buffer(this.#expected));
  }

  /**
   * The same, to memory that the next call overwrites. Memory that is new from the host costs a
   * page fault each 4 KiB, as much as some ten tasks.
   */
  reuse(options: ListOptions = {}): Listing {
    const { plan } = this.#readers.members;
    const length = plan.layout.length(this.#expected);
    let buffer = this.#buffer;
    if (buffer === undefined || buffer.byteLength < length) {
      buffer = plan.buffer(this.#expected);
      this.#buffer = length <= MAX_KEPT ? buffer : undefined;
    }
    return this.#walk(options, buffer);
  }

  #walk({ threads }: ListOptions, buffer: ArrayBuffer): Listing {
    const { kernel } = this.#readers;
    kernel.memory.begin();
    try {
      return this.#walkLists(threads === true, buffer);
    } catch (error) {
      const isBroken = error instanceof CorruptError || error instanceof FaultError;
      if (!isBroken || kernel.memory.physical.live) throw error;
      // A copy of a guest that ran: its lists need not close, and do not mend.
      const { rows, misfits } = salvage(this.#readers, threads === true);
      if (rows.count === 0) throw error;
      return new Listing(this.#readers, rows, { misfits });
    }
  }

  #walkLists(threads: boolean, buffer: ArrayBuffer): Listing {
    const { members, kernel } = this.#readers;
    const { memory } = kernel;
    const head = BigUint64Array.of(members.processHead);
    let retries = 0;
    let suspects = new Set<string>();
    for (;;) {
      const found = members.processes.walk(head, buffer);
      retries += found.retries;
      const processes = found.rows;
      this.#expected = processes.count + (processes.count >> 4) + 16;
      if (!threads) return new Listing(this.#readers, processes, { retries });
      const all = walkThreads(members, withSignals(this.#readers, processes));
      retries += all.retries;
      // The leader stays in the list until the process is reaped. Between the two walks it may be;
      // a second look tells.
      const empty = all.counts.includes(0) ? withoutThreads(processes, all.counts) : [];
      const same = empty.find(({ key }) => suspects.has(key) || !memory.physical.live);
      if (same !== undefined) {
        throw new CorruptError(
          `the process at ${hex(same.task)} is in the list of processes and has no thread`,
          same.task,
          processes.count,
        );
      }
      if (empty.length === 0 || suspects.size > 0)
        return new Listing(this.#readers, all.rows, { retries, left: all.left });
      retries++;
      suspects = new Set(empty.map(({ key }) => key));
    }
  }
}

/**
 * The processes that have a `signal_struct`. On a live guest, one without may have left while it
 * was read; what a first look could not read, a second one may.
 * @throws {CorruptError} a process that has none, whose threads could only be left out
 */
function withSignals(readers: TaskReaders, processes: TaskRows): Processes {
  const { members, kernel } = readers;
  const signals = processes.longs('signal');
  const tgids = processes.words('tgid');
  if (!signals.includes(0n)) return { tasks: processes.bases, signals, tgids };
  for (let row = 0; row < processes.count; row++) {
    if (signals[row] !== 0n) continue;
    const address = processes.bases[row]!;
    const again = members.gatherPatiently(BigUint64Array.of(address));
    const known = ((processes.faults[row]! | again.faults[0]!) & IDENTITY_FAULTS) === 0;
    const left =
      kernel.memory.physical.live &&
      known &&
      (again.longs('startTime')[0] !== processes.longs('startTime')[row] ||
        again.words('pid')[0] !== processes.words('pid')[row]);
    if (left) continue;
    if (again.longs('signal')[0] === 0n) {
      const why = `the process at ${hex(address)} has no signal_struct`;
      throw new CorruptError(why, address, row);
    }
    processes.copyRow(row, again, 0);
  }
  const has = (_: unknown, row: number) => signals[row] !== 0n;
  return {
    tasks: processes.bases.filter(has),
    signals: signals.filter(has),
    tgids: tgids.filter(has),
  };
}

/**
 * Processes whose list of threads was empty.
 * @param counts threads of each process that has a `signal_struct`
 */
function withoutThreads(processes: TaskRows, counts: Uint32Array): { task: bigint; key: string }[] {
  const signals = processes.longs('signal');
  const empty: { task: bigint; key: string }[] = [];
  let process = 0;
  for (let row = 0; row < processes.count; row++) {
    if (signals[row] === 0n || counts[process++] !== 0) continue;
    const task = processes.bases[row]!;
    empty.push({ task, key: `${task} ${processes.longs('startTime')[row]}` });
  }
  return empty;
}
