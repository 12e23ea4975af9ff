import type { VmiError } from '../errors.js';
import type { Task } from '../tasks/task.js';

/** What one CPU runs, read from the guest's memory. */
export interface GuestCpu {
  readonly cpu: number;
  /** The running task; PID 0 is the CPU's idle task. */
  readonly task: Task;
  /**
   * Page-table base that is loaded; `null` where it is not known: the CPU of a running guest was
   * switching in every look, or what it has loaded is no page table (`error`).
   */
  readonly cr3: bigint | null;
  /**
   * Whether the CPU was on its way from one task to the next, or from one address space to the next
   * as a task executes a program: what it has loaded is then not necessarily `task`'s.
   */
  readonly switching: boolean;
  /** Why `cr3` is `null` although the CPU is not switching. */
  readonly error?: VmiError;
}
