import { describe, expect, it } from 'vitest';
import { ADDRESSES, BYTES, expectMisuse } from './support/misuse.js';
import { bytesOf, Ram, TOP, thrownBy, withEachSource } from './support/ram.js';

describe('Memory.read', () => {
  it('fills the buffer', () => {
    using ram = new Ram(0x8000);
    ram.put(0x1ffd, 'across the page');
    withEachSource(ram, (memory, source) => {
      const into = Buffer.alloc(15);
      expect(memory.read(0x1ffdn, into), source).toBe(15);
      expect(into.toString()).toBe('across the page');
      const whole = new Uint8Array(0x8000);
      expect(memory.read(0n, whole)).toBe(0x8000);
      expect(Buffer.from(whole).indexOf('across')).toBe(0x1ffd);
    });
  });

  it('ends where RAM ends', () => {
    using ram = new Ram(0x8000);
    ram.put(0x7fff, 'z');
    withEachSource(ram, (memory) => {
      const into = Buffer.alloc(16, 1);
      expect(memory.read(0x7fffn, into)).toBe(1);
      expect(into.toString('latin1', 0, 1)).toBe('z');
      for (const address of [0x8000n, 0x8001n, 1n << 52n, 1n << 63n, TOP])
        expect(memory.read(address, into)).toBe(0);
    });
  });

  it('reads at the last address there is', () => {
    using ram = new Ram(0x1000);
    ram.put(0xfff, 'z');
    const memory = ram.open([ram.segment(0xfffffffffffff000n)]);
    const into = Buffer.alloc(8);
    expect(memory.read(TOP, into)).toBe(1);
    expect(into[0]).toBe(0x7a);
    expect(memory.read(TOP - 7n, into)).toBe(8);
    memory.close();
  });

  it('takes any Uint8Array, also an empty one and one without memory', () => {
    using ram = new Ram(0x1000);
    ram.put(0, bytesOf(0x0807060504030201n));
    const memory = ram.open();
    const shared = new Uint8Array(new SharedArrayBuffer(16), 3, 8);
    expect(memory.read(0n, shared)).toBe(8);
    expect([...shared]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(memory.read(0n, new Uint8Array(0))).toBe(0);
    const gone = new Uint8Array(8);
    structuredClone(gone.buffer, { transfer: [gone.buffer] });
    expect(memory.read(0n, gone)).toBe(0);
    memory.close();
  });

  it('refuses wrong types', () => {
    using ram = new Ram(0x8000);
    const memory = ram.open();
    expectMisuse((value) => memory.read(value, new Uint8Array(8)), ADDRESSES);
    expectMisuse((value) => memory.read(0n, value), BYTES);
    expect(thrownBy(() => memory.read(-1n, new Uint8Array(8))).message).toBe(
      'Expected address between 0 and 2^64 - 1 but received -1',
    );
    memory.close();
  });

  it('is VMI_CLOSED after close', () => {
    using ram = new Ram(0x8000);
    const memory = ram.open();
    memory.close();
    expect(() => memory.read(0n, new Uint8Array(8))).toThrow(
      expect.objectContaining({ code: 'VMI_CLOSED', message: 'the memory is closed' }),
    );
  });
});
