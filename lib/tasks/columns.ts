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
 * copies, in one piece of memory: the rows are where the next listing's will be.
 */
export function toColumns(listing: Listing): TaskColumns {
  const { rows, mode } = listing;
  const keep = listing.kept();
  const count = keep?.length ?? rows.count;
  // Not cleared: every byte is written.
  const bytes = Buffer.allocUnsafeSlow(count * ROW_LENGTH).buffer as ArrayBuffer;
  let end = 0;
  const room = <T extends Column>(type: ColumnType<T>): T => {
    const column = new type(bytes, end, count);
    end += column.byteLength;
    return column;
  };
  const fill = <T extends Column>(column: T, from: T): T => {
    if (keep === undefined) column.set(from as Uint32Array & BigUint64Array);
    else for (const [i, row] of keep.entries()) column[i] = from[row]!;
    return column;
  };
  // The longest elements first, so that all are aligned.
  const longs = (column: BigUint64Array) => fill(room(BigUint64Array), column);
  const words = (column: Uint32Array) => fill(room(Uint32Array), column);
  const cr3 = room(BigUint64Array);
  if (keep === undefined) writeCr3s(listing, cr3);
  else fill(cr3, writeCr3s(listing, new BigUint64Array(rows.count)));
  return {
    count,
    mode,
    retries: listing.retries,
    misfits: listing.misfits,
    cr3,
    startTime: longs(rows.longs('startTime')),
    task: longs(rows.bases),
    mm: longs(rows.longs('mm')),
    activeMm: longs(rows.longs('activeMm')),
    pid: words(rows.words('pid')),
    tgid: words(rows.words('tgid')),
    ppid: words(withUnreadable(listing, 'ppid', 'parent')),
    uid: words(withUnreadable(listing, 'uid', 'cred')),
    flags: words(rows.words('flags')),
    cr3Source: fill(room(Uint8Array), listing.settled),
  };
}

type Column = Uint32Array | BigUint64Array | Uint8Array;
type ColumnType<T> = new (buffer: ArrayBuffer, offset: number, length: number) => T;

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
  const { rows, kernel, settled, unexpected } = listing;
  const answer = (row: number) => {
    const source = settled[row]!;
    column[row] = source >= SETTLED.mm && source <= SETTLED.thread ? listing.cr3(row)! : 0n;
  };
  if (kernel.p2m !== undefined) {
    for (let row = 0; row < column.length; row++) answer(row);
    return column;
  }
  const pgd = rows.longs('pgd');
  const { pageOffset } = kernel;
  // Cut to 64 bits in the same expression, it makes no bigint.
  for (let row = 0; row < column.length; row++)
    column[row] = BigInt.asUintN(64, pgd[row]! - pageOffset);
  unexpected.forEach(answer);
  return column;
}
