import type { Kernel } from '../kernel/kernel.js';
import type { CpuLook } from './cpus.js';
import type { Cr3Source } from './cr3.js';
import {
  ESSENTIAL_FAULTS,
  faultBits,
  IDENTITY_FAULTS,
  PF_KTHREAD,
  type TaskMembers,
  type TaskRows,
} from './task-members.js';
import type { TaskReaders } from './task-readers.js';
import { walkThreads } from './threads.js';

/** How a row's address space was settled; the order is that of {@link CR3_SOURCES}. */
export const SETTLED = {
  none: 0,
  mm: 1,
  activeMm: 2,
  loadedMm: 3,
  thread: 4,
  exited: 5,
  corrupt: 6,
  gone: 7,
} as const;
export type Settled = (typeof SETTLED)[keyof typeof SETTLED];

/** Names of the values in the column `cr3Source`. */
export const CR3_SOURCES: readonly (Cr3Source | 'corrupt')[] = [
  'none',
  'mm',
  'active_mm',
  'loaded_mm',
  'thread',
  'exited',
  'corrupt',
];

/** Times that what does not hold together is read again before it counts as corrupt. */
const LOOKS = 3;
/** Times that a task which was on a CPU and is not any more is looked at again. */
const BORROWED_LOOKS = 8;

const SIGNAL_FAULT = faultBits('signal');
const PROCESS_FAULTS = faultBits('signal', 'tgid');
const SPACE_FAULTS = faultBits('pgd', 'textEntry');

/** What the table of {@link Cr3Source} says of some rows. */
export interface Settlement {
  /** By row, an index into {@link CR3_SOURCES}, or `gone`. */
  readonly settled: Uint8Array;
  /**
   * Rows that had to be looked at, ascending. All others have an address space of their own, at the
   * physical address `pgd - pageOffset` unless the guest is a PV guest of Xen.
   */
  readonly unexpected: Uint32Array;
  /** PGD of rows whose answer is not in their own columns. */
  readonly foreignPgds: ReadonlyMap<number, bigint>;
  /** PIDs in every namespace, of rows that are in more than one. */
  readonly nsPids: ReadonlyMap<number, readonly number[]>;
  /** Rows that were read again. */
  readonly retries: number;
}

/**
 * Settles every row's address space, in a few passes over all rows: what needs more reads (borrowed
 * address spaces, exited leaders, PIDs of namespaces) is done for all such rows at once. Rows that
 * were read again are overwritten.
 * @param look at the CPUs, where `rows` are those of its tasks
 */
export function settle(readers: TaskReaders, rows: TaskRows, look?: CpuLook): Settlement {
  return new Settling(readers, rows, look).run();
}

class Settling {
  readonly #readers: TaskReaders;
  readonly #members: TaskMembers;
  readonly #kernel: Kernel;
  readonly #rows: TaskRows;
  readonly #live: boolean;
  readonly #classify: (row: number) => Settled;
  readonly #settled: Uint8Array;
  readonly #foreignPgds = new Map<number, bigint>();
  #look: CpuLook | undefined;
  #retries = 0;
  /** Rows by what is still to be done for them. */
  #bad: number[] = [];
  #borrowed: number[] = [];
  readonly #exited: number[] = [];

  constructor(readers: TaskReaders, rows: TaskRows, look: CpuLook | undefined) {
    this.#readers = readers;
    this.#members = readers.members;
    this.#kernel = readers.members.kernel;
    this.#rows = rows;
    this.#live = this.#kernel.memory.physical.live;
    this.#look = look;
    this.#classify = classifier(readers, rows);
    this.#settled = new Uint8Array(rows.count).fill(SETTLED.mm);
  }

  run(): Settlement {
    const unexpected = this.#members.plan.unexpected(this.#rows);
    // What could not be read reads as zero; on a live guest a second look may tell.
    for (const row of unexpected) this.#sort(row, this.#live);
    for (let look = 0; look < LOOKS && this.#live && this.#bad.length > 0; look++) {
      const again = this.#bad;
      this.#bad = [];
      this.#readAgain(again, look < LOOKS - 1);
    }
    this.#settleBorrowed();
    this.#settleExited();
    const nsPids = this.#readNamespaces(unexpected);
    return {
      settled: this.#settled,
      unexpected,
      foreignPgds: this.#foreignPgds,
      nsPids,
      retries: this.#retries,
    };
  }

  /** @param again whether a row of which something could not be read is put off */
  #sort(row: number, again: boolean): void {
    if (again && this.#rows.faults[row] !== 0) {
      this.#bad.push(row);
      return;
    }
    const settled = this.#classify(row);
    this.#settled[row] = settled;
    if (settled === SETTLED.activeMm) this.#borrowed.push(row);
    else if (settled === SETTLED.exited) this.#exited.push(row);
    else if (settled === SETTLED.corrupt) this.#bad.push(row);
  }

  #readAgain(again: readonly number[], more: boolean): void {
    this.#retries += again.length;
    const fresh = this.#members.gather(pick(this.#rows.bases, again));
    for (const [i, row] of again.entries()) {
      if (this.#take(row, fresh, i)) this.#sort(row, more);
    }
  }

  /**
   * Takes a newer row in place of one, if it is of the same task.
   * @returns whether the task is still there; where not, it is `gone`
   */
  #take(row: number, fresh: TaskRows, from: number): boolean {
    const rows = this.#rows;
    // A second look that fails says nothing about the task: what the first one read stays.
    if ((fresh.faults[from]! & IDENTITY_FAULTS) !== 0) return true;
    const same =
      fresh.words('pid')[from] === rows.words('pid')[row] &&
      fresh.longs('startTime')[from] === rows.longs('startTime')[row];
    if (!same && (rows.faults[row]! & IDENTITY_FAULTS) === 0) {
      this.#settled[row] = SETTLED.gone;
      return false;
    }
    rows.copyRow(row, fresh, from);
    return true;
  }

  /**
   * A task without an mm that is on a CPU runs on what that CPU has loaded, which may no longer be
   * its `active_mm`. Once it is off the CPU it has none: the scheduler clears `active_mm`, and the
   * mm may be freed and serve another process before it is read here. So a row that says the one
   * and no CPU that says the other do not belong together, and both are looked at again.
   */
  #settleBorrowed(): void {
    for (let look = 1; this.#borrowed.length > 0; look++) {
      const off = this.#settleOnCpus(this.#borrowed);
      this.#borrowed = [];
      if (off.length === 0) return;
      if (!this.#live || look === BORROWED_LOOKS) {
        this.#settleByActiveMm(off);
        return;
      }
      this.#readAgain(off, false);
      this.#borrowed.push(...this.#bad);
      this.#bad = [];
    }
  }

  /** @returns rows whose task no CPU runs */
  #settleOnCpus(borrowed: readonly number[]): number[] {
    const { cpus, rows: current } = this.#look ?? this.#readers.cpus.read();
    this.#look = undefined;
    const byTask = new Map(cpus.map((cpu, i) => [cpu.current, i]));
    return borrowed.filter((row) => {
      const i = byTask.get(this.#rows.bases[row]!);
      const cpu = i === undefined ? undefined : cpus[i]!;
      if (i === undefined || cpu === undefined || cpu.switching) return true;
      if (!this.#take(row, current, i)) return false;
      const settled = this.#classify(row);
      this.#settled[row] = settled;
      if (settled === SETTLED.exited) this.#exited.push(row);
      if (settled !== SETTLED.activeMm) return false;
      const own = cpu.loadedMm === this.#rows.longs('activeMm')[row];
      this.#settled[row] =
        cpu.loadedPgd === 0n ? SETTLED.corrupt : own ? SETTLED.activeMm : SETTLED.loadedMm;
      this.#foreignPgds.set(row, cpu.loadedPgd);
      return false;
    });
  }

  #settleByActiveMm(rows: readonly number[]): void {
    const pgds = this.#readers.spaces.pgds(pick(this.#rows.longs('activeMm'), rows));
    for (const [i, row] of rows.entries()) {
      this.#settled[row] = pgds[i] === 0n ? SETTLED.corrupt : SETTLED.activeMm;
      this.#foreignPgds.set(row, pgds[i]!);
    }
  }

  /** An exited leader answers for its process as long as a thread of it has an address space. */
  #settleExited(): void {
    const signal = this.#rows.longs('signal');
    const pid = this.#rows.words('pid');
    const tgid = this.#rows.words('tgid');
    const exited = this.#exited.filter((row) => this.#settled[row] === SETTLED.exited);
    // Which process it is of, nobody can say then: it may be one whose threads live.
    for (const row of exited) {
      if ((this.#rows.faults[row]! & PROCESS_FAULTS) !== 0) this.#settled[row] = SETTLED.corrupt;
    }
    const processes = exited.filter(
      (row) =>
        this.#settled[row] === SETTLED.exited && pid[row] === tgid[row] && signal[row] !== 0n,
    );
    if (processes.length === 0) return;
    // Most are zombies with no other thread: to walk the list of each would take several reads.
    const tasks = pick(this.#rows.bases, processes);
    const alone = this.#readers.threadLinks.areAlone(tasks, pick(signal, processes));
    const leaders = processes.filter((_, i) => !alone[i]);
    if (leaders.length === 0) return;
    const threads = walkThreads(this.#members, {
      tasks: pick(this.#rows.bases, leaders),
      signals: pick(signal, leaders),
      tgids: Uint32Array.from(leaders, (row) => tgid[row]!),
    });
    this.#retries += threads.retries;
    const left = new Set(threads.left);
    let at = 0;
    for (const [i, row] of leaders.entries()) {
      const end = at + threads.counts[i]!;
      const own = Array.from({ length: end - at }, (_, k) => at + k).filter((k) => !left.has(k));
      this.#settleByThreads(row, threads.rows, own);
      at = end;
    }
  }

  /** @param own rows of the leader's threads */
  #settleByThreads(leader: number, threads: TaskRows, own: readonly number[]): void {
    const classify = classifier(this.#readers, threads);
    let corrupt = false;
    for (const thread of own) {
      let settled = classify(thread);
      let rows = threads;
      let at = thread;
      // What the first look could not tell, a second one may; and then it is its row that answers.
      for (let look = 0; look < LOOKS && this.#live && settled === SETTLED.corrupt; look++) {
        this.#retries++;
        rows = this.#members.gather(BigUint64Array.of(threads.bases[thread]!));
        at = 0;
        settled = classifier(this.#readers, rows)(0);
        // By now it may be another process's: then it says nothing.
        const mine = rows.longs('signal')[0] === this.#rows.longs('signal')[leader];
        if ((rows.faults[0]! & SIGNAL_FAULT) === 0 && !mine) settled = SETTLED.exited;
      }
      if (settled === SETTLED.corrupt) corrupt = true;
      if (settled !== SETTLED.mm) continue;
      this.#settled[leader] = SETTLED.thread;
      this.#foreignPgds.set(leader, rows.longs('pgd')[at]!);
      return;
    }
    // One thread without a page table does not speak for the others; where none of them has one,
    // nobody can say what the process runs on.
    if (corrupt) this.#settled[leader] = SETTLED.corrupt;
  }

  #readNamespaces(unexpected: Uint32Array): ReadonlyMap<number, readonly number[]> {
    const level = this.#rows.words('level');
    const nested = [...unexpected].filter(
      (row) => level[row] !== 0 && this.#settled[row] !== SETTLED.gone,
    );
    if (nested.length === 0) return new Map();
    const { pids, unreadable } = this.#readers.namespaces.read(this.#rows, nested);
    for (const row of unreadable) this.#settled[row] = SETTLED.corrupt;
    return pids;
  }
}

/** Some rows of a column. (`from` with a function takes a microsecond.) */
function pick(column: BigUint64Array, rows: readonly number[]): BigUint64Array {
  const picked = new BigUint64Array(rows.length);
  for (let i = 0; i < rows.length; i++) picked[i] = column[rows[i]!]!;
  return picked;
}

/**
 * Settles a row by its own columns. A PGD counts when it is page-aligned, readable, and its entry
 * for the kernel's text is the kernel's own.
 */
function classifier(readers: TaskReaders, rows: TaskRows): (row: number) => Settled {
  const { members } = readers;
  const { faults } = rows;
  const mm = rows.words('mm');
  const activeMm = rows.words('activeMm');
  const pgd = rows.words('pgd');
  const entry = rows.words('textEntry');
  const flags = rows.words('flags');
  const { pageTable } = members;
  return (row) => {
    if ((faults[row]! & ESSENTIAL_FAULTS) !== 0) return SETTLED.corrupt;
    const low = 2 * row;
    const high = low + 1;
    if ((mm[low]! | mm[high]!) !== 0) {
      const sound =
        (faults[row]! & SPACE_FAULTS) === 0 &&
        pageTable.passes(pgd[low]!, entry[low]!, entry[high]!);
      return sound ? SETTLED.mm : SETTLED.corrupt;
    }
    if ((activeMm[low]! | activeMm[high]!) !== 0) return SETTLED.activeMm;
    return (flags[row]! & PF_KTHREAD) !== 0 ? SETTLED.none : SETTLED.exited;
  };
}
