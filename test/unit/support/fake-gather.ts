import type { NativeRows } from '../../../types/addon.js';
import type { FakeAddressSpace } from './fake-memory.js';

/** The native plan: triples (from, offset, size), and what nearly every row holds. */
export class FakePlan {
  readonly columns: Int32Array;
  readonly expectations: BigUint64Array;

  constructor(columns: Int32Array, expectations = new BigUint64Array()) {
    this.columns = columns;
    this.expectations = expectations;
  }

  get count(): number {
    return this.columns.length / 3;
  }

  /**
   * Where each column starts in a buffer for `capacity` rows, and the end. types/addon.d.ts,
   * NativeRows.
   */
  starts(capacity: number): number[] {
    let at = align8(4 * capacity) + 8 * capacity;
    const starts = [at];
    for (let k = 0; k < this.count; k++) {
      at = align8(at + this.columns[3 * k + 2]! * capacity);
      starts.push(at);
    }
    return starts;
  }

  unexpected(rows: Uint8Array, capacity: number, count: number, into: Uint32Array): number {
    const view = new DataView(rows.buffer, rows.byteOffset, rows.byteLength);
    const starts = this.starts(capacity);
    let found = 0;
    for (let row = 0; row < count; row++) {
      let strange = view.getUint32(4 * row, true) !== 0;
      for (let e = 0; e < this.expectations.length; e += 4) {
        const k = Number(this.expectations[e]);
        const size = this.columns[3 * k + 2]!;
        const at = starts[k]! + size * row;
        const value = size === 4 ? BigInt(view.getUint32(at, true)) : view.getBigUint64(at, true);
        const masked = value & this.expectations[e + 1]!;
        if (masked < this.expectations[e + 2]! || masked > this.expectations[e + 3]!)
          strange = true;
      }
      if (strange) into[found++] = row;
    }
    return found;
  }
}

function align8(bytes: number): number {
  return (bytes + 7) & ~7;
}

/** Fills `into` with a row for each base, column by column. */
export function gather(
  space: FakeAddressSpace,
  plan: FakePlan,
  bases: BigUint64Array,
  into: Uint8Array,
): void {
  const count = bases.length;
  const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
  const starts = plan.starts(count);
  into.fill(0);
  for (const [row, base] of bases.entries()) {
    view.setBigUint64(align8(4 * count) + 8 * row, base, true);
    let faults = 0;
    for (let k = 0; k < plan.count; k++) {
      const [from, offset, size] = [0, 1, 2].map((i) => plan.columns[3 * k + i]!) as [
        number,
        number,
        number,
      ];
      const pointer =
        from < 0
          ? base
          : view.getBigUint64(starts[from]! + plan.columns[3 * from + 2]! * row, true);
      if (from >= 0 && pointer === 0n) {
        if ((faults >>> from) & 1) faults |= 1 << k;
        continue;
      }
      const bytes = Buffer.alloc(size);
      const address = BigInt.asUintN(64, pointer + BigInt(offset));
      if (space.read(address, bytes) < size) faults |= 1 << k;
      else into.set(bytes, starts[k]! + size * row);
    }
    view.setUint32(4 * row, faults >>> 0, true);
  }
}

/** Walks lists whose back pointers agree; a list that does not close is VMI_CORRUPT. */
export function lists(
  space: FakeAddressSpace,
  plan: FakePlan,
  heads: BigUint64Array,
  link: number,
  max: number,
): NativeRows {
  const bases: bigint[] = [];
  const counts = new Uint32Array(heads.length);
  for (const [i, head] of heads.entries()) {
    let at = head;
    for (;;) {
      const next = space.readU64(at);
      if (space.readU64(next + 8n) !== at || bases.length > max)
        throw Object.assign(new Error('the list does not close'), {
          code: 'VMI_CORRUPT',
          address: at,
          found: bases.length,
        });
      if (next === head) break;
      bases.push(BigInt.asUintN(64, next - BigInt(link)));
      counts[i]!++;
      at = next;
    }
  }
  const count = bases.length;
  const bytes = new Uint8Array(plan.starts(count).at(-1)!);
  gather(space, plan, BigUint64Array.from(bases), bytes);
  return { count, capacity: count, buffer: bytes.buffer, counts, retries: 0 };
}

/** Entry `index` of a radix tree; see types/addon.d.ts, lookUp. */
export function lookUp(
  space: FakeAddressSpace,
  tree: Int32Array,
  head: bigint,
  index: number,
): bigint {
  const [tag, tagMask, maxInternal, shiftAt, slotsAt, chunk] = [...tree].map(BigInt) as bigint[];
  const isNode = (entry: bigint) => (entry & tagMask!) === tag && entry > maxInternal!;
  let entry = space.readU64(head);
  if (!isNode(entry)) return index === 0 ? entry : 0n;
  const shiftOf = (node: bigint) => Number(space.readU64(node + shiftAt!) & 0xffn);
  const top = shiftOf(entry - tag!) + Number(chunk);
  if (top < 32 && index >>> top !== 0) return 0n;
  for (;;) {
    const node = entry - tag!;
    const shift = shiftOf(node);
    const slot = (BigInt(index) >> BigInt(shift)) & ((1n << chunk!) - 1n);
    entry = space.readU64(node + slotsAt! + 8n * slot);
    if (shift === 0 || !isNode(entry)) return entry;
  }
}
