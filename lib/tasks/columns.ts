import type { Consistency, Listing } from './listing.js';
import type { Misfit } from './salvage.js';
import { SETTLED } from './settle.js';
import { faultBits } from './task-members.js';

/** In a column: what no PID and no user id is. include/linux/uidgid.h, INVALID_UID. */
export const UNREADABLE = 0xffff_ffff;

/**
 * A listing as typed columns, one element a task, for tools that take thousands of tasks at a time:
 * no object and no bigint is made per task. The columns are the caller's to keep and to change.
 */
export interface TaskColumns {
  readonly count: number;
  readonly mode: Consistency;
  /** Times that links or rows were read again because the guest changed under the walk. */
  readonly retries: number;
  /** As {@link TaskList.misfits}. */
  readonly misfits: readonly Misfit[];
  readonly pid: Uint32Array;
  readonly tgid: Uint32Array;
  /** {@link UNREADABLE} where it cannot be read. */
  readonly ppid: Uint32Array;
  /** {@link UNREADABLE} where it cannot be read. */
  readonly uid: Uint32Array;
  /** `task_struct.flags` (PF_…). */
  readonly flags: Uint32Array;
  /** Monotonic start time, nanoseconds since boot. */
  readonly startTime: BigUint64Array;
  /** Addresses of the `task_struct`, its `mm` and its `active_mm`; 0 is the kernel's NULL. */
  readonly task: BigUint64Array;
  readonly mm: BigUint64Array;
  readonly activeMm: BigUint64Array;
  /** What CR3 holds while the task runs; 0 where `cr3Source` is `none`, `exited` or `corrupt`. */
  readonly cr3: BigUint64Array;
  /** Indexes into {@link CR3_SOURCES}. */
  readonly cr3Source: Uint8Array;
}

/** Bytes of one task in all columns. */
const ROW_LENGTH = 5 * 8 + 5 * 4 + 1;

/**
 * Makes the columns of a listing, without the tasks that left while they were read. They are
 * copies: the rows are where the next listing's will be.
 */
export function toColumns(listing: Listing): TaskColumns {
  const { rows, mode } = listing;
  const copies = new Copies(listing);
  // The longest elements first, so that all are aligned.
  return {
    count: copies.count,
    mode,
    retries: listing.retries,
    misfits: listing.misfits,
    cr3: copies.cr3s(),
    startTime: copies.longs(rows.longs('startTime')),
    task: copies.longs(rows.bases),
    mm: copies.longs(rows.longs('mm')),
    activeMm: copies.longs(rows.longs('activeMm')),
    pid: copies.words(rows.words('pid')),
    tgid: copies.words(rows.words('tgid')),
    ppid: copies.words(withUnreadable(listing, 'ppid', 'parent')),
    uid: copies.words(withUnreadable(listing, 'uid', 'cred')),
    flags: copies.words(rows.words('flags')),
    cr3Source: copies.bytes(listing.settled),
  };
}

type Column = Uint32Array | BigUint64Array | Uint8Array;

/** Copies columns of a listing, without the tasks that left, into one piece of memory. */
class Copies {
  readonly count: number;
  readonly #listing: Listing;
  readonly #keep: readonly number[] | undefined;
  readonly #buffer: ArrayBuffer;
  #end = 0;

  constructor(listing: Listing) {
    this.#listing = listing;
    this.#keep = listing.kept();
    this.count = this.#keep?.length ?? listing.rows.count;
    // Not cleared: every byte is written.
    this.#buffer = Buffer.allocUnsafeSlow(this.count * ROW_LENGTH).buffer as ArrayBuffer;
  }

  longs(from: BigUint64Array): BigUint64Array {
    return this.#fill(new BigUint64Array(this.#buffer, this.#end, this.count), from);
  }

  words(from: Uint32Array): Uint32Array {
    return this.#fill(new Uint32Array(this.#buffer, this.#end, this.count), from);
  }

  bytes(from: Uint8Array): Uint8Array {
    return this.#fill(new Uint8Array(this.#buffer, this.#end, this.count), from);
  }

  cr3s(): BigUint64Array {
    const listing = this.#listing;
    if (this.#keep !== undefined)
      return this.longs(writeCr3s(listing, new BigUint64Array(listing.rows.count)));
    const column = new BigUint64Array(this.#buffer, this.#end, this.count);
    this.#end += column.byteLength;
    return writeCr3s(listing, column);
  }

  #fill<T extends Column>(column: T, from: T): T {
    this.#end += column.byteLength;
    if (this.#keep === undefined) column.set(from as Uint32Array & BigUint64Array);
    else for (const [i, row] of this.#keep.entries()) column[i] = from[row]!;
    return column;
  }
}

/** Marks the rows whose pointer is NULL or leads nowhere: both read as zero. */
function withUnreadable(
  { rows, unexpected }: Listing,
  column: 'ppid' | 'uid',
  pointer: 'parent' | 'cred',
): Uint32Array {
  const values = rows.words(column);
  const pointers = rows.words(pointer);
  const { faults } = rows;
  const mask = faultBits(column, pointer);
  for (const row of unexpected) {
    if (values[row] !== 0) continue;
    if ((faults[row]! & mask) !== 0 || (pointers[2 * row]! | pointers[2 * row + 1]!) === 0)
      values[row] = UNREADABLE;
  }
  return values;
}

/**
 * What CR3 holds. PGDs lie in the direct map (but in a PV guest of Xen): their physical address is
 * a subtraction.
 */
function writeCr3s(listing: Listing, column: BigUint64Array): BigUint64Array {
  const { rows, kernel, unexpected } = listing;
  if (kernel.p2m !== undefined) {
    for (let row = 0; row < column.length; row++) column[row] = cr3Of(listing, row);
    return column;
  }
  const pgd = rows.longs('pgd');
  const { pageOffset } = kernel;
  // Cut to 64 bits in the same expression, it makes no bigint.
  for (let row = 0; row < column.length; row++)
    column[row] = BigInt.asUintN(64, pgd[row]! - pageOffset);
  for (const row of unexpected) column[row] = cr3Of(listing, row);
  return column;
}

/** 0 where there is none, and where the row's address space is none. */
function cr3Of(listing: Listing, row: number): bigint {
  const source = listing.settled[row]!;
  return source >= SETTLED.mm && source <= SETTLED.thread ? listing.cr3(row)! : 0n;
}
