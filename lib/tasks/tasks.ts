import { CorruptError, FaultError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import { type TaskColumns, toColumns } from './columns.js';
import type { Cpu } from './cpus.js';
import { pgdToCr3 } from './cr3.js';
import { Cr3Tasks } from './cr3-tasks.js';
import { type CrossList, crossView } from './cross-view.js';
import { Listing } from './listing.js';
import { Task } from './task.js';
import { type TaskList, toTasks } from './task-list.js';
import { TaskReaders } from './task-readers.js';
import { type ListOptions, TaskWalk } from './task-walk.js';

/** Times a look-up of a task that changes while it is read is started again. */
const MAX_RETRIES = 8;
/**
 * Times that a PID of a live guest must be absent, or its tree broken, before that is believed.
 */
const MISSES = 3;

/** Whether an error says that a structure is none, or is not there. */
function isBroken(error: unknown): boolean {
  return error instanceof CorruptError || error instanceof FaultError;
}

/** `undefined` instead of the error of a structure that is none, or is not there. */
function unlessBroken<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (isBroken(error)) return undefined;
    throw error;
  }
}

/**
 * Finds tasks in one kernel: by the list of processes, by PID, by CR3. Every call is one operation
 * on the guest.
 */
export class Tasks {
  readonly #kernel: Kernel;
  readonly #readers: TaskReaders;
  readonly #walk: TaskWalk;

  /** @throws {VmiError} `VMI_TYPE`: this kernel's types lack what a task row needs */
  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    this.#readers = new TaskReaders(kernel);
    this.#walk = new TaskWalk(this.#readers);
  }

  /**
   * Walks `init_task.tasks`, and with `threads` every process's `signal->thread_head`.
   * @throws {CorruptError} a list that is none
   */
  list(options?: ListOptions): TaskList {
    return toTasks(this.#walk.walk(options));
  }

  /** The same walk as typed columns. */
  columns(options?: ListOptions): TaskColumns {
    return toColumns(this.#walk.reuse(options));
  }

  /**
   * The task with this PID or TID, by the kernel's own look-up.
   * @returns `undefined` when there is none
   */
  find(pid: number): Task | undefined {
    const { pidTree, members } = this.#readers;
    const { memory } = this.#kernel;
    const { live } = memory.physical;
    memory.begin();
    for (let attempt = 0, misses = 0; ; attempt++) {
      // The tree may shrink under the look-up, and a node of it serve something else by the time it
      // is read.
      const last = misses === MISSES - 1 || !live;
      const address = last ? pidTree.find(pid) : unlessBroken(() => pidTree.find(pid));
      if (address === undefined) {
        if (last) return undefined;
        misses++;
        continue;
      }
      const rows = members.gather(BigUint64Array.of(address));
      const found = rows.words('pid')[0] === pid;
      if (attempt === MAX_RETRIES || !live) {
        if (found) return new Task(new Listing(this.#readers, rows, { retries: attempt }), 0);
        throw new CorruptError(
          `the PID tree's task for ${pid} has the PID ${rows.words('pid')[0]}`,
          address,
        );
      }
      if (!found || rows.faults[0] !== 0) continue;
      const listing = new Listing(this.#readers, rows, { retries: attempt });
      if (!listing.gone(0)) return new Task(listing, 0);
    }
  }

  /**
   * The CR3 of the task with this PID or TID; `undefined` when there is none. The same as
   * `find(pid)?.cr3`, with no object made for a task that has an address space of its own, or is a
   * kernel thread off the CPU.
   */
  cr3(pid: number): bigint | null | undefined {
    let pgd: bigint | null | undefined;
    // As unlessBroken, without a function made for each look-up.
    try {
      pgd = this.#readers.pidTree.pgd(pid);
    } catch (error) {
      if (!isBroken(error)) throw error;
    }
    if (pgd === undefined) return this.find(pid)?.cr3;
    return pgd === null ? null : pgdToCr3(this.#kernel, pgd);
  }

  /**
   * Every task and thread that runs on the address space of each CR3 value, by one walk: threads,
   * `vfork`ed and `CLONE_VM` children, kernel threads that borrow it, and the idle task of a CPU
   * that has it loaded.
   * @param values any values that a CR3 register can hold
   */
  withCr3s(values: readonly bigint[]): TaskList[] {
    const tasks = new Cr3Tasks(this.#readers, values);
    const listing = this.#walk.walk({ threads: true });
    const idle = this.cpus().flatMap(({ task }) => (task.pid === 0 ? [task] : []));
    return tasks.of(listing, idle);
  }

  /** Every task that any view of the kernel has, and the views that lack it. */
  cross(): CrossList {
    return crossView(this.#readers);
  }

  /** What each CPU runs, from memory. */
  cpus(): { cpu: Cpu; task: Task }[] {
    this.#kernel.memory.begin();
    const look = this.#readers.cpus.read();
    const listing = new Listing(this.#readers, look.rows, { look });
    return look.cpus.map((cpu, row) => ({ cpu, task: new Task(listing, row) }));
  }
}
