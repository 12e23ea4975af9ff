import { describe, expect, it } from 'vitest';
import { ADDRESSES, expectMisuse } from './support/misuse.js';
import { Ram, TOP, thrownBy, withEachSource } from './support/ram.js';

describe('Memory.readU64', () => {
  it('loads little-endian, at any address', () => {
    using ram = new Ram(0x3000);
    ram.put(0xffd, Buffer.from([1, 2, 3, 4, 5, 6, 7, 0x88, 9]));
    withEachSource(ram, (memory, source) => {
      expect(memory.readU64(0xffdn), source).toBe(0x8807060504030201n);
      expect(memory.readU64(0xffen), source).toBe(0x0988070605040302n);
      expect(memory.readU64(0x2ff8n)).toBe(0n);
    });
  });

  it('faults with the first address that is not RAM', () => {
    using ram = new Ram(0x3000);
    withEachSource(ram, (memory) => {
      const fault = { code: 'VMI_FAULT', space: 'physical', requested: 8, level: 0 };
      const at = (address: bigint) => thrownBy(() => memory.readU64(address));
      expect(at(0x2ff9n)).toMatchObject({ ...fault, address: 0x3000n, transferred: 7 });
      expect(at(0x3000n)).toMatchObject({ ...fault, address: 0x3000n, transferred: 0 });
      expect(at(0xffff888003a4f2d1n)).toMatchObject({ ...fault, address: 0xffff888003a4f2d1n });
      expect(at(TOP)).toMatchObject({ ...fault, address: TOP, transferred: 0 });
      expect('cr3' in at(0x3000n)).toBe(false);
      expect(at(0x3000n)).not.toBeInstanceOf(RangeError);
    });
  });

  it('refuses wrong types', () => {
    using ram = new Ram(0x3000);
    const memory = ram.open();
    expectMisuse((value) => memory.readU64(value), ADDRESSES);
    memory.close();
  });

  it('is VMI_CLOSED after close, also where RAM was not', () => {
    using ram = new Ram(0x3000);
    const memory = ram.open();
    const { readU64 } = memory;
    memory.close();
    for (const address of [0n, TOP]) {
      expect(() => memory.readU64(address)).toThrow(
        expect.objectContaining({ code: 'VMI_CLOSED' }),
      );
      expect(() => readU64(address)).toThrow(expect.objectContaining({ code: 'VMI_CLOSED' }));
    }
  });
});
