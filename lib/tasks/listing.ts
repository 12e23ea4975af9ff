import { CorruptError, hex } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import { type Cpu, readCpus } from './cpus.js';
import { type Cr3Source, PTI_USER_BIT, pgdToCr3 } from './cr3.js';
import { FAULT, type TaskRows } from './rows.js';
import { MAX_PID_NS_LEVEL, PF_KTHREAD, type TaskLayout } from './task-members.js';
import { walkThreads } from './threads.js';
import { type MachineSpace, MachineSpaces } from './xen-spaces.js';

/** How a row's address space was settled; the order is that of `CR3_SOURCES`. */
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

/** What tells two tasks at one address apart. */
const IDENTITY = FAULT.pid | FAULT.startTime;
/** What must be readable for a row to mean anything: read as zero, an mm would be a task without one. */
const OWN = IDENTITY | FAULT.flags | FAULT.mm | FAULT.activeMm;

/** Times a row that does not hold together is read again before it counts as corrupt. */
const MAX_ROW_RETRIES = 3;

/**
 * Task rows with every address space settled by the table of {@link Cr3Source}, in a few passes over all rows:
 * what needs more reads (borrowed address spaces, exited leaders, namespace PIDs) is done for all such rows at once.
 */
export class Listing {
  readonly kernel: Kernel;
  readonly layout: TaskLayout;
  readonly rows: TaskRows;
  /** Times that rows or links were read again because the guest changed under the walk. */
  retries: number;
  /** How each row was settled, by index into {@link CR3_SOURCES}. */
  readonly settled: Uint8Array;
  /** Rows that {@link TaskLayout.unexpected} named. */
  readonly unexpected: Uint32Array;
  /** PGD of rows whose answer is not in their own columns. */
  readonly #foreignPgd = new Map<number, bigint>();
  readonly #nsPids = new Map<number, readonly number[]>();
  /** By PGD, for guests whose page tables hold machine addresses. */
  readonly #machine = new Map<bigint, MachineSpace>();

  /** @param left rows of tasks that are known to have left */
  constructor(
    kernel: Kernel,
    layout: TaskLayout,
    rows: TaskRows,
    retries = 0,
    left: readonly number[] = [],
  ) {
    this.kernel = kernel;
    this.layout = layout;
    this.rows = rows;
    this.retries = retries;
    this.settled = new Uint8Array(rows.count).fill(SETTLED.mm);
    this.unexpected = layout.unexpected(rows);
    this.#settle();
    for (const row of left) this.settled[row] = SETTLED.gone;
    if (kernel.p2m !== undefined) this.#translateSpaces();
  }

  /** Whether the task left while it was read: it belongs in no result. */
  gone(row: number): boolean {
    return this.settled[row] === SETTLED.gone;
  }

  /** Rows that did not leave; `undefined` when that is all of them. */
  kept(): number[] | undefined {
    if (!this.settled.includes(SETTLED.gone)) return undefined;
    return Array.from(this.settled.keys()).filter((row) => !this.gone(row));
  }

  /** @throws {CorruptError} the row's address space is none */
  source(row: number): Cr3Source {
    const source = CR3_SOURCES[this.settled[row]!];
    if (source === undefined || source === 'corrupt') throw this.#corrupt(row);
    return source;
  }

  /**
   * Virtual address of the PGD that answers for the row; 0 when there is none.
   * @throws {CorruptError} the row's address space is none
   */
  pgd(row: number): bigint {
    switch (this.settled[row]) {
      case SETTLED.mm:
        return this.rows.longs('pgd')[row]!;
      case SETTLED.activeMm:
      case SETTLED.loadedMm:
      case SETTLED.thread:
        return this.#foreignPgd.get(row)!;
      case SETTLED.corrupt:
        throw this.#corrupt(row);
      default:
        return 0n;
    }
  }

  /**
   * What CR3 holds for the row; `null` when it has none.
   * @throws {CorruptError} the row's address space is none
   */
  cr3(row: number): bigint | null {
    const pgd = this.pgd(row);
    return pgd === 0n ? null : (this.#machine.get(pgd)?.cr3 ?? pgdToCr3(this.kernel, pgd));
  }

  /**
   * What CR3 holds in user mode; `undefined` in a guest that has one table for both modes.
   * @throws {CorruptError} the row's address space is none
   */
  userCr3(row: number): bigint | null | undefined {
    const { pti, p2m } = this.kernel;
    if (!pti && p2m === undefined) return undefined;
    const pgd = this.pgd(row);
    if (pgd === 0n) return null;
    // init_mm has no user half: nothing of it runs in user mode.
    return p2m === undefined
      ? pgdToCr3(this.kernel, pgd) | PTI_USER_BIT
      : this.#machine.get(pgd)!.userCr3;
  }

  /** PIDs in every namespace the task is in, the outermost first. */
  nsPids(row: number): readonly number[] {
    return this.#nsPids.get(row) ?? [this.rows.words('pid')[row]!];
  }

  /** Nearly all rows have an address space of their own; this looks at the rest, and hands on in groups what it cannot settle. */
  #settle(): void {
    const { rows, settled, unexpected } = this;
    const borrowed: number[] = [];
    const exited: number[] = [];
    let bad: number[] = [];
    const { faults } = rows;
    // What could not be read reads as zero; on a live guest a second look may tell.
    let looks = this.kernel.memory.physical.live ? MAX_ROW_RETRIES : 0;
    const classify = classifier(rows, this.layout);
    const sort = (row: number) => {
      if (faults[row] !== 0 && looks > 0) {
        bad.push(row);
        return;
      }
      const source = classify(row);
      settled[row] = source;
      if (source === SETTLED.mm) return;
      if (source === SETTLED.activeMm) borrowed.push(row);
      else if (source === SETTLED.exited) exited.push(row);
      else if (source === SETTLED.corrupt) bad.push(row);
    };
    for (const row of unexpected) sort(row);
    while (bad.length > 0 && looks > 0) {
      looks--;
      const again = bad;
      bad = [];
      this.retries += again.length;
      this.#readAgain(again, sort);
    }
    const level = rows.words('level');
    const nested: number[] = [];
    for (const row of unexpected) {
      if (level[row] !== 0 && settled[row] !== SETTLED.gone) nested.push(row);
    }
    if (borrowed.length > 0) this.#settleBorrowed(borrowed);
    if (exited.length > 0) this.#settleExited(exited);
    if (nested.length > 0) this.#readNamespaces(nested);
  }

  #readAgain(again: readonly number[], sort: (row: number) => void): void {
    const { rows } = this;
    const bases = pick(rows.bases, again);
    const fresh = this.layout.gather(this.kernel, bases);
    for (const [i, row] of again.entries()) {
      // A second look that fails says nothing about the task: what the first one read stays.
      if ((fresh.faults[i]! & IDENTITY) !== 0) {
        sort(row);
        continue;
      }
      const same =
        fresh.words('pid')[i] === rows.words('pid')[row] &&
        fresh.longs('startTime')[i] === rows.longs('startTime')[row];
      if (same || (rows.faults[row]! & IDENTITY) !== 0) {
        rows.copyRow(row, fresh, i);
        sort(row);
      } else {
        this.settled[row] = SETTLED.gone;
      }
    }
  }

  /** A task without an mm that is on a CPU runs on what that CPU has loaded, which may no longer be `active_mm`. */
  #settleBorrowed(borrowed: readonly number[]): void {
    const cpus = new Map<bigint, Cpu>();
    for (const cpu of readCpus(this.kernel)) cpus.set(cpu.current, cpu);
    const { bases } = this.rows;
    const activeMm = this.rows.longs('activeMm');
    const mms = BigUint64Array.from(
      borrowed,
      (row) => cpus.get(bases[row]!)?.loadedMm || activeMm[row]!,
    );
    const pgds = this.layout.pgds(this.kernel, mms);
    for (const [i, row] of borrowed.entries()) {
      if (pgds[i] === 0n) {
        this.settled[row] = SETTLED.corrupt;
        continue;
      }
      if (mms[i] !== activeMm[row]) this.settled[row] = SETTLED.loadedMm;
      this.#foreignPgd.set(row, pgds[i]!);
    }
  }

  /** An exited leader answers for its process as long as a thread of it has an address space. */
  #settleExited(exited: readonly number[]): void {
    const { rows, layout, kernel } = this;
    const signal = rows.longs('signal');
    const pid = rows.words('pid');
    const tgid = rows.words('tgid');
    const processes = exited.filter((row) => pid[row] === tgid[row] && signal[row] !== 0n);
    if (processes.length === 0) return;
    // Most are zombies with no other thread: to walk the list of each would take several reads.
    const alone = layout.areAlone(kernel, pick(rows.bases, processes), pick(signal, processes));
    const leaders = processes.filter((_, i) => !alone[i]);
    if (leaders.length === 0) return;
    const threads = walkThreads(kernel, layout, {
      tasks: pick(rows.bases, leaders),
      signals: pick(signal, leaders),
      tgids: Uint32Array.from(leaders, (row) => tgid[row]!),
    });
    this.retries += threads.retries;
    const left = new Set(threads.left);
    const classify = classifier(threads.rows, layout);
    let at = 0;
    for (const [i, row] of leaders.entries()) {
      const end = at + threads.counts[i]!;
      for (; at < end; at++) {
        if (this.settled[row] === SETTLED.thread || left.has(at)) continue;
        const settled = classify(at);
        // One thread without a page table does not speak for the others.
        if (settled === SETTLED.corrupt && this.#isCorrupt(threads.rows.bases[at]!))
          this.settled[row] = SETTLED.corrupt;
        if (settled !== SETTLED.mm) continue;
        this.settled[row] = SETTLED.thread;
        this.#foreignPgd.set(row, threads.rows.longs('pgd')[at]!);
      }
    }
  }

  /** Whether a task goes on to name an address space that is none; on a live guest it may just have exited. */
  #isCorrupt(task: bigint): boolean {
    for (let look = 0; look < MAX_ROW_RETRIES && this.kernel.memory.physical.live; look++) {
      this.retries++;
      const fresh = this.layout.gather(this.kernel, BigUint64Array.of(task));
      if (classifier(fresh, this.layout)(0) !== SETTLED.corrupt) return false;
    }
    return true;
  }

  #readNamespaces(nested: readonly number[]): void {
    const { rows, layout, kernel } = this;
    const levels = rows.words('level');
    const byLevel = new Map<number, number[]>();
    for (const row of nested) {
      const level = levels[row]!;
      if (level > MAX_PID_NS_LEVEL) {
        this.settled[row] = SETTLED.corrupt;
        continue;
      }
      const group = byLevel.get(level);
      if (group === undefined) byLevel.set(level, [row]);
      else group.push(row);
    }
    for (const [level, group] of byLevel) {
      const bases = pick(rows.longs('threadPid'), group);
      const size = layout.upidSize * (level + 1);
      const header = ((4 * group.length + 7) & ~7) + 8 * group.length;
      const bytes = new Uint8Array(header + ((size * group.length + 7) & ~7));
      for (let look = kernel.memory.physical.live ? MAX_ROW_RETRIES : 0; look >= 0; look--) {
        kernel.memory.gather(layout.numbersPlan(level), bases, bytes);
        if (new Uint32Array(bytes.buffer, 0, group.length).every((faults) => faults === 0)) break;
      }
      const view = new DataView(bytes.buffer);
      for (const [i, row] of group.entries()) {
        if (view.getUint32(4 * i, true) !== 0) {
          this.settled[row] = SETTLED.corrupt;
          continue;
        }
        const pids: number[] = [];
        for (let n = 0; n <= level; n++) {
          pids.push(view.getInt32(header + size * i + layout.upidSize * n + layout.upidNr, true));
        }
        this.#nsPids.set(row, pids);
      }
    }
  }

  /** Page tables translate page by page, so it is done while the rows are fresh, once for all who share one. */
  #translateSpaces(): void {
    const spaces = new MachineSpaces(this.kernel);
    for (let row = 0; row < this.rows.count; row++) {
      const settled = this.settled[row]!;
      if (settled < SETTLED.mm || settled > SETTLED.thread) continue;
      const pgd = this.pgd(row);
      const space = this.#machine.get(pgd) ?? spaces.of(pgd);
      if (space === undefined) this.settled[row] = SETTLED.corrupt;
      else this.#machine.set(pgd, space);
    }
  }

  #corrupt(row: number): CorruptError {
    const { rows } = this;
    if ((rows.faults[row]! & OWN) !== 0) {
      return new CorruptError(
        `the task at ${hex(rows.bases[row]!)} cannot be read`,
        rows.bases[row]!,
      );
    }
    const mm = rows.longs('mm')[row]! || rows.longs('activeMm')[row]!;
    return new CorruptError(
      `task ${rows.words('pid')[row]} at 0x${rows.bases[row]!.toString(16)} names an address space (mm 0x${mm.toString(16)}) whose page table does not map the kernel's text`,
      rows.bases[row]!,
    );
  }
}

/** Some rows of a column. (`from` with a function takes a microsecond.) */
function pick(column: BigUint64Array, rows: readonly number[]): BigUint64Array {
  const picked = new BigUint64Array(rows.length);
  for (let i = 0; i < rows.length; i++) picked[i] = column[rows[i]!]!;
  return picked;
}

/**
 * Settles a row by its own columns. A PGD counts when it is page-aligned, readable, and its entry for the kernel's text
 * is the kernel's own.
 */
export function classifier(rows: TaskRows, layout: TaskLayout): (row: number) => number {
  const { faults } = rows;
  const mm = rows.words('mm');
  const activeMm = rows.words('activeMm');
  const pgd = rows.words('pgd');
  const entry = rows.words('textEntry');
  const flags = rows.words('flags');
  const entryLow = Number(layout.textEntry & 0xffff_ffffn);
  const entryHigh = Number(layout.textEntry >> 32n);
  const unreadable = FAULT.pgd | FAULT.textEntry;
  return (row) => {
    if ((faults[row]! & OWN) !== 0) return SETTLED.corrupt;
    const low = 2 * row;
    const high = low + 1;
    if ((mm[low]! | mm[high]!) !== 0) {
      const same =
        ((entry[low]! ^ entryLow) & 0xffff_f000) === 0 &&
        ((entry[high]! ^ entryHigh) & 0x000f_ffff) === 0;
      const readable = (faults[row]! & unreadable) === 0;
      return same && readable && (pgd[low]! & 0xfff) === 0 ? SETTLED.mm : SETTLED.corrupt;
    }
    if ((activeMm[low]! | activeMm[high]!) !== 0) return SETTLED.activeMm;
    return (flags[row]! & PF_KTHREAD) !== 0 ? SETTLED.none : SETTLED.exited;
  };
}
