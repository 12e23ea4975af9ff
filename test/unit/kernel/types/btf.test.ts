import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { VmiError } from '../../../../lib/errors.js';
import { Btf } from '../../../../lib/kernel/types/btf.js';
import { parseBtfHeader } from '../../../../lib/kernel/types/btf-sections.js';
import { BtfBuilder, kernelBtf } from '../support/build-btf.js';

function sample(): Btf {
  const b = new BtfBuilder();
  const int = b.int('int', 4, 1);
  const bool = b.int('_Bool', 1, 4);
  const char = b.int('char', 1, 1);
  const long = b.int('unsigned long', 8);
  const pid = b.typedef('pid_t', int);
  const constPid = b.modifier(10, b.modifier(9, pid));
  const comm = b.array(char, 16);
  const upid = b.struct('upid', 16, [
    { name: 'nr', type: int, bits: 0 },
    { name: 'ns', type: b.pointer(0), bits: 64 },
  ]);
  const inner = b.struct('', 16, [
    { name: 'first', type: long, bits: 0 },
    { name: 'second', type: constPid, bits: 64 },
  ]);
  const union = b.union('', 16, [
    { name: '', type: inner, bits: 0 },
    { name: 'whole', type: b.array(long, 2), bits: 0 },
  ]);
  const state = b.enum('state', { RUNNING: 0, DEAD: -1 });
  const numbers = b.array(upid, 3);
  const self = b.pointer(18);
  b.raw('fwd', 7, 0, 0);
  // type 18
  b.struct('thing', 128, [
    { name: 'comm', type: comm, bits: 0 },
    { name: '', type: union, bits: 128 },
    { name: 'numbers', type: numbers, bits: 256 },
    { name: 'state', type: state, bits: 640 },
    { name: 'next', type: self, bits: 704 },
    { name: 'flag', type: int, bits: 768, bitSize: 1 },
    { name: 'rest', type: int, bits: 769, bitSize: 31 },
    { name: 'on', type: bool, bits: 800 },
  ]);
  b.typedef('thing_t', 18);
  b.raw('a_function', 12, 1, 2);
  b.raw('', 13, 2, 1, [0, 1, 0, 2]);
  b.raw('variable', 14, 0, 1, [1]);
  b.raw('.data', 15, 1, 8, [19, 0, 8]);
  b.raw('float', 16, 0, 4);
  b.raw('a_tag', 17, 0, 18, [0xffff_ffff]);
  b.raw('a_type_tag', 18, 0, 1);
  b.raw('wide', 19, 1, 8, [b.string('HUGE'), 1, 0xffff_ffff], true);
  b.struct('last', 8, [{ name: 'member', type: long, bits: 0 }]);
  return new Btf(b.build());
}

describe('a BTF', () => {
  const btf = sample();

  it('skips every kind and finds what is behind them', () => {
    expect(btf.findOffset('last', 'member')).toBe(0);
    expect([...btf.names()]).toEqual(['upid', 'thing', 'last']);
  });

  it('gives offsets, also in unnamed members, nested structures and arrays', () => {
    expect(btf.offset('thing', 'comm')).toBe(0);
    expect(btf.offset('thing', 'first')).toBe(16);
    expect(btf.offset('thing', 'second')).toBe(24);
    expect(btf.offset('struct thing', 'whole')).toBe(16);
    expect(btf.offset('thing', 'numbers')).toBe(32);
    expect(btf.offset('thing', 'numbers[1].nr')).toBe(48);
    expect(btf.offset('thing_t', 'next')).toBe(88);
    expect(btf.findOffset('thing', 'numbers[3].nr')).toBeUndefined();
    expect(btf.findOffset('thing', 'comm.nr')).toBeUndefined();
    expect(btf.findOffset('thing', '')).toBeUndefined();
    expect(btf.findOffset('thing', 'a..b')).toBeUndefined();
    expect(btf.findOffset('nothing', 'a')).toBeUndefined();
    expect(btf.findOffset('union thing', 'comm')).toBeUndefined();
  });

  it('gives sizes of every kind', () => {
    for (const [name, size] of [
      ['thing', 128],
      ['pid_t', 4],
      ['unsigned long', 8],
      ['enum state', 4],
      ['float', 4],
      ['thing_t', 128],
    ] as const)
      expect(btf.size(name)).toBe(size);
    expect(btf.findSize('absent')).toBeUndefined();
  });

  it('describes members', () => {
    const thing = btf.struct('thing');
    expect(thing).toMatchObject({ name: 'thing', kind: 'struct', size: 128 });
    expect(thing.members.map((member) => member.name)).toEqual([
      'comm',
      '',
      'numbers',
      'state',
      'next',
      'flag',
      'rest',
      'on',
    ]);
    expect(thing.member('comm')).toMatchObject({
      size: 16,
      type: {
        kind: 'array',
        count: 16,
        name: 'char[16]',
        element: { kind: 'int', encoding: 'char', signed: true },
      },
    });
    expect(thing.member('second').type).toMatchObject({
      kind: 'int',
      name: 'pid_t',
      size: 4,
      signed: true,
    });
    expect(thing.member('flag')).toMatchObject({ offset: 96, bitOffset: 768, bitSize: 1 });
    expect(thing.member('rest')).toMatchObject({ offset: 96, bitOffset: 769, bitSize: 31 });
    expect(thing.member('on').type).toMatchObject({ kind: 'int', encoding: 'bool' });
    expect(thing.member('numbers[2].ns').type).toMatchObject({
      kind: 'pointer',
      name: 'void *',
      target: { kind: 'void' },
    });
    const next = thing.member('next').type;
    expect(next).toMatchObject({ kind: 'pointer', name: 'struct thing *', size: 8 });
    expect(next.kind === 'pointer' && next.target.kind === 'struct' && next.target.struct).toBe(
      thing,
    );
    const state = thing.member('state').type;
    expect(state.kind === 'enum' && [...state.values]).toEqual([
      ['RUNNING', 0n],
      ['DEAD', -1n],
    ]);
    expect(btf.findType('enum wide')).toMatchObject({
      kind: 'enum',
      size: 8,
      values: new Map([['HUGE', BigInt.asIntN(64, 0xffff_ffff_0000_0001n)]]),
    });
  });

  it('says what is absent, and what is like it', () => {
    expect(() => btf.struct('thign')).toThrow(
      expect.objectContaining({
        code: 'VMI_TYPE',
        message: "no type 'thign' in btf; did you mean thing?",
      }),
    );
    expect(() => btf.offset('thing', 'cmm')).toThrow(
      "struct thing has no member 'cmm'; did you mean comm?",
    );
    expect(() => btf.offset('thing', 'comm.x')).toThrow(
      "struct thing has a member 'comm', but no 'comm.x'",
    );
    expect(() => btf.size('qqqq')).toThrow("no type 'qqqq' in btf");
  });

  it('gives one offset, however it is asked', () => {
    const kernel = new Btf(kernelBtf());
    for (const name of kernel.names()) {
      for (const member of kernel.struct(name).members) {
        if (member.name !== '') expect(kernel.findOffset(name, member.name)).toBe(member.offset);
      }
    }
    expect(kernel.offset('mm_struct', 'pgd')).toBe(120);
  });
});

describe('a broken BTF', () => {
  const change = (edit: (bytes: Buffer) => void): Buffer => {
    const bytes = kernelBtf();
    edit(bytes);
    return bytes;
  };
  const message = (text: string) => expect.objectContaining({ code: 'VMI_CORRUPT', message: text });

  it('is told by its header', () => {
    expect(parseBtfHeader(Buffer.alloc(10))).toBeUndefined();
    for (const edit of [
      (bytes: Buffer) => bytes.writeUInt16LE(0xeb00, 0),
      (bytes: Buffer) => bytes.writeUInt32LE(8, 4),
      (bytes: Buffer) => bytes.writeUInt32LE(0xffff_ffff, 12),
      (bytes: Buffer) => bytes.writeUInt32LE(0, 20),
    ]) {
      expect(() => new Btf(change(edit))).toThrow(message('btf: broken BTF: no header'));
    }
    const short = kernelBtf();
    expect(() => new Btf(short.subarray(0, 100))).toThrow(
      message(`btf: broken BTF: the header claims ${short.length} bytes of 100`),
    );
    expect(() => new Btf(change((bytes) => bytes.writeUInt8(1, bytes.length - 1)))).toThrow(
      message('btf: broken BTF: the strings do not start and end with NUL'),
    );
  });

  it('is told by unknown kinds and members beyond the end', () => {
    expect(() => new Btf(change((bytes) => bytes.writeUInt32LE(31 << 24, 28)))).toThrow(
      message('btf: broken BTF: type 1 has the unknown kind 31'),
    );
    const b = new BtfBuilder();
    b.raw('short', 4, 1000, 8);
    expect(() => new Btf(b.build())).toThrow(
      message('btf: broken BTF: type 1 goes beyond the end of the types'),
    );
  });

  it('does not follow circles', () => {
    const b = new BtfBuilder();
    b.typedef('loop', 2);
    b.modifier(10, 1);
    b.array(3, 2);
    b.struct('circle', 8, [{ name: '', type: 4, bits: 0 }]);
    b.struct('bad', 8, [{ name: 'typedef', type: 1, bits: 0 }]);
    b.struct('worse', 8, [{ name: 'array', type: 3, bits: 0 }]);
    b.struct('beyond', 8, [{ name: 'x', type: 999, bits: 0 }]);
    b.struct('unnamed', 8, [{ name: '', type: 999, bits: 0 }]);
    const btf = new Btf(b.build());
    expect(() => btf.findSize('loop')).toThrow(message('btf: broken BTF: type 1 refers to itself'));
    expect(() => btf.findOffset('circle', 'x')).toThrow(
      message('btf: broken BTF: type 4 nests for ever'),
    );
    expect(() => btf.struct('circle').member('x')).toThrow(message('struct circle nests for ever'));
    expect(() => btf.struct('bad').members).toThrow(
      message('btf: broken BTF: type 1 refers to itself'),
    );
    expect(() => btf.struct('worse').members).toThrow(
      message('btf: broken BTF: type 3 refers to itself'),
    );
    expect(() => btf.struct('beyond').members).toThrow(
      message('btf: broken BTF: a reference to type 999 of 8'),
    );
    expect(() => btf.findOffset('unnamed', 'x')).toThrow(
      message('btf: broken BTF: a reference to type 999 of 8'),
    );
  });

  it('does not read names beyond the strings', () => {
    const b = new BtfBuilder();
    b.raw(0x00ff_ffff, 4, 1, 8, [0x00ff_fff0, 0, 0]);
    b.typedef('t', 1);
    const btf = new Btf(b.build());
    expect(() => [...btf.names()]).toThrow(
      message('btf: broken BTF: a name at 0xffffff, beyond the end of the strings'),
    );
    expect(btf.findOffset('t', 'x')).toBeUndefined();
  });

  it('never does worse than an error with a code', () => {
    const whole = kernelBtf();
    fc.assert(
      fc.property(
        fc.array(
          fc.tuple(fc.integer({ min: 0, max: whole.length - 1 }), fc.integer({ min: 0, max: 255 })),
          {
            minLength: 1,
            maxLength: 6,
          },
        ),
        fc.integer({ min: 0, max: whole.length }),
        (changes, cut) => {
          const bytes = Buffer.from(whole);
          for (const [at, value] of changes) bytes[at] = value;
          try {
            const btf = new Btf(cut % 3 === 0 ? bytes.subarray(0, cut) : bytes);
            btf.findOffset('task_struct', 'comm');
            btf.findOffset('mm_struct', 'pgd');
            for (const name of btf.names()) {
              const struct = btf.find(name);
              for (const member of struct?.members ?? []) String([member.type.name, member.size]);
              struct?.findMember('a.b[3].c');
            }
          } catch (error) {
            expect(error).toBeInstanceOf(VmiError);
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});
