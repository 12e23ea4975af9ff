import { describe, expect, it } from 'vitest';
import { ADDRESSES, BYTES, expectMisuse } from './support/misuse.js';
import { DIRECT_MAP, IMAGE, Ram, TOP, thrownBy, withEachSource } from './support/ram.js';

/** Two pages that are neighbours by virtual address only, one that is missing, one outside RAM. */
function fill(ram: Ram): void {
  ram.map(IMAGE, 0x18000n);
  ram.map(IMAGE + 0x1000n, 0x15000n);
  ram.map(IMAGE + 0x3000n, 0x7ffff000n);
  ram.map(0xfffffffffffff000n, 0x19000n);
  ram.put(0x18ffd, 'lef');
  ram.put(0x15000, 't and right');
  ram.put(0x15ffc, Buffer.from([1, 2, 3, 4]));
  ram.put(0x19ff8, Buffer.from([9, 8, 7, 6, 5, 4, 3, 2]));
}

describe('AddressSpace.read', () => {
  it('reads across pages', () => {
    using ram = new Ram(0x20000);
    fill(ram);
    withEachSource(ram, (memory, source) => {
      const space = ram.space(memory);
      const into = Buffer.alloc(14);
      expect(space.read(IMAGE + 0xffdn, into), source).toBe(14);
      expect(into.toString()).toBe('left and right');
      expect(space.read(IMAGE, new Uint8Array(0x10000))).toBe(0x2000);
      expect(space.read(IMAGE + 0x2000n, into)).toBe(0);
      expect(space.read(IMAGE + 0x3000n, into)).toBe(0);
      expect(space.read(IMAGE, new Uint8Array(0))).toBe(0);
      expect(space.read(0x0000900000000000n, into)).toBe(0);
    });
  });

  it('ends at the last address', () => {
    using ram = new Ram(0x20000);
    fill(ram);
    ram.map(0n, 0x18000n);
    withEachSource(ram, (memory) => {
      const space = ram.space(memory);
      const into = Buffer.alloc(16);
      expect(space.read(TOP, into)).toBe(1);
      expect(into[0]).toBe(2);
      expect(space.read(TOP - 7n, into.subarray(0, 8))).toBe(8);
    });
  });

  it('refuses wrong types', () => {
    using ram = new Ram(0x20000);
    const memory = ram.open();
    const space = ram.space(memory);
    expectMisuse((value) => space.read(value, new Uint8Array(8)), ADDRESSES);
    expectMisuse((value) => space.read(0n, value), BYTES);
    memory.close();
  });
});

describe.each([
  ['readU64', 8],
  ['readU32', 4],
] as const)('AddressSpace.%s', (name, size) => {
  it('loads little-endian, across pages', () => {
    using ram = new Ram(0x20000);
    fill(ram);
    withEachSource(ram, (memory) => {
      const space = ram.space(memory);
      const bytes = Buffer.from('left and', 'latin1');
      const expected = size === 8 ? bytes.readBigUInt64LE() : bytes.readUInt32LE();
      expect(space[name](IMAGE + 0xffdn)).toBe(expected);
      expect(space[name](TOP - BigInt(size - 1))).toBe(
        size === 8 ? 0x0203040506070809n : 0x02030405,
      );
      space.setWindows(BigUint64Array.of(DIRECT_MAP, 1n << 30n, 0n));
      expect(space[name](DIRECT_MAP + 0x18ffdn)).toBe(size === 8 ? 0x66656cn : 0x66656c);
    });
  });

  it('faults with what was read, and where and why it ended', () => {
    using ram = new Ram(0x20000);
    fill(ram);
    withEachSource(ram, (memory) => {
      const space = ram.space(memory);
      const fault = { code: 'VMI_FAULT', space: 'virtual', cr3: 0x1000n, requested: size };
      const at = (address: bigint) => thrownBy(() => space[name](address));
      expect(at(IMAGE + 0x1fffn)).toMatchObject({
        ...fault,
        address: IMAGE + 0x2000n,
        transferred: 1,
        level: 1,
      });
      expect(at(IMAGE + 0x2001n)).toMatchObject({
        ...fault,
        address: IMAGE + 0x2001n,
        transferred: 0,
        level: 1,
      });
      expect(at(IMAGE + 0x3001n)).toMatchObject({
        ...fault,
        address: IMAGE + 0x3001n,
        transferred: 0,
        level: 0,
      });
      expect(at(0n)).toMatchObject({ ...fault, address: 0n, level: 4 });
      expect(at(0x0000800000000001n)).toMatchObject({ ...fault, level: 4 });
      expect(at(TOP)).toMatchObject({ ...fault, transferred: 1, level: 4 });
      expect(at(IMAGE + 0x1fffn).message).toContain('0xffffffff80002000');
    });
  });

  it('refuses wrong types', () => {
    using ram = new Ram(0x20000);
    const memory = ram.open();
    const space = ram.space(memory);
    expectMisuse((value) => space[name](value), ADDRESSES);
    memory.close();
  });
});
