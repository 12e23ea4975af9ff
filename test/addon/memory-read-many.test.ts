import { describe, expect, it } from 'vitest';
import { BYTES, expectMisuse, NUMBERS, WORDS } from './support/misuse.js';
import { Ram, TOP, thrownBy, withEachSource } from './support/ram.js';

describe('Memory.readMany', () => {
  it('reads every element as far as it goes', () => {
    using ram = new Ram(0x8000);
    ram.put(0x100, 'first');
    ram.put(0xffe, 'cross');
    ram.put(0x7ffe, 'en');
    withEachSource(ram, (memory, source) => {
      const into = Buffer.alloc(25, '-');
      const addresses = BigUint64Array.of(0x100n, 0x7ffen, 0x9000n, 0xffen, TOP);
      expect([...memory.readMany(addresses, 5, into)], source).toEqual([5, 2, 0, 5, 0]);
      expect(into.toString('latin1', 0, 5)).toBe('first');
      expect(into.toString('latin1', 5, 7)).toBe('en');
      expect(into.toString('latin1', 15, 20)).toBe('cross');
    });
  });

  it('reads more elements than a system call takes', () => {
    using ram = new Ram(0x40000);
    const count = 5000;
    for (let i = 0; i < count; i++) ram.put64(i * 48, BigInt(i));
    withEachSource(ram, (memory) => {
      const addresses = BigUint64Array.from({ length: count }, (_, i) =>
        BigInt(((i * 7) % count) * 48),
      );
      const into = new Uint8Array(count * 8);
      expect(memory.readMany(addresses, 8, into).every((bytes) => bytes === 8)).toBe(true);
      const values = new BigUint64Array(into.buffer);
      for (let i = 0; i < count; i++) expect(values[i]).toBe(BigInt((i * 7) % count));
    });
  });

  it('gives nothing for nothing', () => {
    using ram = new Ram(0x1000);
    const memory = ram.open();
    expect(memory.readMany(new BigUint64Array(0), 8, new Uint8Array(0))).toEqual(
      new Uint32Array(0),
    );
    expect(memory.readMany(new BigUint64Array(3), 0, new Uint8Array(0))).toEqual(
      new Uint32Array(3),
    );
    memory.close();
  });

  it('may write over the addresses', () => {
    using ram = new Ram(0x1000);
    for (let i = 0; i < 16; i++) ram.put64(i * 8, BigInt(i + 100));
    const memory = ram.open();
    const addresses = BigUint64Array.from({ length: 16 }, (_, i) => BigInt(120 - i * 8));
    memory.readMany(addresses, 8, new Uint8Array(addresses.buffer));
    expect([...addresses]).toEqual(Array.from({ length: 16 }, (_, i) => BigInt(115 - i)));
    memory.close();
  });

  it('refuses wrong types and a buffer that is too small', () => {
    using ram = new Ram(0x1000);
    const memory = ram.open();
    const none = new BigUint64Array(0);
    expectMisuse((value) => memory.readMany(value, 8, new Uint8Array(64)), WORDS);
    expectMisuse((value) => memory.readMany(none, value, new Uint8Array(64)), NUMBERS);
    expectMisuse((value) => memory.readMany(none, 8, value), BYTES);
    const error = thrownBy(() => memory.readMany(new BigUint64Array(3), 8, new Uint8Array(23)));
    expect(error).toBeInstanceOf(RangeError);
    expect(error.message).toBe('Expected into with at least 3 * 8 bytes but received 23');
    expect(() => memory.readMany(new BigUint64Array(2), 0x7fffffff, new Uint8Array(23))).toThrow(
      RangeError,
    );
    expect(() => memory.readMany(none, -1, new Uint8Array(23))).toThrow(RangeError);
    memory.close();
    expect(() => memory.readMany(none, 8, new Uint8Array(8))).toThrow(
      expect.objectContaining({ code: 'VMI_CLOSED' }),
    );
  });
});
