import { describe, expect, it } from 'vitest';
import { addon } from '../../lib/addon.js';
import { ADDRESSES, expectMisuse, NUMBERS } from './support/misuse.js';
import { DIRECT_MAP, IMAGE, Ram, thrownBy, withEachSource } from './support/ram.js';

// As XArray lays its nodes out: tag 2 in the low two bits, 64 slots. include/linux/xarray.h
const SHIFT_OFFSET = 0;
const SLOTS_OFFSET = 0x28;
const TREE = Int32Array.of(2, 3, 4096, SHIFT_OFFSET, SLOTS_OFFSET, 6, 30);
const HEAD = DIRECT_MAP + 0x8000n;

/** Writes node `number`; `slots`: slot → value. Returns what points to it. */
function node(ram: Ram, number: number, shift: number, slots: Record<number, bigint>): bigint {
  const at = 0x9000 + number * 0x400;
  ram.put(at + SHIFT_OFFSET, Buffer.of(shift));
  for (const [slot, value] of Object.entries(slots))
    ram.put64(at + SLOTS_OFFSET + Number(slot) * 8, value);
  return DIRECT_MAP + BigInt(at) + 2n;
}

function makeRam(): Ram {
  const ram = new Ram(0x20000);
  ram.mapDirect();
  return ram;
}

describe('AddressSpace.lookUp', () => {
  it('finds entries at every depth', () => {
    using ram = makeRam();
    withEachSource(ram, (memory, source) => {
      const space = ram.space(memory);
      ram.put64(0x8000, 0n);
      expect(space.lookUp(TREE, HEAD, 0), source).toBe(0n);
      expect(space.lookUp(TREE, HEAD, 1)).toBe(0n);
      // No node: the head is entry 0.
      ram.put64(0x8000, DIRECT_MAP + 0x100n);
      expect(space.lookUp(TREE, HEAD, 0)).toBe(DIRECT_MAP + 0x100n);
      expect(space.lookUp(TREE, HEAD, 1)).toBe(0n);
      const leaf = node(ram, 1, 0, { 0: DIRECT_MAP + 0x200n, 63: DIRECT_MAP + 0x300n });
      ram.put64(0x8000, leaf);
      expect(space.lookUp(TREE, HEAD, 0)).toBe(DIRECT_MAP + 0x200n);
      expect(space.lookUp(TREE, HEAD, 63)).toBe(DIRECT_MAP + 0x300n);
      expect(space.lookUp(TREE, HEAD, 62)).toBe(0n);
      expect(space.lookUp(TREE, HEAD, 64)).toBe(0n);
      expect(space.lookUp(TREE, HEAD, 0x7fffffff)).toBe(0n);
      ram.put64(0x8000, node(ram, 2, 12, { 5: node(ram, 3, 6, { 1: leaf }) }));
      expect(space.lookUp(TREE, HEAD, (5 << 12) | (1 << 6) | 63)).toBe(DIRECT_MAP + 0x300n);
      expect(space.lookUp(TREE, HEAD, (5 << 12) | (2 << 6) | 63)).toBe(0n);
      expect(space.lookUp(TREE, HEAD, 4 << 12)).toBe(0n);
    });
  });

  it('ends on trees that make no sense', () => {
    using ram = makeRam();
    withEachSource(ram, (memory) => {
      const space = ram.space(memory);
      for (const shift of [3, 36, 255]) {
        ram.put64(0x8000, node(ram, 1, shift, {}));
        expect(thrownBy(() => space.lookUp(TREE, HEAD, 1))).toMatchObject({ code: 'VMI_CORRUPT' });
      }
      // A node in itself, and an entry above the lowest level.
      const loop = DIRECT_MAP + 0x9802n;
      ram.put64(0x8000, node(ram, 2, 30, { 0: loop, 1: DIRECT_MAP }));
      expect(space.lookUp(TREE, HEAD, 0)).toBe(loop);
      expect(thrownBy(() => space.lookUp(TREE, HEAD, 1 << 30)).code).toBe('VMI_CORRUPT');
      // A pointer to nowhere.
      ram.put64(0x8000, node(ram, 1, 6, { 0: IMAGE + 2n }));
      expect(thrownBy(() => space.lookUp(TREE, HEAD, 1))).toMatchObject({ code: 'VMI_FAULT' });
      expect(thrownBy(() => space.lookUp(TREE, IMAGE, 1))).toMatchObject({
        code: 'VMI_FAULT',
        address: IMAGE,
      });
    });
  });

  it('refuses what cannot be meant', () => {
    using ram = makeRam();
    const memory = ram.open();
    const space = ram.space(memory);
    expectMisuse((value) => space.lookUp(value, HEAD, 0), []);
    expectMisuse((value) => space.lookUp(TREE, value, 0), ADDRESSES);
    expectMisuse((value) => space.lookUp(TREE, HEAD, value), NUMBERS);
    for (const [at, value] of [
      [0, -1],
      [3, 1 << 21],
      [5, 0],
      [5, 17],
      [6, 64],
    ] as const) {
      const tree = TREE.slice();
      tree[at] = value;
      expect(() => space.lookUp(tree, HEAD, 0)).toThrow(RangeError);
    }
    expect(() => space.lookUp(TREE.subarray(1), HEAD, 0)).toThrow(RangeError);
    expect(() => space.lookUp(TREE, HEAD, 2 ** 31)).toThrow(RangeError);
    memory.close();
    expect(() => space.lookUp(TREE, HEAD, 0)).toThrow(
      expect.objectContaining({ code: 'VMI_CLOSED' }),
    );
  });
});

describe('AddressSpace.finder', () => {
  const PLAN = [-1, 0, 8, -1, 8, 4, 0, 0, 8] as const;
  // Row: 0 fault mask, 8 base, 16, 24 and 32 the columns.
  const read = (row: ArrayBuffer) => {
    const view = new DataView(row);
    return [
      view.getUint32(0, true),
      ...[8, 16].map((at) => view.getBigUint64(at, true)),
      view.getUint32(24, true),
      view.getBigUint64(32, true),
    ];
  };

  it('gathers the plan at what it finds, as it is at each call', () => {
    using ram = makeRam();
    withEachSource(ram, (memory, source) => {
      const space = ram.space(memory);
      ram.put64(
        0x8000,
        node(ram, 0, 0, { 3: DIRECT_MAP + 0x4000n, 4: 0n, 5: DIRECT_MAP + 0x4100n }),
      );
      ram.put64(0x4000, DIRECT_MAP + 0x5000n);
      ram.put64(0x4008, 77n);
      ram.put64(0x5000, 0x1234n);
      ram.put64(0x4100, 0n);
      ram.put64(0x4108, 78n);
      const { find, row } = space.finder(TREE, HEAD, new (addon().Plan)(Int32Array.from(PLAN)));
      expect(find(3), source).toBe(1);
      expect(read(row)).toEqual([0, DIRECT_MAP + 0x4000n, DIRECT_MAP + 0x5000n, 77, 0x1234n]);
      expect(find(4)).toBe(0);
      expect(find(64)).toBe(0);
      expect(find(5)).toBe(1);
      expect(read(row)).toEqual([0, DIRECT_MAP + 0x4100n, 0n, 78, 0n]);
      // A pointer that leads nowhere, and a page that is mapped elsewhere by now.
      ram.put64(0x4000, DIRECT_MAP + 0x40_0000n);
      expect(find(3)).toBe(1);
      expect(read(row)).toEqual([4, DIRECT_MAP + 0x4000n, DIRECT_MAP + 0x40_0000n, 77, 0n]);
      ram.put64(0x4000, IMAGE + 0x8n);
      ram.put64(0x6008, 0x55n);
      ram.map(IMAGE, 0x6000n);
      expect(find(3)).toBe(1);
      expect(read(row).at(-1)).toBe(0x55n);
      ram.put64(0x7008, 0x66n);
      ram.map(IMAGE, 0x7000n);
      expect(find(3)).toBe(1);
      expect(read(row).at(-1)).toBe(0x66n);
    });
  });

  it('leaves the row alone where the entry is tagged, and throws what lookUp throws', () => {
    using ram = makeRam();
    withEachSource(ram, (memory) => {
      const space = ram.space(memory);
      ram.put64(0x4000, 0n);
      ram.put64(0x8000, node(ram, 0, 0, { 3: DIRECT_MAP + 0x4000n, 4: (256n << 2n) | 2n }));
      const { find, row } = space.finder(TREE, HEAD, new (addon().Plan)(Int32Array.from(PLAN)));
      expect(find(3)).toBe(1);
      const before = read(row);
      expect(find(4)).toBe(2);
      expect(read(row)).toEqual(before);
      ram.put64(0x8000, node(ram, 0, 7, {}));
      expect(thrownBy(() => find(3))).toMatchObject({ code: 'VMI_CORRUPT' });
      ram.put64(0x8000, DIRECT_MAP + 0x40_0002n);
      expect(thrownBy(() => find(3))).toMatchObject({ code: 'VMI_FAULT' });
      expect(read(row)).toEqual(before);
    });
  });

  it('is refused what cannot be meant, and ends with the memory', () => {
    using ram = makeRam();
    const memory = ram.open();
    const space = ram.space(memory);
    const plan = new (addon().Plan)(Int32Array.from(PLAN));
    expectMisuse((value) => space.finder(value, HEAD, plan), []);
    expectMisuse((value) => space.finder(TREE, value, plan), ADDRESSES);
    expectMisuse((value) => space.finder(TREE, HEAD, value), []);
    expect(() => space.finder(TREE.subarray(1), HEAD, plan)).toThrow(RangeError);
    const { find, row } = space.finder(TREE, HEAD, plan);
    expectMisuse((value) => find(value), NUMBERS);
    expect(() => find(2 ** 31)).toThrow(RangeError);
    expect(() => find(-1)).toThrow(RangeError);
    memory.close();
    expect(() => find(0)).toThrow(expect.objectContaining({ code: 'VMI_CLOSED' }));
    expect(row.byteLength).toBe(40);
  });

  it('keeps its bytes when JavaScript wants to give them away', () => {
    using ram = makeRam();
    ram.put64(0x8000, node(ram, 0, 0, { 3: DIRECT_MAP + 0x4000n }));
    ram.put64(0x4000, 0n);
    withEachSource(ram, (memory) => {
      const { find, row } = ram
        .space(memory)
        .finder(TREE, HEAD, new (addon().Plan)(Int32Array.from(PLAN)));
      // Node 20 copies memory that is not its own, later ones refuse.
      try {
        structuredClone(row, { transfer: [row] });
      } catch (error) {
        expect(error).toHaveProperty('name', 'DataCloneError');
      }
      expect(find(3)).toBe(1);
      expect(read(row)[1]).toBe(DIRECT_MAP + 0x4000n);
    });
  });

  it('outlives the objects it was made from, as its row outlives it', () => {
    using ram = makeRam();
    ram.put64(0x8000, node(ram, 0, 0, { 3: DIRECT_MAP + 0x4000n }));
    ram.put64(0x4000, 0n);
    const memory = ram.open();
    const make = () =>
      ram.space(memory).finder(TREE, HEAD, new (addon().Plan)(Int32Array.from(PLAN)));
    const rows: ArrayBuffer[] = [];
    for (let i = 0; i < 200; i++) {
      const { find, row } = make();
      if (i % 50 === 0) globalThis.gc?.();
      expect(find(3)).toBe(1);
      rows.push(row);
    }
    globalThis.gc?.();
    for (const row of rows) expect(read(row)[1]).toBe(DIRECT_MAP + 0x4000n);
    memory.close();
  });
});
