import type { NativeRows, Plan } from '../../../types/addon.js';
import { planColumns } from '../native-plan.js';

/** Rows are no larger: a guest can make a list as long as its memory allows. */
const MAX_ROW_BYTES = 1 << 30;

/** Reads virtual memory; returns the bytes read. */
type Read = (address: bigint, into: Uint8Array) => number;

/** How rows lie in one buffer with room for `capacity`. native/core/gather/plan.h, RowLayout. */
function layoutOf(columns: Int32Array, capacity: number) {
  const align = (bytes: number) => (bytes + 7) & ~7;
  const bases = align(4 * capacity);
  let total = bases + 8 * capacity;
  const starts: number[] = [];
  for (let k = 0; k < columns.length; k += 3) {
    const start = align(total);
    starts.push(start);
    total = start + columns[k + 2]! * capacity;
  }
  return { bases, starts, total };
}

/** Most rows of a plan, however long a list is. */
export function mostRows(plan: Plan): number {
  return Math.floor(MAX_ROW_BYTES / layoutOf(planColumns(plan), 1).total);
}

/** As many rows of a plan as a buffer has room for. */
function capacityOf(columns: Int32Array, bytes: number): number {
  let count = Math.floor(bytes / (layoutOf(columns, 1).total - 7 * (columns.length / 3 + 1)));
  while (count > 0 && layoutOf(columns, count).total > bytes) count--;
  return count;
}

/**
 * Gathers a row at each base: masks of faults, bases, then column by column. What hangs on a NULL
 * pointer is zero; what cannot be read is zero, and has its bit in the row's mask.
 */
export function gather(
  read: Read,
  plan: Plan,
  bases: BigUint64Array,
  into: Uint8Array,
  capacity = bases.length,
): void {
  const columns = planColumns(plan);
  const layout = layoutOf(columns, capacity);
  const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
  bases.forEach((base, row) => {
    let faults = 0;
    layout.starts.forEach((start, k) => {
      const [from, offset, size] = columns.subarray(k * 3, k * 3 + 3) as unknown as number[];
      const cell = into.subarray(start + row * size!, start + (row + 1) * size!);
      const pointer = from! < 0 ? base : view.getBigUint64(layout.starts[from!]! + row * 8, true);
      cell.fill(0);
      if (from! >= 0 && pointer === 0n) return;
      if (read(BigInt.asUintN(64, pointer + BigInt(offset!)), cell) === size) return;
      cell.fill(0);
      faults |= 1 << k;
    });
    view.setUint32(row * 4, faults >>> 0, true);
    view.setBigUint64(layout.bases + row * 8, base, true);
  });
}

/** Rows of a walk, in the caller's buffer where they fit there. */
export function rowsOf(
  read: Read,
  plan: Plan,
  bases: BigUint64Array,
  walk: Pick<NativeRows, 'counts' | 'retries'>,
  into: Uint8Array | undefined,
): NativeRows {
  const columns = planColumns(plan);
  const fits = into === undefined ? 0 : capacityOf(columns, into.length);
  const own = into === undefined || fits < bases.length;
  const capacity = own ? bases.length : fits;
  const target = own ? new Uint8Array(layoutOf(columns, capacity).total) : into;
  gather(read, plan, bases, target, capacity);
  const buffer = own ? (target.buffer as ArrayBuffer) : undefined;
  return { count: bases.length, capacity, buffer, ...walk };
}
