import { describe, expect, it } from 'vitest';
import { addon } from '../../lib/addon.js';
import { expectMisuse } from './support/misuse.js';
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

  it('refuses wrong types', () => {
    expectMisuse((value) => new (addon().Plan)(value), []);
    expect(() => new (addon().Plan)([-1, 0, 8] as never)).toThrow(
      'Expected columns as a Int32Array but received Array',
    );
  });
});
