import { type Listing, SETTLED } from './listing.js';
import { FAULT, type TaskRows } from './rows.js';
import type { Consistency } from './tasks.js';

/** In a column: what no PID and no user id is. include/linux/uidgid.h, INVALID_UID. */
export const UNREADABLE = 0xffff_ffff;

/**
 * A listing as typed columns, one element a task, for tools that take thousands of tasks at a time: no object and no
 * bigint is made per task. The columns are the caller's to keep and to change.
 */
export interface TaskColumns {
  readonly count: number;
  readonly mode: Consistency;
  /** Times that links or rows were read again because the guest changed under the walk. */
  readonly retries: number;
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

/** Makes the columns of a listing, without the tasks that left while they were read. */
export function toColumns(listing: Listing, mode: Consistency): TaskColumns {
  const { rows } = listing;
  const keep = listing.kept();
  const words = (column: 'pid' | 'tgid' | 'flags') => pick(rows.words(column), keep);
  const followed = (column: 'ppid' | 'uid', pointer: 'parent' | 'cred') =>
    pick(withUnreadable(rows, column, pointer), keep);
  const longs = (column: 'startTime' | 'mm' | 'activeMm') => pick(rows.longs(column), keep);
  return {
    count: keep?.length ?? rows.count,
    mode,
    retries: listing.retries,
    pid: words('pid'),
    tgid: words('tgid'),
    ppid: followed('ppid', 'parent'),
    uid: followed('uid', 'cred'),
    flags: words('flags'),
    startTime: longs('startTime'),
    task: pick(rows.bases, keep),
    mm: longs('mm'),
    activeMm: longs('activeMm'),
    cr3: pick(cr3Column(listing), keep),
    cr3Source: pick(listing.settled, keep),
  };
}

/** Marks the rows whose pointer is NULL or leads nowhere: both read as zero. */
function withUnreadable(rows: TaskRows, column: 'ppid' | 'uid', pointer: 'parent' | 'cred'): Uint32Array {
  const values = rows.words(column);
  const pointers = rows.words(pointer);
  const { faults, count } = rows;
  const mask = FAULT[column] | FAULT[pointer];
  for (let row = 0; row < count; row++) {
    if (values[row] !== 0) continue;
    if ((faults[row]! & mask) !== 0 || (pointers[2 * row]! | pointers[2 * row + 1]!) === 0)
      values[row] = UNREADABLE;
  }
  return values;
}

/** PGDs lie in the direct map: their physical address is a subtraction, done on 32-bit halves (but in a PV guest of Xen). */
function cr3Column(listing: Listing): BigUint64Array {
  const { rows, kernel, settled } = listing;
  const column = new BigUint64Array(rows.count);
  const halves = new Uint32Array(column.buffer);
  const pgd = rows.words('pgd');
  const offsetLow = Number(kernel.pageOffset & 0xffff_ffffn);
  const offsetHigh = Number(kernel.pageOffset >> 32n) | 0;
  const endHigh = Number(kernel.memory.physical.end >> 32n);
  const linear = kernel.p2m === undefined;
  for (let row = 0; row < rows.count; row++) {
    const source = settled[row]!;
    if (source === SETTLED.mm && linear) {
      // Cut to 32 bits, all of it stays in integers.
      const borrow = pgd[2 * row]! < offsetLow ? 1 : 0;
      const high = (pgd[2 * row + 1]! - offsetHigh - borrow) | 0;
      if (high >= 0 && high <= endHigh) {
        halves[2 * row] = (pgd[2 * row]! - offsetLow) | 0;
        halves[2 * row + 1] = high;
        continue;
      }
    }
    if (source >= SETTLED.mm && source <= SETTLED.thread) column[row] = listing.cr3(row)!;
  }
  return column;
}

function pick<T extends Uint32Array | BigUint64Array | Uint8Array>(
  column: T,
  keep: readonly number[] | undefined,
): T {
  if (keep === undefined) return column;
  const Column = column.constructor as new (length: number) => T;
  const picked = new Column(keep.length);
  for (const [i, row] of keep.entries()) picked[i] = column[row]!;
  return picked;
}
