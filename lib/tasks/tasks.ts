import { CorruptError, FaultError, hex } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import { type TaskColumns, toColumns } from './columns.js';
import { type Cpu, readCpus } from './cpus.js';
import { cr3Base, pgdToCr3 } from './cr3.js';
import { type CrossRow, crossView } from './cross-view.js';
import { Listing, SETTLED } from './listing.js';
import { findTask } from './pid-tree.js';
import type { TaskRows } from './rows.js';
import { Task } from './task.js';
import { TaskLayout } from './task-members.js';
import { type Processes, walkThreads } from './threads.js';

/** Whether the guest ran while it was read. */
export type Consistency = 'live' | 'paused' | 'static';

/** Tasks that one walk found, in the order of the kernel's list. */
export class TaskList extends Array<Task> {
  /** Times that links or rows were read again because the guest changed under the walk. */
  retries = 0;
  /** How the guest was read. */
  mode: Consistency = 'live';
  /**
   * Of a search by CR3: tasks that name an address space which is none (their `cr3` throws), so that nobody can say whether they
   * belong here. Empty in a sane guest.
   */
  corrupt: readonly Task[] = [];

  /** Derived arrays (`filter`, `map`) are plain ones. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }
}

export interface ListOptions {
  /** Every thread of every process instead of processes only; default false. */
  readonly threads?: boolean;
}

/** Times a look-up of a task that changes while it is read is started again. */
const MAX_RETRIES = 8;
/** Times that a PID of a live guest must be absent, or its tree broken, before that is believed. */
const MISSES = 3;

/** Bytes of rows that are kept for the next listing to write to. */
const MAX_KEPT_ROOM = 8 << 20;

/** `undefined` instead of the error of a structure that is none, or is not there. */
function unlessBroken<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof CorruptError || error instanceof FaultError) return undefined;
    throw error;
  }
}

/** Finds tasks in one kernel: by the list of processes, by PID, by CR3. Every call is one operation on the guest. */
export class Tasks {
  readonly #kernel: Kernel;
  readonly #layout: TaskLayout;
  #remembered = false;
  /** Processes that the next walk has room for. */
  #expected = 0;
  /** Where rows go of which nothing is kept. */
  #room: ArrayBuffer | undefined;

  /** @throws {VmiError} `VMI_TYPE`: this kernel's types lack what a task row needs */
  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    this.#layout = new TaskLayout(kernel);
  }

  /**
   * Walks `init_task.tasks`, and with `threads` every process's `signal->thread_head`.
   * @throws {CorruptError} a list that is none
   * @throws {RangeError} an option that is out of range
   */
  list(options: ListOptions = {}): TaskList {
    return toTasks(this.#listing(options));
  }

  /** The same walk as typed columns. */
  columns(options: ListOptions = {}): TaskColumns {
    const listing = this.#listing(options, this.#keptRoom());
    return toColumns(listing, modeOf(listing));
  }

  /** Memory that is new from the host costs a page fault each 4 KiB, as much as some ten tasks. */
  #keptRoom(): ArrayBuffer {
    const length = this.#layout.roomLength(this.#expected);
    if (this.#room !== undefined && this.#room.byteLength >= length) return this.#room;
    const room = this.#layout.room(this.#expected);
    this.#room = length <= MAX_KEPT_ROOM ? room : undefined;
    return room;
  }

  #listing(options: ListOptions = {}, room = this.#layout.room(this.#expected)): Listing {
    const kernel = this.#kernel;
    const layout = this.#layout;
    const { memory } = kernel;
    memory.begin();
    const head = BigUint64Array.of(kernel.symbols.address('init_task') + BigInt(layout.tasks));
    let retries = 0;
    let suspects = new Set<string>();
    for (;;) {
      const found = layout.lists(kernel, head, layout.tasks, room);
      retries += found.retries;
      const processes = found.rows;
      this.#expected = processes.count + (processes.count >> 4) + 16;
      if (options.threads !== true) return new Listing(kernel, layout, processes, retries);
      const threads = walkThreads(kernel, layout, withSignals(kernel, layout, processes));
      retries += threads.retries;
      // The leader stays in the list until the process is reaped. Between the two walks it may be; a second look tells.
      const empty = threads.counts.includes(0) ? withoutThreads(processes, threads.counts) : [];
      const same = empty.find(({ key }) => suspects.has(key) || !memory.physical.live);
      if (same !== undefined) {
        throw new CorruptError(
          `the process at ${hex(same.task)} is in the list of processes and has no thread`,
          same.task,
          processes.count,
        );
      }
      if (empty.length === 0 || suspects.size > 0)
        return new Listing(kernel, layout, threads.rows, retries, threads.left);
      retries++;
      suspects = new Set(empty.map(({ key }) => key));
    }
  }

  /**
   * The task with this PID or TID, by the kernel's own look-up.
   * @returns `undefined` when there is none
   */
  find(pid: number): Task | undefined {
    const kernel = this.#kernel;
    kernel.memory.begin();
    for (let attempt = 0, misses = 0; ; attempt++) {
      // The tree may shrink under the look-up, and a node of it serve something else by the time it is read.
      const last = misses === MISSES - 1 || !kernel.memory.physical.live;
      const address = last
        ? findTask(kernel, this.#layout, pid)
        : unlessBroken(() => findTask(kernel, this.#layout, pid));
      if (address === undefined) {
        if (last) return undefined;
        misses++;
        continue;
      }
      const rows = this.#layout.gather(kernel, BigUint64Array.of(address));
      if (rows.words('pid')[0] === pid && rows.faults[0]! === 0) {
        const listing = new Listing(kernel, this.#layout, rows, attempt);
        if (!listing.gone(0)) return new Task(listing, 0);
      }
      if (attempt === MAX_RETRIES || !kernel.memory.physical.live) {
        if (rows.words('pid')[0] === pid)
          return new Task(new Listing(kernel, this.#layout, rows, attempt), 0);
        throw new CorruptError(
          `the PID tree's task for ${pid} has the PID ${rows.words('pid')[0]}`,
          address,
        );
      }
    }
  }

  /**
   * The CR3 of the task with this PID or TID; `undefined` when there is none. The same as `find(pid)?.cr3`, with no object made for
   * a task that has an address space of its own, or is a kernel thread off the CPU.
   */
  cr3(pid: number): bigint | null | undefined {
    const kernel = this.#kernel;
    const pgd = unlessBroken(() => this.#layout.pgdOfPid(kernel, pid));
    if (pgd === undefined) return this.find(pid)?.cr3;
    return pgd === null ? null : pgdToCr3(kernel, pgd);
  }

  /**
   * Every task and thread that runs on the address space of a CR3 value: threads, `vfork`ed and `CLONE_VM` children,
   * kernel threads that borrow it, and the idle task of a CPU that has it loaded.
   * @param value any value a CR3 register can hold
   */
  withCr3(value: bigint): TaskList {
    const base = cr3Base(value, this.#kernel.pti);
    // The two tables of an address space are not to be told from each other's addresses there.
    const machine = this.#kernel.p2m !== undefined;
    const corrupt: Task[] = [];
    const runsOnIt = (task: Task) => {
      try {
        return task.cr3 === base || (machine && task.userCr3 === base);
      } catch (error) {
        if (!(error instanceof CorruptError || error instanceof FaultError)) throw error;
        corrupt.push(task);
        return false;
      }
    };
    const tasks = toTasks(this.#listing({ threads: true }), runsOnIt);
    for (const { task } of this.cpus()) {
      if (task.pid === 0 && runsOnIt(task)) tasks.push(task);
    }
    tasks.corrupt = corrupt;
    return tasks;
  }

  /** Every task that any view of the kernel has, and the views that lack it. */
  cross(): CrossRow[] {
    return crossView(this.#kernel, this.#layout);
  }

  /** What each CPU runs, from memory. */
  cpus(): { cpu: Cpu; task: Task }[] {
    const kernel = this.#kernel;
    kernel.memory.begin();
    const cpus = readCpus(kernel);
    // Symbols that attaching did not need: where reads are slow, looking for one takes seconds.
    if (!this.#remembered) void kernel.remember();
    this.#remembered = true;
    const rows = this.#layout.gather(
      kernel,
      BigUint64Array.from(cpus, (cpu) => cpu.current),
    );
    const listing = new Listing(kernel, this.#layout, rows);
    return cpus.map((cpu, row) => ({ cpu, task: new Task(listing, row) }));
  }
}

/**
 * `signal` of every process. On a live guest, one without may have left while it was read.
 * @throws {CorruptError} a process that has none, whose threads could only be left out
 */
function withSignals(kernel: Kernel, layout: TaskLayout, processes: TaskRows): Processes {
  const signals = processes.longs('signal');
  const tgids = processes.words('tgid');
  if (!signals.includes(0n)) return { tasks: processes.bases, signals, tgids };
  for (let row = 0; row < processes.count; row++) {
    if (signals[row] !== 0n) continue;
    const address = processes.bases[row]!;
    const again = kernel.memory.physical.live
      ? layout.gather(kernel, BigUint64Array.of(address))
      : undefined;
    const same =
      again === undefined ||
      (again.longs('signal')[0] === 0n &&
        (again.faults[0] !== 0 ||
          again.longs('startTime')[0] === processes.longs('startTime')[row]));
    if (same)
      throw new CorruptError(`the process at ${hex(address)} has no signal_struct`, address, row);
  }
  const has = (_: unknown, row: number) => signals[row] !== 0n;
  return {
    tasks: processes.bases.filter(has),
    signals: signals.filter(has),
    tgids: tgids.filter(has),
  };
}

/** Processes whose list of threads was empty. @param counts threads of each process that has a `signal_struct` */
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

function toTasks(listing: Listing, keep?: (task: Task) => boolean): TaskList {
  const tasks = new TaskList();
  const { settled } = listing;
  const { count } = listing.rows;
  let length = 0;
  for (let row = 0; row < count; row++) {
    if (settled[row] === SETTLED.gone) continue;
    const task = new Task(listing, row);
    if (keep === undefined || keep(task)) tasks[length++] = task;
  }
  tasks.retries = listing.retries;
  tasks.mode = modeOf(listing);
  return tasks;
}

function modeOf(listing: Listing): Consistency {
  return listing.kernel.memory.physical.live ? 'live' : 'static';
}
