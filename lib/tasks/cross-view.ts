import type { Kernel } from '../kernel/kernel.js';
import { readCpus } from './cpus.js';
import { Listing } from './listing.js';
import { allTasks } from './pid-tree.js';
import { Task } from './task.js';
import type { TaskLayout } from './task-members.js';
import { walkThreads } from './threads.js';

/** A way to come by a task: the list of processes, the threads of a process, the PID tree, a CPU that runs it. */
export type View = 'list' | 'threads' | 'pids' | 'cpu';

/** One task, and which views of the kernel have it. */
export interface CrossRow {
  readonly task: Task;
  readonly views: readonly View[];
  /** Views that every task of its kind is in, and this one is not: what a rootkit hides, or a bug loses. */
  readonly missing: readonly View[];
}

/** A live guest's tasks come and go between two views; what is missing must stay so over this many looks. */
const LOOKS = 3;

/**
 * Joins every view of the tasks. On a live guest the tasks that lack a view are looked at again, and only those that lack it every
 * time are reported.
 */
export function crossView(kernel: Kernel, layout: TaskLayout): CrossRow[] {
  let rows = look(kernel, layout);
  for (
    let i = 1;
    i < LOOKS && kernel.memory.physical.live && rows.some((row) => row.missing.length > 0);
    i++
  ) {
    const before = new Map(rows.map((row) => [row.task.address, row]));
    rows = look(kernel, layout).map((row) => {
      const earlier = before.get(row.task.address);
      const missing = row.missing.filter(
        (view) => earlier?.task.startTime === row.task.startTime && earlier.missing.includes(view),
      );
      return { ...row, missing };
    });
  }
  return rows;
}

function look(kernel: Kernel, layout: TaskLayout): CrossRow[] {
  const { memory } = kernel;
  memory.begin();
  const views = new Map<bigint, Set<View>>();
  const add = (addresses: Iterable<bigint>, view: View) => {
    for (const address of addresses) {
      const set = views.get(address);
      if (set === undefined) views.set(address, new Set([view]));
      else set.add(view);
    }
  };
  const head = kernel.symbols.address('init_task') + BigInt(layout.tasks);
  add(layout.lists(kernel, BigUint64Array.of(head), layout.tasks).rows.bases, 'list');
  add(allTasks(kernel, layout), 'pids');
  const cpus = readCpus(kernel).map((cpu) => cpu.current);
  add(cpus, 'cpu');
  // The threads of every process that any view has shown.
  const known = layout.gather(kernel, BigUint64Array.from(views.keys()));
  const first = new Map<bigint, number>();
  for (const [row, signal] of known.longs('signal').entries()) {
    if (signal !== 0n && !first.has(signal)) first.set(signal, row);
  }
  const threads = walkThreads(kernel, layout, {
    tasks: BigUint64Array.from(first.values(), (row) => known.bases[row]!),
    signals: BigUint64Array.from(first.keys()),
    tgids: Uint32Array.from(first.values(), (row) => known.words('tgid')[row]!),
  });
  const left = new Set(threads.left);
  add(
    threads.rows.bases.filter((_, row) => !left.has(row)),
    'threads',
  );

  const addresses = BigUint64Array.from(views.keys());
  const listing = new Listing(kernel, layout, layout.gather(kernel, addresses));
  const rows: CrossRow[] = [];
  for (const [row, address] of addresses.entries()) {
    const task = new Task(listing, row);
    // Idle tasks are in no list and no tree.
    if (listing.gone(row) || task.pid === 0) continue;
    const found = views.get(address)!;
    const expected: View[] = task.leader ? ['list', 'threads', 'pids'] : ['threads', 'pids'];
    rows.push({ task, views: [...found], missing: expected.filter((view) => !found.has(view)) });
  }
  return rows.sort((a, b) => a.task.pid - b.task.pid);
}
