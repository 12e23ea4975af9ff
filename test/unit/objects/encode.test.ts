import { describe, expect, it } from 'vitest';
import type { TypeRef } from '../../../lib/kernel/types/table.js';
import { encode } from '../../../lib/objects/encode.js';

const int = (
  size: number,
  signed: boolean,
  encoding: 'int' | 'bool' | 'char' = 'int',
): TypeRef => ({
  kind: 'int',
  name: `${signed ? 's' : 'u'}${size * 8}`,
  size,
  signed,
  encoding,
});
const colour: TypeRef = {
  kind: 'enum',
  name: 'enum colour',
  size: 4,
  signed: false,
  values: new Map([['GREEN', 7n]]),
};
const pointer: TypeRef = { kind: 'pointer', name: 'void *', size: 8, target: int(4, true) };
const text: TypeRef = {
  kind: 'array',
  name: 'char[8]',
  size: 8,
  count: 8,
  element: int(1, true, 'char'),
};
const none = () => Buffer.alloc(0);
const hexOf = (type: TypeRef, value: unknown) =>
  Buffer.from(encode(type, undefined, value, none)).toString('hex');

describe('encode', () => {
  it.each([
    [int(1, true), -1, 'ff'],
    [int(2, false), 0xabcd, 'cdab'],
    [int(4, true), -2, 'feffffff'],
    [int(8, false), 0x1122334455667788n, '8877665544332211'],
    [int(16, true), -1n, 'ff'.repeat(16)],
    [int(1, false, 'bool'), true, '01'],
    [colour, 'GREEN', '07000000'],
    [colour, 9, '09000000'],
    [pointer, null, '00'.repeat(8)],
    [pointer, { $address: 0xffff888000001000n }, '00100000 8088ffff'.replace(' ', '')],
    [pointer, 16, '1000000000000000'],
    [{ kind: 'float', name: 'double', size: 8 } as TypeRef, 1, '000000000000f03f'],
    [text, 'abc', '6162630000000000'],
    [text, Buffer.from('12345678'), '3132333435363738'],
  ])('%o %o', (type, value, expected) => {
    expect(hexOf(type, value)).toBe(expected);
  });

  it.each([
    [int(1, true), 128, RangeError],
    [int(1, false), -1, RangeError],
    [int(8, false), 1n << 64n, RangeError],
    [int(4, true), 0.5, TypeError],
    [int(4, true), '5', TypeError],
    [int(1, false, 'bool'), 2, RangeError],
    [colour, 'BLUE', TypeError],
    [pointer, {}, TypeError],
    [text, '12345678', RangeError],
    [text, Buffer.alloc(7), RangeError],
    [{ kind: 'float', name: 'double', size: 8 } as TypeRef, 1n, TypeError],
  ])('refuses %o %o', (type, value, error) => {
    expect(() => hexOf(type, value)).toThrow(error);
  });

  it('leaves the neighbours of a bit-field as they are', () => {
    const old = () => Buffer.from([0xff, 0xff]);
    const three = encode(int(4, false), { shift: 6, size: 3 }, 0, old);
    expect(Buffer.from(three).toString('hex')).toBe('3ffe');
    const signed = encode(int(4, true), { shift: 1, size: 2 }, -2, () => Buffer.from([0]));
    expect([...signed]).toEqual([4]);
    expect(() => encode(int(4, true), { shift: 1, size: 2 }, 2, old)).toThrow(RangeError);
  });

  it('writes a structure as its bytes alone', () => {
    const struct = { kind: 'struct', name: 'struct s', size: 4, struct: {} } as unknown as TypeRef;
    expect(hexOf(struct, Buffer.from([1, 2, 3, 4]))).toBe('01020304');
    expect(() => hexOf(struct, { a: 1 })).toThrow(/is written as a Uint8Array of its 4 bytes/);
  });
});
