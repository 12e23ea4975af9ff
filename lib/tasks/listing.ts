import { CorruptError, hex } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import type { CpuLook } from './cpus.js';
import { type Cr3Source, PTI_USER_BIT, pgdToCr3 } from './cr3.js';
import type { Misfit } from './salvage.js';
import { CR3_SOURCES, SETTLED, type Settlement, settle } from './settle.js';
import { ESSENTIAL_FAULTS, type TaskRows } from './task-members.js';
import type { TaskReaders } from './task-readers.js';
import { type MachineSpace, MachineSpaces } from './xen-spaces.js';

/** Whether the guest ran while it was read. */
export type Consistency = 'live' | 'paused' | 'static';

/** What is known of the rows of a {@link Listing} beside their columns. */
export interface ListingFacts {
  /** Times that rows or links were read again because the guest changed under the walk. */
  readonly retries?: number;
  /** Rows of tasks that are known to have left. */
  readonly left?: readonly number[];
  /** What did not fit, where the rows were put together from lists that do not close. */
  readonly misfits?: readonly Misfit[];
  /** The CPUs, where the rows are those of its tasks. */
  readonly look?: CpuLook;
}

/** Task rows with every address space settled by the table of {@link Cr3Source}. */
export class Listing {
  readonly kernel: Kernel;
  readonly rows: TaskRows;
  readonly mode: Consistency;
  /** Times that rows or links were read again because the guest changed under the walk. */
  readonly retries: number;
  /** How each row was settled, by index into {@link CR3_SOURCES}. */
  readonly settled: Uint8Array;
  /** Rows that may hold something else than nearly all do. See {@link Settlement.unexpected}. */
  readonly unexpected: Uint32Array;
  readonly misfits: readonly Misfit[];
  readonly #settlement: Settlement;
  /** By PGD, for guests whose page tables hold machine addresses. */
  readonly #machine = new Map<bigint, MachineSpace>();

  constructor(readers: TaskReaders, rows: TaskRows, facts: ListingFacts = {}) {
    const { kernel } = readers;
    this.kernel = kernel;
    this.rows = rows;
    this.mode = modeOf(kernel);
    this.#settlement = settle(readers, rows, facts.look);
    this.misfits = facts.misfits ?? [];
    this.retries = (facts.retries ?? 0) + this.#settlement.retries;
    this.settled = this.#settlement.settled;
    this.unexpected = this.#settlement.unexpected;
    for (const row of facts.left ?? []) this.settled[row] = SETTLED.gone;
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
        return this.#settlement.foreignPgds.get(row)!;
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
    return this.#settlement.nsPids.get(row) ?? [this.rows.words('pid')[row]!];
  }

  /**
   * Page tables translate page by page, so it is done while the rows are fresh, once for all who
   * share one.
   */
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
    const task = rows.bases[row]!;
    const hasSpace = rows.longs('mm')[row] !== 0n || rows.longs('activeMm')[row] !== 0n;
    if ((rows.faults[row]! & ESSENTIAL_FAULTS) !== 0 || !hasSpace)
      return new CorruptError(`the task at ${hex(task)} cannot be read`, task);
    const mm = rows.longs('mm')[row]! || rows.longs('activeMm')[row]!;
    return new CorruptError(
      `task ${rows.words('pid')[row]} at ${hex(task)} names an address space (mm ${hex(mm)}) whose page table does not map the kernel's text`,
      task,
    );
  }
}

function modeOf(kernel: Kernel): Consistency {
  const { live, held } = kernel.memory.physical;
  if (!live) return 'static';
  return held ? 'paused' : 'live';
}
