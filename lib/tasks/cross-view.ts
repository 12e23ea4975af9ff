import { CorruptError, hex } from '../errors.js';
import { Listing } from './listing.js';
import { Task } from './task.js';
import { IDENTITY_FAULTS } from './task-members.js';
import type { TaskReaders } from './task-readers.js';
import { walkThreads } from './threads.js';

/**
 * A way to come by a task: the list of processes, the threads of a process, the PID tree, a CPU
 * that runs it.
 */
export type View = 'list' | 'threads' | 'pids' | 'cpu';

/** One task, and which views of the kernel have it. */
export interface CrossRow {
  readonly task: Task;
  readonly views: readonly View[];
  /**
   * Views that every task of its kind is in, and this one is not: what a rootkit hides, or a bug
   * loses.
   */
  readonly missing: readonly View[];
}

/**
 * A live guest's tasks come and go between two views; what is missing must stay so over this many
 * looks.
 */
const LOOKS = 3;

/**
 * Joins every view of the tasks. On a live guest the tasks that lack a view are looked at again,
 * and only those that lack it every time are reported.
 */
export function crossView(readers: TaskReaders): CrossRow[] {
  let rows = look(readers);
  for (
    let i = 1;
    i < LOOKS && readers.kernel.memory.physical.live && rows.some((row) => row.missing.length > 0);
    i++
  ) {
    const before = new Map(rows.map((row) => [row.task.address, row]));
    rows = look(readers).map((row) => {
      const earlier = before.get(row.task.address);
      const missing = row.missing.filter(
        (view) => earlier?.task.startTime === row.task.startTime && earlier.missing.includes(view),
      );
      return { ...row, missing };
    });
  }
  return rows;
}

function look(readers: TaskReaders): CrossRow[] {
  const { members, kernel } = readers;
  kernel.memory.begin();
  const views = new Map<bigint, Set<View>>();
  const add = (addresses: Iterable<bigint>, view: View) => {
    for (const address of addresses) {
      const set = views.get(address);
      if (set === undefined) views.set(address, new Set([view]));
      else set.add(view);
    }
  };
  add(members.processes.walk(BigUint64Array.of(members.processHead)).rows.bases, 'list');
  add(readers.pidTree.all(), 'pids');
  add(
    readers.cpus.read().cpus.map((cpu) => cpu.current),
    'cpu',
  );
  add(threadsOf(readers, BigUint64Array.from(views.keys())), 'threads');

  const addresses = BigUint64Array.from(views.keys());
  const listing = new Listing(readers, members.gatherPatiently(addresses));
  const rows: CrossRow[] = [];
  for (const [row, address] of addresses.entries()) {
    const task = new Task(listing, row);
    if ((listing.rows.faults[row]! & IDENTITY_FAULTS) !== 0)
      throw new CorruptError(`the task at ${hex(address)} cannot be read`, address, row);
    // Idle tasks are in no list and no tree.
    if (listing.gone(row) || task.pid === 0) continue;
    const found = views.get(address)!;
    const expected: View[] = task.leader ? ['list', 'threads', 'pids'] : ['threads', 'pids'];
    rows.push({ task, views: [...found], missing: expected.filter((view) => !found.has(view)) });
  }
  return rows.sort((a, b) => a.task.pid - b.task.pid);
}

/** The threads of the processes that some tasks belong to. */
function threadsOf({ members }: TaskReaders, tasks: BigUint64Array): BigUint64Array {
  const known = members.gatherPatiently(tasks);
  const first = new Map<bigint, number>();
  for (const [row, signal] of known.longs('signal').entries()) {
    if (signal !== 0n && !first.has(signal)) first.set(signal, row);
  }
  const threads = walkThreads(members, {
    tasks: BigUint64Array.from(first.values(), (row) => known.bases[row]!),
    signals: BigUint64Array.from(first.keys()),
    tgids: Uint32Array.from(first.values(), (row) => known.words('tgid')[row]!),
  });
  const left = new Set(threads.left);
  return threads.rows.bases.filter((_, row) => !left.has(row));
}
