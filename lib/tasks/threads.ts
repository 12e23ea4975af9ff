import { wrap } from '../address.js';
import { CorruptError, hex } from '../errors.js';
import { at, bytesAt, bytesFrom, from, NamedPlan } from '../memory/plan.js';
import { faultBits, type TaskMembers, type TaskRows } from './task-members.js';

/** Processes whose threads are looked for: of each, a member task and what that task's row said. */
export interface Processes {
  readonly tasks: BigUint64Array;
  /** Addresses of the `signal_struct`s, all different. */
  readonly signals: BigUint64Array;
  readonly tgids: Uint32Array;
}

/** The threads of some processes, process by process. */
export interface Threads {
  readonly rows: TaskRows;
  /**
   * Threads of each process; none when it was reaped, or when its list is not one of threads.
   */
  readonly counts: Uint32Array;
  readonly retries: number;
  /**
   * Rows that are no thread of their process any more: it exited, and its memory serves another
   * task.
   */
  readonly left: readonly number[];
}

/** Faults after which nobody can say which process a task is of. */
const PROCESS_FAULTS = faultBits('signal', 'tgid', 'threadPid');
/** Times that a live guest is looked at again before a thread that is none counts as corrupt. */
const MAX_LOOKS = 3;

/**
 * Walks `signal->thread_head` of each process. A list of any other sort that a `signal` is made to
 * lead to has back pointers that agree, too; so every thread must name the `signal_struct` whose
 * list it is in.
 *
 * A process that was reaped since its row was read may have left its `signal_struct` to another. A
 * fork puts the new task in the list long before it gives it a PID: until then the row is a copy of
 * the parent's (kernel/fork.c, copy_signal and copy_process). So a thread with another TGID counts
 * only while the process is the one that was looked for.
 * @throws {CorruptError} a list that is none, or that holds what is no thread of the process
 */
export function walkThreads(members: TaskMembers, processes: Processes): Threads {
  const { signals, tgids } = processes;
  const heads = new BigUint64Array(signals.length);
  const offset = BigInt(members.threadHead);
  // Cut to 64 bits in the same expression, the sum makes no bigint.
  for (let i = 0; i < heads.length; i++) heads[i] = BigInt.asUintN(64, signals[i]! + offset);
  const { rows, counts, retries } = members.threads.walk(heads);
  readAgain(members, rows);
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
        if (tgid[row] !== tgids[i] && !isSameProcess(members, processes, i)) left.push(row);
        continue;
      }
      const task = rows.bases[row]!;
      if (isStillThere(members, heads[i]!, signals[i]!, task)) {
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

/** Reads again which process rows are of, where the first look could not. */
function readAgain(members: TaskMembers, rows: TaskRows): void {
  if (!members.kernel.memory.physical.live) return;
  if (!rows.faulty) return;
  const bad = [...rows.faults.keys()].filter((row) => (rows.faults[row]! & PROCESS_FAULTS) !== 0);
  const again = members.gatherPatiently(BigUint64Array.from(bad, (row) => rows.bases[row]!));
  for (const [i, row] of bad.entries()) rows.copyRow(row, again, i);
}

/**
 * Whether a task is still of the process that it was of. One that was reaped has no `thread_pid`
 * (kernel/pid.c, detach_pid), and its `signal_struct` is freed with it.
 * @throws {CorruptError} the task cannot be read any more, so that nobody can say
 */
function isSameProcess(members: TaskMembers, processes: Processes, i: number): boolean {
  if (!members.kernel.memory.physical.live) return true;
  const task = processes.tasks[i]!;
  const rows = members.gatherPatiently(BigUint64Array.of(task));
  if ((rows.faults[0]! & PROCESS_FAULTS) !== 0)
    throw new CorruptError(`the task at ${hex(task)} cannot be read again`, task);
  return (
    rows.longs('signal')[0] === processes.signals[i] &&
    rows.words('tgid')[0] === processes.tgids[i] &&
    rows.longs('threadPid')[0] !== 0n
  );
}

/** Whether a list goes on to hold a task that names another `signal_struct`. */
function isStillThere(members: TaskMembers, head: bigint, signal: bigint, task: bigint): boolean {
  if (!members.kernel.memory.physical.live) return true;
  for (let look = 0; look < MAX_LOOKS; look++) {
    const { rows } = members.threads.walk(BigUint64Array.of(head));
    const row = rows.bases.indexOf(task);
    if (row < 0 || rows.longs('signal')[row] === signal) return false;
  }
  return true;
}

/**
 * Tells tasks that are all that is left of their process from those that have threads beside them.
 */
export class ThreadLinks {
  readonly #members: TaskMembers;
  readonly #plan;

  constructor(members: TaskMembers) {
    this.#members = members;
    this.#plan = new NamedPlan(members.kernel.types, {
      signal: at('task_struct', 'signal'),
      headNext: from('signal', 'signal_struct', 'thread_head'),
      headPrev: bytesFrom('signal', members.threadHead + 8),
      nodeNext: at('task_struct', 'thread_node'),
      nodePrev: bytesAt(members.threadNode + 8),
    });
  }

  /**
   * Whether each task is all that the list of threads of its `signal_struct` holds; no where it
   * cannot be read.
   */
  areAlone(tasks: BigUint64Array, signals: BigUint64Array): boolean[] {
    const { threadHead, threadNode, kernel } = this.#members;
    const rows = this.#plan.gather(kernel.memory, tasks);
    return Array.from(tasks, (task, i) => {
      const head = wrap(signals[i]! + BigInt(threadHead));
      const node = wrap(task + BigInt(threadNode));
      return (
        rows.faults[i] === 0 &&
        rows.longs('signal')[i] === signals[i] &&
        rows.longs('headNext')[i] === node &&
        rows.longs('headPrev')[i] === node &&
        rows.longs('nodeNext')[i] === head &&
        rows.longs('nodePrev')[i] === head
      );
    });
  }
}
