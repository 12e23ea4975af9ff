import type { Consistency, Listing } from './listing.js';
import type { Misfit } from './salvage.js';
import { SETTLED } from './settle.js';
import { Task } from './task.js';

/** Tasks that one walk found, in the order of the kernel's list. */
export class TaskList extends Array<Task> {
  /** Times that links or rows were read again because the guest changed under the walk. */
  retries = 0;
  /**
   * How the guest was read. `paused`: it was stopped here ({@link Guest.pause}) all the while; that
   * somebody else let it run meanwhile is not seen. `live`: it was not stopped here, and may have
   * run. `static`: an image, which does not change.
   */
  mode: Consistency = 'live';
  /**
   * Of a search by CR3: whether it is the kernel's own page table. A CPU without a task has it
   * loaded, and kernel threads that have borrowed no other.
   */
  kernel = false;
  /**
   * Of a search by CR3: tasks that name an address space which is none (their `cr3` throws), so
   * that nobody can say whether they belong here. Empty in a sane guest.
   */
  corrupt: readonly Task[] = [];

  /**
   * Of an image that was copied while its guest ran, or cut short: where its lists do not fit. The
   * tasks are those that could be proven all the same; there may have been others. Empty where the
   * lists are whole.
   */
  misfits: readonly Misfit[] = [];

  /** Derived arrays (`filter`, `map`) are plain ones. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }
}

/**
 * The tasks of a listing, without those that left while they were read.
 * @param keep which of them; all when left out
 */
export function toTasks(listing: Listing, keep?: (task: Task) => boolean): TaskList {
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
  tasks.mode = listing.mode;
  tasks.misfits = listing.misfits;
  return tasks;
}
