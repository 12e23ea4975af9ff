import { CorruptError, FaultError, hex } from '../errors.js';
import { Listing } from './listing.js';
import { type Misfit, salvageViews } from './salvage.js';
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

/** What {@link Guest.crossView} gives: a row for each task, ascending by PID. */
export class CrossList extends Array<CrossRow> {
  /**
   * Views that are not whole, of an image that was copied while its guest ran or was cut short. No
   * row has them in `missing`: what a torn list lost is not known. Empty where all are whole.
   */
  torn: readonly View[] = [];
  /** Where those views do not fit; see {@link TaskList.misfits}. */
  misfits: readonly Misfit[] = [];

  /** Derived arrays (`filter`, `map`) are plain ones. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }
}

/** Who is met where. */
class Sightings {
  readonly views = new Map<bigint, Set<View>>();

  add(addresses: Iterable<bigint>, view: View): void {
    for (const address of addresses) {
      const set = this.views.get(address);
      if (set === undefined) this.views.set(address, new Set([view]));
      else set.add(view);
    }
  }

  get addresses(): BigUint64Array {
    return BigUint64Array.from(this.views.keys());
  }
}

/**
 * A live guest's tasks come and go between two views; what is missing must stay so over this many
 * looks.
 */
const LOOKS = 3;

/**
 * Joins every view of the tasks. On a live guest the tasks that lack a view are looked at again,
 * and only those that lack it every time are reported. An image whose lists do not close is joined
 * from what can be proven, and says so.
 */
export function crossView(readers: TaskReaders): CrossList {
  const { live } = readers.kernel.memory.physical;
  if (!live) return ofImage(readers);
  let rows = look(readers);
  for (let i = 1; i < LOOKS && rows.some((row) => row.missing.length > 0); i++) {
    const before = new Map(rows.map((row) => [row.task.address, row]));
    rows = look(readers).map((row) => {
      const earlier = before.get(row.task.address);
      const missing = row.missing.filter(
        (view) => earlier?.task.startTime === row.task.startTime && earlier.missing.includes(view),
      );
      return { ...row, missing };
    });
  }
  return toList(rows);
}

function toList(rows: readonly CrossRow[]): CrossList {
  const list = new CrossList();
  for (const row of rows) list.push(row);
  return list;
}

function ofImage(readers: TaskReaders): CrossList {
  try {
    return toList(look(readers));
  } catch (error) {
    if (!(error instanceof CorruptError) && !(error instanceof FaultError)) throw error;
    const rows = tornLook(readers);
    if (rows.length === 0) throw error;
    return rows;
  }
}

function look(readers: TaskReaders): CrossRow[] {
  const { members, kernel } = readers;
  kernel.memory.begin();
  const met = new Sightings();
  met.add(members.processes.walk(BigUint64Array.of(members.processHead)).rows.bases, 'list');
  met.add(readers.pidTree.all(), 'pids');
  met.add(onCpus(readers), 'cpu');
  met.add(threadsOf(readers, met.addresses), 'threads');
  return rowsOf(readers, met, []);
}

/** The same of an image whose lists do not fit, from what can be proven of each. */
function tornLook(readers: TaskReaders): CrossList {
  readers.kernel.memory.begin();
  const met = new Sightings();
  const { list, pids, threads, torn, misfits } = salvageViews(readers, (misfit) => {
    try {
      const running = onCpus(readers);
      met.add(running, 'cpu');
      return running;
    } catch (error) {
      misfit(error, readers.members.processHead);
      return [];
    }
  });
  const proven = new Set([...list, ...pids, ...threads]);
  // What a CPU runs is no task for that alone.
  for (const address of met.views.keys()) if (!proven.has(address)) met.views.delete(address);
  met.add(list, 'list');
  met.add(pids, 'pids');
  met.add(threads, 'threads');
  const rows = toList(rowsOf(readers, met, torn));
  rows.torn = torn;
  rows.misfits = misfits;
  return rows;
}

function onCpus(readers: TaskReaders): bigint[] {
  return readers.cpus.read().cpus.map((cpu) => cpu.current);
}

function rowsOf(readers: TaskReaders, met: Sightings, torn: readonly View[]): CrossRow[] {
  const { addresses } = met;
  const listing = new Listing(readers, readers.members.gatherPatiently(addresses));
  const rows: CrossRow[] = [];
  for (const [row, address] of addresses.entries()) {
    const task = new Task(listing, row);
    if ((listing.rows.faults[row]! & IDENTITY_FAULTS) !== 0)
      throw new CorruptError(`the task at ${hex(address)} cannot be read`, address, row);
    // Idle tasks are in no list and no tree.
    if (listing.gone(row) || task.pid === 0) continue;
    const found = met.views.get(address)!;
    const expected: View[] = task.leader ? ['list', 'threads', 'pids'] : ['threads', 'pids'];
    const missing = expected.filter((view) => !found.has(view) && !torn.includes(view));
    rows.push({ task, views: [...found], missing });
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
