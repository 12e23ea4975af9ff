import { describe, expect, it } from 'vitest';
import { addon } from '../../lib/addon.js';
import type { AddressSpace, NativeRows } from '../../types/addon.js';
import { BYTES, expectMisuse, NUMBERS, WORDS } from './support/misuse.js';
import { bytesOf, DIRECT_MAP, IMAGE, Ram, TOP, thrownBy, withEachSource } from './support/ram.js';

const LINK = 0x40;
const HEADS = 0x40000n;
const NODES = 0x50000n;
const node = (index: number) => DIRECT_MAP + NODES + BigInt(index * 0x100 + LINK);
const head = (index: number) => DIRECT_MAP + HEADS + BigInt(index * 16);
const physical = (address: bigint) => address - DIRECT_MAP;

/** Links `nodes` behind `from`, both ways; each node's number is at its start. */
function link(ram: Ram, from: bigint, nodes: bigint[]): void {
  const ring = [from, ...nodes];
  ring.forEach((address, index) => {
    const next = ring[(index + 1) % ring.length]!;
    const previous = ring[(index + ring.length - 1) % ring.length]!;
    ram.put(physical(address), bytesOf(next, previous));
    if (index > 0) ram.put64(physical(address) - BigInt(LINK), BigInt(index));
  });
}

function makeRam(): Ram {
  const ram = new Ram(0x100000);
  ram.mapDirect();
  return ram;
}

const plan = () => new (addon().Plan)(Int32Array.of(-1, 0, 8, -1, LINK, 8));

function columns(
  rows: NativeRows,
  into?: Uint8Array<ArrayBuffer>,
): { masks: number[]; bases: bigint[]; numbers: bigint[] } {
  const { buffer = into!.buffer, count, capacity } = rows;
  const start = Math.ceil((capacity * 4) / 8) * 8;
  return {
    masks: [...new Uint32Array(buffer, 0, count)],
    bases: [...new BigUint64Array(buffer, start, count)],
    numbers: [...new BigUint64Array(buffer, start + capacity * 8, count)],
  };
}

/**
 * A walker of its own for each walk, unless a test wants the second one to start from the first.
 */
const walkerIn = (space: AddressSpace, of = plan(), at = LINK) =>
  new (addon().ListWalker)(space, of, at);

describe('ListWalker.walk', () => {
  it.each([0, 1, 2, 300, 700])('walks a list of %i', (count) => {
    using ram = makeRam();
    // Not in the order of their addresses.
    const nodes = Array.from({ length: count }, (_, i) =>
      node((i * 37) % (count + (count % 37 === 0 ? 1 : 0) || 1)),
    );
    const unique = [...new Set(nodes)];
    link(ram, head(0), unique);
    withEachSource(ram, (memory, source) => {
      const space = ram.space(memory);
      const rows = walkerIn(space).walk(BigUint64Array.of(head(0)), 1000);
      expect(rows.count, source).toBe(unique.length);
      expect(rows.retries).toBe(0);
      expect([...rows.counts]).toEqual([unique.length]);
      const { masks, bases, numbers } = columns(rows);
      expect(bases).toEqual(unique.map((address) => address - BigInt(LINK)));
      expect(numbers).toEqual(unique.map((_, index) => BigInt(index + 1)));
      expect(masks.every((mask) => mask === 0)).toBe(true);
    });
  });

  it('walks many lists in one call', () => {
    using ram = makeRam();
    link(ram, head(0), [node(1), node(2)]);
    link(ram, head(1), []);
    link(ram, head(2), [node(5)]);
    withEachSource(ram, (memory) => {
      const rows = walkerIn(ram.space(memory)).walk(
        BigUint64Array.of(head(2), head(1), head(0)),
        3,
      );
      expect([...rows.counts]).toEqual([1, 0, 2]);
      expect(columns(rows).bases).toEqual([5, 1, 2].map((index) => node(index) - BigInt(LINK)));
      expect(walkerIn(ram.space(memory)).walk(new BigUint64Array(0), 3)).toEqual({
        count: 0,
        capacity: 0,
        buffer: new ArrayBuffer(0),
        counts: new Uint32Array(0),
        retries: 0,
      });
    });
  });

  it('fills what it is given, if there is room', () => {
    using ram = makeRam();
    link(ram, head(0), [node(3), node(1), node(2)]);
    // A mask of 4 bytes, a base and two columns of 8; parts start at multiples of 8.
    const bytes = (rows: number) => Math.ceil((rows * 4) / 8) * 8 + rows * 24;
    withEachSource(ram, (memory) => {
      const space = ram.space(memory);
      const walker = walkerIn(space);
      const walk = (into?: Uint8Array) => walker.walk(BigUint64Array.of(head(0)), 10, into);
      const expected = columns(walk());
      for (const [rows, extra] of [
        [3, 0],
        [3, 7],
        [4, 0],
        [9, 3],
      ] as const) {
        const into = new Uint8Array(new ArrayBuffer(bytes(rows) + extra)).fill(0xee);
        // Twice: the second walk starts from the first.
        for (let i = 0; i < 2; i++) {
          const found = walk(into);
          expect(found).toMatchObject({ count: 3, capacity: rows, buffer: undefined });
          expect(columns(found, into)).toEqual(expected);
        }
        expect([...into.subarray(bytes(rows))]).toEqual(new Array(extra).fill(0xee));
      }
      for (const length of [0, 1, bytes(2), bytes(3) - 1]) {
        const into = new Uint8Array(length).fill(0xee);
        const found = walk(into);
        expect(found).toMatchObject({ count: 3, capacity: 3 });
        expect(columns(found)).toEqual(expected);
      }
      expect(() => walk('into' as never)).toThrow(/^Expected into /);
    });
  });

  it('follows a list whose tail is being added or taken out', () => {
    using ram = makeRam();
    link(ram, head(0), [node(1), node(2), node(3)]);
    ram.put64(physical(head(0)) + 8n, node(2));
    withEachSource(ram, (memory) => {
      const rows = walkerIn(ram.space(memory)).walk(BigUint64Array.of(head(0)), 10);
      expect(rows.count).toBe(3);
      expect(rows.retries).toBeGreaterThan(0);
    });
  });

  it('gives up on more rows than it may give', () => {
    using ram = makeRam();
    link(
      ram,
      head(0),
      Array.from({ length: 10 }, (_, i) => node(i)),
    );
    withEachSource(ram, (memory) => {
      const space = ram.space(memory);
      expect(walkerIn(space).walk(BigUint64Array.of(head(0)), 10).count).toBe(10);
      expect(thrownBy(() => walkerIn(space).walk(BigUint64Array.of(head(0)), 9))).toMatchObject({
        code: 'VMI_CORRUPT',
        message: 'the lists have more than 9 nodes',
        address: node(9),
        found: 9,
      });
    });
  });

  it.each<[string, bigint]>([
    ['NULL', 0n],
    ['user space', 0x7f0000001000n],
    ['LIST_POISON1', 0xdead000000000100n],
    ['an odd address', node(3) + 1n],
    ['itself', node(2)],
    ['the node before it', node(1)],
    ['the first node', node(0)],
    ['an address that is not mapped', IMAGE],
    ['an address outside RAM', DIRECT_MAP + 0x180000n],
    ['another list', node(20)],
    ['the head of another list', head(1)],
    ['the last address', TOP],
  ])('finds a pointer to %s', (_, pointer) => {
    using ram = makeRam();
    link(ram, head(0), [node(0), node(1), node(2), node(3)]);
    link(ram, head(1), [node(19), node(20), node(21)]);
    ram.put64(physical(node(2)), pointer);
    withEachSource(ram, (memory) => {
      const space = ram.space(memory);
      for (const heads of [[head(0)], [head(1), head(0)], [head(0), head(1)]]) {
        const error = thrownBy(() => walkerIn(space).walk(BigUint64Array.from(heads), 100));
        expect(error.code).toBe('VMI_CORRUPT');
        expect([node(2), pointer]).toContain(error.address);
        expect(error.found).toBe(heads[0] === head(1) ? 6 : 3);
        expect(error.message).toMatch(/^the list at 0xffff888000040000 is broken after 3 nodes: /);
      }
    });
  });

  it('refuses heads that are no kernel addresses, and the same head twice', () => {
    using ram = makeRam();
    link(ram, head(0), [node(0)]);
    withEachSource(ram, (memory) => {
      const space = ram.space(memory);
      const walk = (...heads: bigint[]) =>
        thrownBy(() => walkerIn(space).walk(BigUint64Array.from(heads), 9));
      expect(walk(0n)).toMatchObject({ code: 'VMI_CORRUPT', address: 0n, found: 0 });
      expect(walk(head(0) + 4n)).toMatchObject({ code: 'VMI_CORRUPT' });
      expect(walk(head(0), head(0))).toMatchObject({ code: 'VMI_CORRUPT', address: head(0) });
      expect(walk(IMAGE)).toMatchObject({
        code: 'VMI_FAULT',
        address: IMAGE,
        level: 4,
        requested: 16,
      });
    });
  });

  it('refuses wrong types', () => {
    using ram = makeRam();
    const memory = ram.open();
    const space = ram.space(memory);
    const none = new BigUint64Array(0);
    const { ListWalker, Plan } = addon();
    expectMisuse((value) => new ListWalker(value, plan(), LINK), []);
    expectMisuse((value) => new ListWalker(space, value, LINK), []);
    expectMisuse((value) => new ListWalker(space, plan(), value), NUMBERS);
    expectMisuse((value) => walkerIn(space).walk(value, 1), WORDS);
    expectMisuse((value) => walkerIn(space).walk(none, value), NUMBERS);
    expectMisuse((value) => walkerIn(space).walk(none, 1, value), [...BYTES, 'undefined']);
    const many = (count: number) =>
      new Plan(Int32Array.from(Array.from({ length: count }, () => [-1, 0, 8]).flat()));
    expect(new ListWalker(space, many(31), 0)).toBeInstanceOf(ListWalker);
    expect(thrownBy(() => new ListWalker(space, many(32), 0))).toMatchObject({
      name: 'RangeError',
      message: 'Expected a plan of at most 31 columns but received 32',
    });
    memory.close();
  });
});
