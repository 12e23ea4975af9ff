import { wrap } from '../address.js';
import { CorruptError, hex } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import type { TaskRows } from './rows.js';
import type { TaskLayout } from './task-members.js';

/** Processes whose threads are looked for: of each, a task of it and what that task's row said. */
export interface Processes {
  readonly tasks: BigUint64Array;
  /** Addresses of the `signal_struct`s, all different. */
  readonly signals: BigUint64Array;
  readonly tgids: Uint32Array;
}

/** The threads of some processes, process by process. */
export interface Threads {
  readonly rows: TaskRows;
  /** Threads of each process; none when it was reaped, or when its list is not one of threads. */
  readonly counts: Uint32Array;
  readonly retries: number;
  /** Rows that are no thread of their process any more: it exited, and its memory serves another task. */
  readonly left: readonly number[];
}

/** Times that a live guest is looked at again before a thread that is none counts as corrupt. */
const MAX_LOOKS = 3;

/**
 * Walks `signal->thread_head` of each process. A list of any other sort that a `signal` is made to lead to has back
 * pointers that agree, too; so every thread must name the `signal_struct` whose list it is in.
 *
 * A process that was reaped since its row was read may have left its `signal_struct` to another. A fork puts the new task in
 * the list long before it gives it a PID: until then the row is a copy of the parent's (kernel/fork.c, copy_signal
 * and copy_process). So a thread with another TGID counts only while the process is the one that was looked for.
 * @throws {CorruptError} a list that is none, or that holds what is no thread of the process
 */
export function walkThreads(kernel: Kernel, layout: TaskLayout, processes: Processes): Threads {
  const { tasks, signals, tgids } = processes;
  const heads = signals.map((signal) => wrap(signal + BigInt(layout.threadHead)));
  const { rows, counts, retries } = layout.lists(kernel, heads, layout.threadNode);
  // Compared as words: a bigint each for thousands of threads takes longer than the walk.
  const own = rows.words('signal');
  const tgid = rows.words('tgid');
  const expected = new Uint32Array(signals.buffer, signals.byteOffset, 2 * signals.length);
  const left: number[] = [];
  let row = 0;
  for (let i = 0; i < signals.length; i++) {
    const low = expected[2 * i];
    const high = expected[2 * i + 1];
    const end = row + counts[i]!;
    for (; row < end; row++) {
      if (own[2 * row] === low && own[2 * row + 1] === high) {
        if (
          tgid[row] === tgids[i] ||
          isSameProcess(kernel, layout, tasks[i]!, signals[i]!, tgids[i]!)
        )
          continue;
        left.push(row);
        continue;
      }
      const task = rows.bases[row]!;
      if (isStillThere(kernel, layout, heads[i]!, signals[i]!, task)) {
        throw new CorruptError(
          `the list of threads at ${hex(heads[i]!)} leads to ${hex(task)}, which is no thread of that process`,
          task,
          row,
        );
      }
      left.push(row);
    }
  }
  return { rows, counts, retries, left };
}

/**
 * Whether a task is still of the process that it was of. One that was reaped has no `thread_pid` (kernel/pid.c, detach_pid),
 * and its `signal_struct` is freed with it.
 */
function isSameProcess(
  kernel: Kernel,
  layout: TaskLayout,
  task: bigint,
  signal: bigint,
  tgid: number,
): boolean {
  if (!kernel.memory.physical.live) return true;
  const rows = layout.gather(kernel, BigUint64Array.of(task));
  return (
    rows.longs('signal')[0] === signal &&
    rows.words('tgid')[0] === tgid &&
    rows.longs('threadPid')[0] !== 0n
  );
}

/** Whether a list goes on to hold a task that names another `signal_struct`. */
function isStillThere(
  kernel: Kernel,
  layout: TaskLayout,
  head: bigint,
  signal: bigint,
  task: bigint,
): boolean {
  if (!kernel.memory.physical.live) return true;
  for (let look = 0; look < MAX_LOOKS; look++) {
    const { rows } = layout.lists(kernel, BigUint64Array.of(head), layout.threadNode);
    const row = rows.bases.indexOf(task);
    if (row < 0 || rows.longs('signal')[row] === signal) return false;
  }
  return true;
}
