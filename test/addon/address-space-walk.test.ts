import { describe, expect, it } from 'vitest';
import { ADDRESSES, expectMisuse, NUMBERS } from './support/misuse.js';
import { DIRECT_MAP, IMAGE, Ram, TOP, thrownBy, withEachSource } from './support/ram.js';

describe('AddressSpace.walk', () => {
  it('gives every level, top first', () => {
    using ram = new Ram(0x20000, 5);
    ram.map(IMAGE + 0x5000n, 0x8000n);
    ram.map(DIRECT_MAP, 0n, 2);
    withEachSource(ram, (memory) => {
      const space = ram.space(memory);
      const expected = (address: bigint, ...levels: number[]) =>
        levels.flatMap((level) => {
          const entry = ram.entry(address, level);
          return [BigInt(level), entry, ram.get64(entry)];
        });
      expect([...space.walk(IMAGE + 0x5123n)]).toEqual(expected(IMAGE + 0x5000n, 5, 4, 3, 2, 1));
      expect([...space.walk(IMAGE + 0x6000n)].slice(0, 12)).toEqual(expected(IMAGE, 5, 4, 3, 2));
      expect(space.walk(IMAGE + 0x6000n)[14]).toBe(0n);
      expect([...space.walk(DIRECT_MAP + 0x1fffffn)]).toEqual(expected(DIRECT_MAP, 5, 4, 3, 2));
      expect(space.walk(0x1000n).length).toBe(3);
    });
  });

  it('asks neither windows nor the TLB', () => {
    using ram = new Ram(0x20000);
    ram.map(IMAGE, 0x8000n);
    const memory = ram.open();
    const space = ram.space(memory);
    space.setWindows(BigUint64Array.of(IMAGE, 0x1000n, 0n));
    space.translate(IMAGE);
    ram.map(IMAGE, 0x9000n);
    expect(space.walk(IMAGE).at(-1)! & 0xfffff000n).toBe(0x9000n);
    memory.close();
  });

  it('ends with the last entry that can be read', () => {
    using ram = new Ram(0x20000);
    ram.put64(ram.entry(IMAGE, 3), 0x7ffffffff000n | 1n);
    const memory = ram.open();
    expect(ram.space(memory).walk(IMAGE).length).toBe(6);
    expectMisuse((value) => ram.space(memory).walk(value), ADDRESSES);
    memory.close();
  });
});

describe('AddressSpace.mappings', () => {
  it('merges what is contiguous both ways', () => {
    using ram = new Ram(0x40000);
    ram.map(0x1000n, 0x9000n);
    ram.map(0x2000n, 0xa000n);
    ram.map(0x3000n, 0xf000n);
    ram.map(DIRECT_MAP, 0n, 3);
    ram.map(DIRECT_MAP + 0x40000000n, 0x40000000n, 2);
    ram.map(0xfffffffffffff000n, 0x1000n);
    withEachSource(ram, (memory) => {
      const space = ram.space(memory);
      const all = [
        ...[0x1000n, 0x2000n, 0x9000n],
        ...[0x3000n, 0x1000n, 0xf000n],
        ...[DIRECT_MAP, 0x40200000n, 0n],
        ...[0xfffffffffffff000n, 0x1000n, 0x1000n],
      ];
      expect([...space.mappings(0n, 1n << 64n, 4)]).toEqual(all);
      expect([...space.mappings(0n, TOP, 4)].at(-2)).toBe(0xfffn);
      expect([...space.mappings(0x1801n, 0x2001n, 4)]).toEqual([0x1801n, 0x800n, 0x9801n]);
      expect([...space.mappings(0x4000n, DIRECT_MAP, 4)]).toEqual([]);
      expect([...space.mappings(0x2000n, 0x2000n, 4)]).toEqual([]);
      expect([...space.mappings(0x3000n, 0x2000n, 4)]).toEqual([]);
      const error = thrownBy(() => space.mappings(0n, 1n << 64n, 3));
      expect(error).toMatchObject({ code: 'VMI_CORRUPT', address: 0xfffffffffffff000n, found: 3 });
    });
  });

  it('names what a page table that cannot be read may map, and its address', () => {
    using ram = new Ram(0x40000);
    ram.map(0x1000n, 0x9000n);
    ram.map(DIRECT_MAP, 0n, 2);
    const missing = 0x7000_0000n;
    // Two neighbours of the 2 MiB page, and one of the page table of 0x1000.
    for (const at of [DIRECT_MAP + 0x20_0000n, DIRECT_MAP + 0x40_0000n])
      ram.put64(Number(ram.entry(DIRECT_MAP, 2) + ((at - DIRECT_MAP) >> 18n)), missing | 3n);
    const lost = ram.entry(0x1000n, 2) + 8n;
    ram.put64(Number(lost), 0x7100_0003n);
    const MARK = 1n << 63n;
    const all = [
      ...[0x1000n, 0x1000n, 0x9000n],
      ...[0x20_0000n, 0x20_0000n, MARK | 0x7100_0000n],
      ...[DIRECT_MAP, 0x20_0000n, 0n],
      ...[DIRECT_MAP + 0x20_0000n, 0x40_0000n, MARK | missing],
    ];
    withEachSource(ram, (memory) => {
      const space = ram.space(memory);
      expect([...space.mappings(0n, 1n << 64n, 4)]).toEqual(all);
      expect([...space.mappings(0x20_1234n, 0x20_2234n, 1)]).toEqual([
        ...[0x20_1234n, 0x1000n, MARK | 0x7100_0000n],
      ]);
      expect(thrownBy(() => space.mappings(0n, 1n << 64n, 3)).code).toBe('VMI_CORRUPT');
    });
  });

  it('ends whatever the tables say', () => {
    using ram = new Ram(0x10000);
    for (let index = 0; index < 512; index++) {
      ram.put64(0x1000 + index * 8, 0x2003n);
      ram.put64(0x2000 + index * 8, 0x3003n);
      ram.put64(0x3000 + index * 8, 0x4003n);
    }
    const memory = ram.open();
    const space = ram.space(memory);
    expect(thrownBy(() => space.mappings(0n, 1n << 64n, 65_536)).code).toBe('VMI_CORRUPT');
    for (let index = 0; index < 512; index++) ram.put64(0x4000 + index * 8, 0x1003n);
    expect(thrownBy(() => space.mappings(0n, 1n << 64n, 65_536))).toMatchObject({
      code: 'VMI_CORRUPT',
      found: 65_536,
    });
    memory.close();
  });

  it('refuses wrong types', () => {
    using ram = new Ram(0x10000);
    const memory = ram.open();
    const space = ram.space(memory);
    expectMisuse((value) => space.mappings(value, 0n, 1), ADDRESSES);
    expectMisuse((value) => space.mappings(0n, value, 1), [...ADDRESSES, 'large bigint']);
    expectMisuse((value) => space.mappings(0n, 1n, value), NUMBERS);
    expect(() => space.mappings(0n, 1n, 0)).toThrow(RangeError);
    expect(() => space.mappings(0n, (1n << 64n) + 1n, 1)).toThrow(RangeError);
    memory.close();
  });
});
