import { CorruptError, FaultError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import { cr3Base } from './cr3.js';
import type { Listing } from './listing.js';
import type { Task } from './task.js';
import { TaskList, toTasks } from './task-list.js';
import type { TaskReaders } from './task-readers.js';

/** The tasks of some CR3 values, in the order of the values; made of one walk. */
export class Cr3Tasks {
  readonly #kernel: Kernel;
  readonly #readers: TaskReaders;
  readonly #bases: readonly bigint[];
  readonly #lists: Map<bigint, TaskList>;
  readonly #corrupt: Task[] = [];

  constructor(readers: TaskReaders, values: readonly bigint[]) {
    const { kernel } = readers;
    this.#kernel = kernel;
    this.#readers = readers;
    this.#bases = values.map((value) => cr3Base(value, kernel.pti));
    this.#lists = new Map(this.#bases.map((base) => [base, new TaskList()]));
  }

  /**
   * @param listing of all threads
   * @param idle tasks of CPUs, which no list has
   */
  of(listing: Listing, idle: readonly Task[]): TaskList[] {
    const found = toTasks(listing, (task) => this.#listsOf(task).length > 0);
    const kept = this.#stillThere(found);
    for (const task of [...kept, ...idle]) {
      for (const list of this.#listsOf(task)) list.push(task);
    }
    const kernel = cr3Base(this.#kernel.root, this.#kernel.pti);
    return this.#bases.map((base) => {
      const list = new TaskList();
      for (const task of this.#lists.get(base)!) list.push(task);
      list.retries = found.retries;
      list.mode = found.mode;
      list.kernel = base === kernel;
      list.corrupt = this.#corrupt;
      return list;
    });
  }

  #listsOf(task: Task): TaskList[] {
    try {
      const { cr3 } = task;
      const lists = cr3 === null ? undefined : this.#lists.get(cr3);
      // The two tables of an address space are not to be told from each other's addresses there.
      const user = this.#kernel.p2m === undefined ? undefined : task.userCr3;
      const others = user === undefined || user === null ? undefined : this.#lists.get(user);
      const both = [lists, others === lists ? undefined : others];
      return both.filter((list) => list !== undefined);
    } catch (error) {
      if (!(error instanceof CorruptError || error instanceof FaultError)) throw error;
      if (!this.#corrupt.includes(task)) this.#corrupt.push(task);
      return [];
    }
  }

  /**
   * Without the tasks that have executed something else since their row was read: their mm may have
   * been freed and served another process before its page table was read.
   */
  #stillThere(tasks: TaskList): Task[] {
    if (!this.#kernel.memory.physical.live || tasks.length === 0) return tasks;
    const bases = BigUint64Array.from(tasks, ({ address }) => address);
    const rows = this.#readers.members.gatherPatiently(bases);
    const mm = rows.longs('mm');
    const pgd = rows.longs('pgd');
    const start = rows.longs('startTime');
    return tasks.filter((task, row) => {
      if (task.cr3Source !== 'mm' || rows.faults[row] !== 0 || start[row] !== task.startTime)
        return true;
      // It exited: what it was found on was its own.
      return mm[row] === 0n || (mm[row] === task.mm && pgd[row] === task.pgd);
    });
  }
}
