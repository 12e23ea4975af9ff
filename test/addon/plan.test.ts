import { describe, expect, it } from 'vitest';
import { addon } from '../../lib/addon.js';
import { BYTES, expectMisuse } from './support/misuse.js';
import { thrownBy } from './support/ram.js';

const plan = (...columns: number[]) => new (addon().Plan)(Int32Array.from(columns));

describe('Plan', () => {
  it('takes 1 to 32 columns', () => {
    expect(plan(-1, 0, 1)).toBeInstanceOf(addon().Plan);
    expect(plan(-1, -2147483648, 4096, -1, 2147483647, 4096)).toBeInstanceOf(addon().Plan);
    const many = Array.from({ length: 32 }, (_, k) => [k - 1, 0, 8]).flat();
    expect(plan(...many)).toBeInstanceOf(addon().Plan);
    expect(thrownBy(() => plan(...many, -1, 0, 8))).toBeInstanceOf(RangeError);
  });

  it('copies the columns', () => {
    const columns = Int32Array.of(-1, 0, 8);
    const made = new (addon().Plan)(columns);
    columns.fill(99);
    expect(made).toBeInstanceOf(addon().Plan);
  });

  it.each<[string, number[]]>([
    ['no columns', []],
    ['part of a triple', [-1, 0]],
    ['a size of 0', [-1, 0, 0]],
    ['a negative size', [-1, 0, -8]],
    ['a size beyond 4,096', [-1, 0, 4097]],
    ['a column from itself', [0, 0, 8]],
    ['a column from a later one', [-1, 0, 8, 2, 0, 8, -1, 0, 8]],
    ['a column from -2', [-2, 0, 8]],
    ['a column from one that is no pointer', [-1, 0, 4, 0, 0, 8]],
  ])('refuses %s', (_, columns) => {
    const error = thrownBy(() => plan(...columns));
    expect(error).toBeInstanceOf(RangeError);
    expect(error.message).toMatch(/^Expected .+ but received .+$/);
  });

  it.each<[string, bigint[]]>([
    ['part of a quadruple', [0n, 1n, 0n]],
    ['a column that is none', [2n, 1n, 0n, 0n]],
    ['a column of 16 bytes', [1n, 1n, 0n, 0n]],
    ['a max below min', [0n, 1n, 1n, 0n]],
    ['a max too far above min', [0n, 1n, 0n, 1n << 63n]],
    ['33 of them', Array.from({ length: 33 * 4 }, () => 0n)],
  ])('refuses expectations with %s', (_, numbers) => {
    const columns = Int32Array.of(-1, 0, 8, -1, 8, 16);
    const error = thrownBy(() => new (addon().Plan)(columns, BigUint64Array.from(numbers)));
    expect(error).toBeInstanceOf(RangeError);
    expect(error.message).toMatch(/^Expected .+ but received .+$/);
  });

  it('names the rows that are not as expected', () => {
    const expecting = new (addon().Plan)(
      Int32Array.of(-1, 0, 8, -1, 8, 4),
      BigUint64Array.of(0n, 0xffn, 1n, 2n, 1n, 0xffff_ffffn, 0n, 0n),
    );
    // Room for four rows: masks, bases, columns.
    const rows = new Uint8Array(16 + 32 + 32 + 16);
    new BigUint64Array(rows.buffer, 48, 4).set([0x101n, 0x102n, 0x103n, 0x101n]);
    const faults = new Uint32Array(rows.buffer, 0, 4);
    const small = new Uint32Array(rows.buffer, 80, 4);
    const into = new Uint32Array(4);
    const unexpected = (count = 4) => [
      ...into.subarray(0, expecting.unexpected(rows, 4, count, into)),
    ];
    expect(unexpected()).toEqual([2]);
    faults[0] = 1 << 31;
    small[1] = 1;
    expect(unexpected()).toEqual([0, 1, 2]);
    expect(unexpected(2)).toEqual([0, 1]);
    expect(unexpected(0)).toEqual([]);
  });

  it('refuses rows, counts and arrays that do not fit each other', () => {
    const some = plan(-1, 0, 8);
    const rows = new Uint8Array(80);
    expect(some.unexpected(rows, 4, 4, new Uint32Array(4))).toBe(0);
    const misfits: Parameters<typeof some.unexpected>[] = [
      [new Uint8Array(79), 4, 4, new Uint32Array(4)],
      [rows, 4, 5, new Uint32Array(5)],
      [rows, 4, 4, new Uint32Array(3)],
      [rows, 0xffff_ffff, 4, new Uint32Array(4)],
    ];
    for (const misfit of misfits)
      expect(thrownBy(() => some.unexpected(...misfit))).toBeInstanceOf(RangeError);
    expectMisuse((value) => some.unexpected(value, 0, 0, new Uint32Array(0)), BYTES);
    expectMisuse((value) => some.unexpected(rows, value, 0, new Uint32Array(0)), []);
    expectMisuse((value) => some.unexpected(rows, 4, value, new Uint32Array(4)), []);
    expectMisuse((value) => some.unexpected(rows, 4, 4, value), []);
  });

  it('refuses wrong types', () => {
    expectMisuse((value) => new (addon().Plan)(value), []);
    expectMisuse((value) => new (addon().Plan)(Int32Array.of(-1, 0, 8), value), ['undefined']);
    expect(() => new (addon().Plan)([-1, 0, 8] as never)).toThrow(
      'Expected columns as a Int32Array but received Array',
    );
  });
});
