import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { CorruptError, FaultError, VmiError } from '../../../lib/errors.js';
import { ArrayObject } from '../../../lib/objects/array.js';
import { EnumValue } from '../../../lib/objects/enum-value.js';
import { Pointer } from '../../../lib/objects/pointer.js';
import { StructObject } from '../../../lib/objects/struct-object.js';
import { BtfBuilder } from '../kernel/support/build-btf.js';
import { BASE, MadeMemory, madeObjects } from './support/made-kernel.js';

/** One of every kind of member there is. */
function everyKind() {
  const b = new BtfBuilder();
  const int = b.int('int', 4, 1);
  const u32 = b.int('unsigned int', 4);
  const u64 = b.int('long unsigned int', 8);
  const s64 = b.int('long int', 8, 1);
  const char = b.int('char', 1, 1);
  const short = b.int('short int', 2, 1);
  const bool = b.int('_Bool', 1, 4);
  const wide = b.int('__int128', 16, 1);
  const colour = b.enum('colour', { RED: 0, GREEN: 1, CRIMSON: 0 });
  const pid = b.typedef('pid_t', int);
  const inner = b.struct('inner', 8, [
    { name: 'low', type: u32, bits: 0 },
    { name: 'high', type: u32, bits: 32 },
  ]);
  const unnamed = b.union('', 8, [
    { name: 'either', type: u64, bits: 0 },
    { name: 'or', type: inner, bits: 0 },
  ]);
  const self = 1 + 40;
  const members = [
    { name: 'pid', type: pid, bits: 0 },
    { name: 'flags', type: u32, bits: 32 },
    { name: 'total', type: u64, bits: 64 },
    { name: 'debt', type: s64, bits: 128 },
    { name: 'comm', type: b.array(char, 8), bits: 192 },
    { name: 'small', type: short, bits: 256 },
    { name: 'truth', type: bool, bits: 272 },
    { name: 'colour', type: colour, bits: 288 },
    { name: '', type: unnamed, bits: 320 },
    { name: 'next', type: b.pointer(self), bits: 384 },
    { name: 'nothing', type: b.pointer(self), bits: 448 },
    { name: 'text', type: b.pointer(char), bits: 512 },
    { name: 'call', type: b.pointer(b.raw('', 13, 0, 0)), bits: 576 },
    { name: 'pairs', type: b.array(inner, 2), bits: 640 },
    { name: 'wide', type: wide, bits: 768 },
    { name: 'then', type: u32, bits: 896 },
    { name: 'constructor', type: u32, bits: 928 },
    { name: '__proto__', type: u32, bits: 960 },
    { name: 'table', type: b.pointer(b.pointer(inner)), bits: 1024 },
    { name: 'rest', type: b.array(u32, 0), bits: 1088 },
  ];
  let last = b.pointer(int);
  while (last < self - 1) last = b.pointer(int);
  expect(b.struct('thing', 136, members)).toBe(self);
  const memory = new MadeMemory(4096);
  const { bytes } = memory;
  bytes.writeInt32LE(-7, 0);
  bytes.writeUInt32LE(0xffff_fffe, 4);
  memory.put(8, 0xffff_ffff_ffff_fff1n, -3n);
  bytes.write('a\nb\0zz', 24, 'latin1');
  bytes.writeInt16LE(-2, 32);
  bytes[34] = 1;
  bytes.writeUInt32LE(1, 36);
  memory.put(40, (5n << 32n) | 4n, BASE + 512n, 0n, BASE + 1024n, 0xffff_ffff_8100_0010n);
  memory.put(80, (2n << 32n) | 1n, (4n << 32n) | 3n, 1n, -1n);
  bytes.writeUInt32LE(77, 112);
  bytes.writeUInt32LE(78, 116);
  bytes.writeUInt32LE(79, 120);
  memory.put(128, BASE + 2048n);
  bytes.writeUInt32LE(11, 136);
  bytes.writeUInt32LE(12, 140);
  bytes.writeInt32LE(42, 512);
  bytes.write('hello\0', 1024);
  memory.put(2048, BASE + 3000n, 0n);
  const objects = madeObjects(b, memory, {
    do_it: 0xffff_ffff_8100_0000n,
    end: 0xffff_ffff_8200_0000n,
    one: BASE,
  });
  return { objects, memory, thing: objects.variable('one', 'struct thing') };
}

describe('a structure in guest memory', () => {
  it('has its members as properties, each in the form of its C type', () => {
    const { thing } = everyKind();
    expect(thing).toBeInstanceOf(StructObject);
    expect(thing.pid).toBe(-7);
    expect(thing.flags).toBe(0xffff_fffe);
    expect(thing.total).toBe(0xffff_ffff_ffff_fff1n);
    expect(thing.debt).toBe(-3n);
    expect(thing.comm).toBe('a\\nb');
    expect(thing.small).toBe(-2);
    expect(thing.truth).toBe(true);
    expect(thing.wide).toBe(-(2n ** 64n) + 1n);
    expect(thing.either).toBe((5n << 32n) | 4n);
    expect(thing.or.high).toBe(5);
  });

  it('names the values of enumerations, of several names the first', () => {
    const { thing, objects } = everyKind();
    expect(thing.colour).toBeInstanceOf(EnumValue);
    expect([thing.colour.name, Number(thing.colour), `${thing.colour}`]).toEqual([
      'GREEN',
      1,
      'GREEN',
    ]);
    expect(thing.colour).toBe(thing.colour);
    expect(objects.constant('CRIMSON')).toBe(0n);
    expect(() => objects.constant('PUCE')).toThrow("no enumeration of btf has a 'PUCE'");
  });

  it('follows pointers, and has null for NULL', () => {
    const { thing } = everyKind();
    expect(thing.next.pid).toBe(42);
    expect(thing.next.$address).toBe(BASE + 512n);
    expect(thing.nothing).toBeNull();
    expect(thing.text).toBeInstanceOf(Pointer);
    expect(thing.text.string()).toBe('hello');
    expect(String.fromCharCode(thing.text.at(1))).toBe('e');
    expect(thing.text.add(1).string()).toBe('ello');
    expect(thing.call.symbol).toBe('do_it+0x10');
    expect(thing.table.at(0).$address).toBe(BASE + 3000n);
    expect(thing.table.at(1)).toBeNull();
    expect(() => thing.call.at(0)).toThrow('has no size: cast it first');
  });

  it('has arrays with a length, and flexible ones that are told how long they are', () => {
    const { thing } = everyKind();
    expect(thing.pairs).toBeInstanceOf(ArrayObject);
    expect(thing.pairs.length).toBe(2);
    expect([...thing.pairs].map(({ low }) => low)).toEqual([1, 3]);
    expect(thing.pairs[1].high).toBe(4);
    expect(thing.pairs[2]).toBeUndefined();
    expect(thing.rest.length).toBeUndefined();
    expect(thing.rest[1]).toBe(12);
    expect(() => [...thing.rest]).toThrow('say with take() how many');
    expect([...thing.rest.take(2)]).toEqual([11, 12]);
    expect(thing.rest.take(2).bytes().length).toBe(8);
  });

  it('tells what a kernel lacks from what cannot be read', () => {
    const { thing, objects } = everyKind();
    expect(thing.absent).toBeUndefined();
    expect(thing.$has('absent')).toBe(false);
    expect(() => thing.$member('comn')).toThrow('did you mean comm?');
    const wild = objects.object('thing', 0x10n);
    const error = caught(() => wild.next.pid);
    expect(error).toBeInstanceOf(FaultError);
    expect(error).toMatchObject({ path: 'thing.next', level: 2, address: 0x40n });
    expect((error as Error).message).toBe(
      'cannot read 8 bytes of thing.next at 0x40 (virtual, cr3 0x1000): page not present at pd',
    );
    expect(caught(() => wild.comm)).toMatchObject({ path: 'thing.comm' });
    expect(caught(() => wild.pairs[1].low)).toMatchObject({ path: 'thing.pairs[1].low' });
  });

  it('reaches members whose names are JavaScript words by $member, and spoils nothing', async () => {
    const { thing } = everyKind();
    expect(thing.then).toBeUndefined();
    expect(await thing).toBe(thing);
    expect(thing.constructor.name).toBe('thing');
    expect(thing.$member('then').value).toBe(77);
    expect(thing.$member('constructor').value).toBe(78);
    expect(thing.$member('__proto__').value).toBe(79);
    expect(Object.hasOwn(thing.toJSON(), '__proto__')).toBe(true);
    expect(({} as Record<string, unknown>).pid).toBeUndefined();
  });

  it('computes as C does: casts, sizes, offsets, containers, arithmetic', () => {
    const { thing, objects } = everyKind();
    expect(thing.or.$containerOf('struct thing', 'or').$address).toBe(BASE);
    expect(objects.containerOf(BASE + 24n, 'thing', 'comm').pid).toBe(-7);
    expect(objects.sizeof('struct thing *[3]')).toBe(24);
    expect(objects.sizeof('unsigned long')).toBe(8);
    expect(objects.offsetof('thing', 'or.high')).toBe(44);
    expect(thing.$add(2).$address).toBe(BASE + 272n);
    expect(thing.$perCpu(1).$address).toBe(BASE + 256n);
    expect(thing.$cast('struct inner').high).toBe(0xffff_fffe);
    expect([...thing.$cast('unsigned long[2]')].length).toBe(2);
  });

  it('does not change once it is a snapshot', () => {
    const { thing, memory } = everyKind();
    const copy = thing.$snapshot();
    memory.bytes.writeInt32LE(1, 0);
    memory.bytes.writeInt32LE(43, 512);
    expect([thing.pid, copy.pid]).toEqual([1, -7]);
    expect(copy.next.pid).toBe(43);
    expect(copy.or.low).toBe(4);
  });

  it('prints one level, reads no more than it shows, and never throws', () => {
    const { thing, memory, objects } = everyKind();
    memory.asked = 0;
    const text = inspect(thing);
    expect(text.split('\n').slice(0, 4)).toEqual([
      `struct thing at 0x${BASE.toString(16)} <one> {`,
      '  pid_t pid = -7',
      '  unsigned int flags = 4294967294',
      '  long unsigned int total = 18446744073709551601',
    ]);
    expect(text).toContain('char comm[8] = "a\\nb"');
    expect(text).toContain('char *text = 0xffff888000000400 <one+0x400> "hello"');
    expect(text).toContain('enum colour colour = GREEN');
    expect(memory.asked).toBeLessThan(600);
    expect(inspect(objects.object('thing', 0x10n))).toContain('pid_t pid = <cannot read 4 bytes');
  });
});

describe('types that lie', () => {
  it('does not nest for ever', () => {
    const b = new BtfBuilder();
    b.struct('loop', 8, [{ name: '', type: 1, bits: 0 }]);
    const objects = madeObjects(b, new MadeMemory(64));
    expect(() => objects.object('loop', BASE)).toThrow(CorruptError);
  });

  it('is none of what cannot be a type', () => {
    const objects = madeObjects(everyTypeName(), new MadeMemory(64));
    for (const name of ['', 'struct', 'int int', '*', 'a-b', 'x'.repeat(300), 'int['.repeat(9)]) {
      expect(() => objects.sizeof(name), name).toThrow(VmiError);
    }
    expect(objects.object('int **', BASE)).toBeNull();
    expect(objects.sizeof('char[2][3]')).toBe(6);
  });
});

function everyTypeName(): BtfBuilder {
  const b = new BtfBuilder();
  b.struct('s', 8, []);
  return b;
}

function caught(work: () => unknown): unknown {
  try {
    work();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}
