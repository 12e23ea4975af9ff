import { describe, expect, it } from 'vitest';
import { CorruptError, FaultError, VmiError } from '../../../lib/errors.js';
import { bitmap } from '../../../lib/objects/bitmap.js';
import { hlist, hlistNulls, llist } from '../../../lib/objects/hlist.js';
import { list } from '../../../lib/objects/list.js';
import { mapleTree } from '../../../lib/objects/maple-tree.js';
import { rbtree } from '../../../lib/objects/rbtree.js';
import type { StructObject } from '../../../lib/objects/struct-object.js';
import { idr, xarray } from '../../../lib/objects/xarray.js';
import { BtfBuilder } from '../kernel/support/build-btf.js';
import { BASE, MadeMemory, madeObjects } from './support/made-kernel.js';

/** A structure of 64 bytes that can be in everything: its number, then links at 8. */
function made() {
  const b = new BtfBuilder();
  const u64 = b.int('long unsigned int', 8);
  const u8 = b.int('unsigned char', 1);
  const nothing = b.pointer(0);
  const at = (name: string, type: number, bits: number) => ({ name, type, bits });
  // A structure that points to itself comes right behind the pointer: types are numbered in order.
  const self = (
    name: string,
    members: (pointer: number) => ReturnType<typeof at>[],
    size: number,
  ) => {
    const pointer = b.pointer(b.pointer(0) + 2);
    return b.struct(name, size, members(pointer));
  };
  const links = self('list_head', (p) => [at('next', p, 0), at('prev', p, 64)], 16);
  const hnode = self('hlist_node', (p) => [at('next', p, 0), at('pprev', nothing, 64)], 16);
  const first = b.pointer(hnode);
  b.struct('hlist_head', 8, [at('first', first, 0)]);
  const lnode = self('llist_node', (p) => [at('next', p, 0)], 8);
  b.struct('llist_head', 8, [at('first', b.pointer(lnode), 0)]);
  const rb = self(
    'rb_node',
    (p) => [at('__rb_parent_color', u64, 0), at('rb_right', p, 64), at('rb_left', p, 128)],
    24,
  );
  const root = b.struct('rb_root', 8, [at('rb_node', b.pointer(rb), 0)]);
  b.struct('rb_root_cached', 16, [at('rb_root', root, 0), at('rb_leftmost', nothing, 64)]);
  const xa = b.struct('xarray', 8, [at('xa_head', nothing, 0)]);
  const slots = b.array(nothing, 64);
  self(
    'xa_node',
    (p) => [at('shift', u8, 0), at('parent', p, 64), at('slots', slots, 128)],
    16 + 512,
  );
  const u32 = b.int('unsigned int', 4);
  b.struct('idr', 16, [at('idr_rt', xa, 0), at('idr_base', u32, 64)]);
  b.struct('maple_tree', 8, [at('ma_root', nothing, 0)]);
  const range = (name: string, count: number) =>
    b.struct(name, 256, [
      at('parent', nothing, 0),
      at('pivot', b.array(u64, count - 1), 64),
      at('slot', b.array(nothing, count), 64 * count),
    ]);
  const mr64 = range('maple_range_64', 16);
  const ma64 = range('maple_arange_64', 10);
  const maple = b.union('', 256, [
    at('parent', nothing, 0),
    at('mr64', mr64, 0),
    at('ma64', ma64, 0),
  ]);
  b.struct('maple_node', 256, [at('', maple, 0)]);
  b.struct('thing', 64, [
    at('number', u64, 0),
    at('link', links, 64),
    at('hash', hnode, 64),
    at('lock', lnode, 64),
    at('tree', rb, 64),
  ]);
  b.struct('words', 16, [at('word', b.array(u64, 2), 0)]);
  const memory = new MadeMemory(0x4000);
  const objects = madeObjects(b, memory);
  for (let i = 0; i < 16; i++) memory.put(0x1000 + i * 64, BigInt(i));
  return { memory, objects, link: (i: number) => BASE + 0x1008n + BigInt(i) * 64n };
}

const numbers = (things: Iterable<StructObject>) =>
  Array.from(things, ({ number }) => Number(number));

describe('a list', () => {
  function circle(count: number) {
    const { memory, objects, link } = made();
    const all = [BASE, ...Array.from({ length: count }, (_, i) => link(i))];
    for (const [i, at] of all.entries()) {
      const next = all[(i + 1) % all.length]!;
      memory.put(Number(at - BASE), next);
      memory.put(Number(next - BASE) + 8, at);
    }
    return {
      memory,
      link,
      walk: (max?: number) => list(objects.object('list_head', BASE), 'thing', 'link', max),
    };
  }

  it('is walked in its order, and may be empty', () => {
    expect(numbers(circle(5).walk())).toEqual([0, 1, 2, 3, 4]);
    expect(numbers(circle(0).walk())).toEqual([]);
  });

  it('ends where it is none: a cycle, a wild pointer, NULL, too many', () => {
    const cycle = circle(5);
    cycle.memory.put(Number(cycle.link(4) - BASE), cycle.link(2));
    expect(() => numbers(cycle.walk())).toThrow(CorruptError);
    const wild = circle(5);
    wild.memory.put(Number(wild.link(2) - BASE), 0xdead_0000_0000_0100n);
    expect(() => numbers(wild.walk())).toThrow('is broken: cannot read');
    const empty = circle(3);
    empty.memory.put(0, 0n);
    expect(() => numbers(empty.walk())).toThrow('leads to NULL, which leads back to NULL');
    expect(() => numbers(circle(9).walk(5))).toThrow('has more than 5 nodes');
  });

  it('steps back from a node that was taken off while it was looked at', () => {
    const { memory, link, walk } = circle(4);
    const seen: number[] = [];
    for (const thing of walk()) {
      seen.push(Number(thing.number));
      if (thing.number !== 1n) continue;
      // list_del_rcu: the neighbours know each other, and the node's prev is poison.
      memory.put(Number(link(0) - BASE), link(2));
      memory.put(Number(link(2) - BASE) + 8, link(0));
      memory.put(Number(link(1) - BASE) + 8, 0xdead_0000_0000_0122n);
    }
    expect(seen).toEqual([0, 1, 2, 3]);
  });
});

describe('a hash chain and a lock-less list', () => {
  it('are walked, and end where they lead back', () => {
    const { memory, objects, link } = made();
    memory.put(0, link(3));
    memory.put(Number(link(3) - BASE), link(1), BASE);
    memory.put(Number(link(1) - BASE), 0n, link(3));
    const chain = () => numbers(hlist(objects.object('hlist_head', BASE), 'thing', 'hash'));
    expect(chain()).toEqual([3, 1]);
    const nulls = objects.object('hlist_head', BASE);
    memory.put(Number(link(1) - BASE), 7n);
    expect(numbers(hlistNulls(nulls, 'thing', 'hash'))).toEqual([3, 1]);
    memory.put(Number(link(1) - BASE), link(3));
    expect(chain).toThrow('whose pprev is');
    const loose = () => numbers(llist(objects.object('llist_head', BASE), 'thing', 'lock'));
    expect(loose).toThrow('twice');
    memory.put(Number(link(1) - BASE), 0n);
    expect(loose()).toEqual([3, 1]);
  });
});

describe('a red-black tree', () => {
  /** 1 is the root, 0 its left and 2 its right child. */
  function three() {
    const { memory, objects, link } = made();
    memory.put(0, link(1));
    memory.put(Number(link(1) - BASE), 1n, link(2), link(0));
    memory.put(Number(link(0) - BASE), link(1) | 1n, 0n, 0n);
    memory.put(Number(link(2) - BASE), link(1), 0n, 0n);
    return { memory, objects, link };
  }

  it('is walked in order, cached root or not', () => {
    const { objects } = three();
    expect(numbers(rbtree(objects.object('rb_root', BASE), 'thing', 'tree'))).toEqual([0, 1, 2]);
    const cached = objects.object('rb_root_cached', BASE);
    expect(numbers(rbtree(cached, 'thing', 'tree'))).toEqual([0, 1, 2]);
  });

  it('ends where it is none', () => {
    const loop = three();
    loop.memory.put(Number(loop.link(2) - BASE) + 8, loop.link(1));
    const walk = ({ objects }: ReturnType<typeof three>, max?: number) =>
      numbers(rbtree(objects.object('rb_root', BASE), 'thing', 'tree', max));
    expect(() => walk(loop)).toThrow('whose parent is');
    const wild = three();
    wild.memory.put(Number(wild.link(0) - BASE) + 16, 0x10n);
    expect(() => walk(wild)).toThrow(FaultError);
    expect(() => walk(three(), 2)).toThrow('more than 2');
  });
});

describe('an XArray', () => {
  const NODE = 0x2000;
  function two() {
    const { memory, objects } = made();
    const [top, below] = [BASE + BigInt(NODE), BASE + BigInt(NODE) + 0x400n];
    memory.put(0, top | 2n);
    memory.bytes[NODE] = 6;
    memory.put(NODE + 16 + 8, below | 2n);
    memory.bytes[NODE + 0x400] = 0;
    memory.put(NODE + 0x408, top);
    // An entry, a sibling of it, a value, an entry that is to be read again.
    memory.put(NODE + 0x410, 0x1000n, 2n, (9n << 1n) | 1n, (256n << 2n) | 2n);
    return { memory, objects, top };
  }

  it('has pointers and values by their index', () => {
    const { objects, memory } = two();
    const entries = [...xarray(objects.object('xarray', BASE))];
    expect(entries).toEqual([
      { index: 64n, pointer: 0x1000n, value: undefined },
      { index: 66n, pointer: undefined, value: 9n },
    ]);
    memory.put(8, 5n);
    expect([...idr(objects.object('idr', BASE))].map(({ index }) => index)).toEqual([69n, 71n]);
    memory.put(0, 0x2000n);
    expect([...xarray(objects.object('xarray', BASE))]).toMatchObject([{ index: 0n }]);
  });

  it('ends where it is none', () => {
    const walk = ({ objects }: ReturnType<typeof two>, max?: number) =>
      [...xarray(objects.object('xarray', BASE), max)].length;
    const loop = two();
    loop.memory.put(NODE + 0x410, loop.top | 2n);
    expect(() => walk(loop)).toThrow(CorruptError);
    const shift = two();
    shift.memory.bytes[NODE + 0x400] = 6;
    expect(() => walk(shift)).toThrow('has the shift 6 below 6');
    const odd = two();
    odd.memory.bytes[NODE] = 7;
    expect(() => walk(odd)).toThrow('has the shift 7');
    expect(() => walk(two(), 1)).toThrow('more than 1');
  });
});

describe('a maple tree', () => {
  const TOP = 0x2000;
  const LEAF = 0x2100;
  const most = (1n << 64n) - 1n;
  /** An inner node (maple_arange_64) of two slots, of which only the first leads to a leaf. */
  function two() {
    const { memory, objects } = made();
    memory.put(0, (BASE + BigInt(TOP)) | (3n << 3n) | 2n);
    memory.put(TOP, BASE | 1n, 0xfffn);
    memory.put(TOP + 80, (BASE + BigInt(LEAF)) | (1n << 3n) | 4n);
    memory.put(LEAF, (BASE + BigInt(TOP)) | 6n, 0x0fn, 0x1fn, 0xfffn);
    memory.put(LEAF + 128, 0n, 0x7000n, 0n);
    return { memory, objects };
  }
  const walk = ({ objects }: ReturnType<typeof two>) => [
    ...mapleTree(objects.object('maple_tree', BASE)),
  ];

  it('has the ranges that hold something', () => {
    expect(walk(two())).toEqual([{ first: 0x10n, last: 0x1fn, pointer: 0x7000n }]);
    const single = two();
    single.memory.put(0, 0x7000n);
    expect(walk(single)).toEqual([{ first: 0n, last: 0n, pointer: 0x7000n }]);
    single.memory.put(0, 0n);
    expect(walk(single)).toEqual([]);
  });

  it('ends where it is none', () => {
    const loop = two();
    loop.memory.put(TOP + 80, (BASE + BigInt(TOP)) | (3n << 3n));
    expect(() => walk(loop)).toThrow('has the parent');
    const kind = two();
    kind.memory.put(TOP + 80, (BASE + BigInt(LEAF)) | (9n << 3n));
    expect(() => walk(kind)).toThrow('is of the type 9');
    const back = two();
    back.memory.put(LEAF + 16, 0x5n);
    expect(() => walk(back)).toThrow('has the pivot 0x5 between 0x10 and 0xfff');
    const beyond = two();
    beyond.memory.put(LEAF + 24, most);
    expect(() => walk(beyond)).toThrow('has the pivot');
  });
});

describe('a bitmap', () => {
  it('has the numbers of its bits, as many as are asked for', () => {
    const { memory, objects } = made();
    memory.put(0, 0x8000_0000_0000_0005n, 2n);
    const words = objects.object('unsigned long[2]', BASE);
    expect([...bitmap(words)]).toEqual([0, 2, 63, 65]);
    expect([...bitmap(words, 64)]).toEqual([0, 2, 63]);
    const flexible = objects.object('unsigned long[]', BASE);
    expect(() => [...bitmap(flexible)]).toThrow(VmiError);
    expect([...bitmap(flexible, 3)]).toEqual([0, 2]);
  });
});
