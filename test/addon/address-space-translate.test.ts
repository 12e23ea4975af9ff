import { describe, expect, it } from 'vitest';
import { ADDRESSES, expectMisuse, WORDS } from './support/misuse.js';
import { DIRECT_MAP, IMAGE, Ram, TOP, thrownBy, withEachSource } from './support/ram.js';

describe.each([4, 5] as const)('AddressSpace.translate, %i levels', (levels) => {
  it('translates pages of every size', () => {
    using ram = new Ram(0x20000, levels);
    ram.map(IMAGE, 0x8000n);
    ram.map(IMAGE + 0x200000n, 0x40000000n, 2);
    ram.map(DIRECT_MAP + 0x40000000n, 0x80000000n, 3);
    withEachSource(ram, (memory) => {
      const space = ram.space(memory);
      for (let i = 0; i < 2; i++) {
        expect(space.translate(IMAGE)).toBe(0x8000n);
        expect(space.translate(IMAGE + 0xfffn)).toBe(0x8fffn);
        expect(space.translate(IMAGE + 0x3fffffn)).toBe(0x401fffffn);
        expect(space.translate(DIRECT_MAP + 0x7fffffffn)).toBe(0xbfffffffn);
      }
    });
  });

  it('faults at the level that is not present', () => {
    using ram = new Ram(0x20000, levels);
    const memory = ram.open();
    const space = ram.space(memory);
    const address = IMAGE + 0xabcdn;
    for (let level = levels as number; level >= 1; level--) {
      const error = thrownBy(() => space.translate(address));
      expect(error).toMatchObject({
        code: 'VMI_FAULT',
        space: 'virtual',
        cr3: 0x1000n,
        address,
        level,
      });
      if (level > 1) ram.entry(address, level - 1);
    }
    ram.put64(ram.entry(address, 2), 0x7ffffffff000n | 1n);
    space.flush();
    expect(thrownBy(() => space.translate(address)).level).toBe(0);
    memory.close();
  });

  it('faults at the top for an address that is not canonical', () => {
    using ram = new Ram(0x20000, levels);
    const memory = ram.open();
    const space = ram.space(memory);
    const bits = levels === 4 ? 47n : 56n;
    for (const address of [1n << bits, TOP - (1n << bits), 0x8000000000000000n]) {
      ram.map(address & ((1n << (bits + 1n)) - 1n), 0x8000n);
      expect(thrownBy(() => space.translate(address))).toMatchObject({
        code: 'VMI_FAULT',
        level: levels,
        address,
      });
      expect(space.walk(address).length).toBe(0);
    }
    memory.close();
  });

  it('reaches the last byte of the address space', () => {
    using ram = new Ram(0x20000, levels);
    ram.map(0xfffffffffffff000n, 0x8000n);
    const memory = ram.open();
    expect(ram.space(memory).translate(TOP)).toBe(0x8fffn);
    memory.close();
  });
});

describe('AddressSpace.flush', () => {
  it('forgets translations', () => {
    using ram = new Ram(0x20000);
    ram.map(IMAGE, 0x8000n);
    const memory = ram.open();
    const space = ram.space(memory);
    expect(space.translate(IMAGE)).toBe(0x8000n);
    ram.map(IMAGE, 0x9000n);
    expect(space.flush()).toBeUndefined();
    expect(space.translate(IMAGE)).toBe(0x9000n);
    memory.close();
  });
});

describe('AddressSpace.setWindows', () => {
  it('is used before the page table, only where the result is RAM', () => {
    using ram = new Ram(0x20000);
    ram.map(DIRECT_MAP + 0x1000000n, 0x8000n);
    const memory = ram.open();
    const space = ram.space(memory);
    expect(
      space.setWindows(BigUint64Array.of(DIRECT_MAP, 1n << 46n, 0n, IMAGE, 0x1000n, 0x5000n)),
    ).toBeUndefined();
    expect(space.translate(DIRECT_MAP + 0x1ffffn)).toBe(0x1ffffn);
    expect(space.translate(IMAGE + 5n)).toBe(0x5005n);
    expect(space.translate(DIRECT_MAP + 0x1000004n)).toBe(0x8004n);
    expect(thrownBy(() => space.translate(DIRECT_MAP + 0x20000n)).code).toBe('VMI_FAULT');
    space.setWindows(new BigUint64Array(0));
    expect(thrownBy(() => space.translate(IMAGE)).code).toBe('VMI_FAULT');
    memory.close();
  });

  it('refuses what cannot be meant', () => {
    using ram = new Ram(0x20000);
    const memory = ram.open();
    const space = ram.space(memory);
    expectMisuse((value) => space.setWindows(value), WORDS);
    expect(() => space.setWindows(new BigUint64Array(4))).toThrow(
      'Expected windows as triples but received 4 words',
    );
    expect(() => space.setWindows(new BigUint64Array(65 * 3).fill(1n))).toThrow(RangeError);
    expect(() => space.setWindows(BigUint64Array.of(TOP, 2n, 0n))).toThrow(RangeError);
    expect(() => space.setWindows(BigUint64Array.of(0n, 2n, TOP))).toThrow(RangeError);
    space.setWindows(BigUint64Array.of(TOP, 1n, 0x77n, 0n, 0n, 0n));
    expect(space.translate(TOP)).toBe(0x77n);
    memory.close();
  });
});

describe('AddressSpace.translate, misused', () => {
  it('refuses wrong types', () => {
    using ram = new Ram(0x20000);
    const memory = ram.open();
    const space = ram.space(memory);
    expectMisuse((value) => space.translate(value), ADDRESSES);
    memory.close();
  });
});
