import { describe, expect, it } from 'vitest';
import { addon } from '../../lib/addon.js';
import { expectMisuse } from './support/misuse.js';
import { DIRECT_MAP, IMAGE, Ram, TOP, thrownBy } from './support/ram.js';

describe('new AddressSpace', () => {
  it('refuses wrong types, roots and levels', () => {
    using ram = new Ram(0x4000);
    const memory = ram.open();
    const { AddressSpace } = addon();
    expectMisuse((value) => new AddressSpace(value, 0x1000n, 4), []);
    expectMisuse((value) => new AddressSpace(memory, value, 4), ['bigint']);
    expectMisuse((value) => new AddressSpace(memory, 0x1000n, value), []);
    for (const levels of [3, 6, 0])
      expect(() => new AddressSpace(memory, 0x1000n, levels)).toThrow(RangeError);
    for (const root of [1n, 0x1008n, TOP])
      expect(() => new AddressSpace(memory, root, 4)).toThrow(RangeError);
    expect(new AddressSpace(memory, 1n << 40n, 5)).toBeInstanceOf(AddressSpace);
    memory.close();
  });

  it('keeps the memory alive', async () => {
    using ram = new Ram(0x10000);
    ram.map(IMAGE, 0x8000n);
    ram.put64(0x8000, 5n);
    const space = ram.space(ram.open());
    for (let i = 0; i < 20; i++) {
      globalThis.gc?.();
      await new Promise((resolve) => setImmediate(resolve));
      Array.from({ length: 1000 }, () => new Uint8Array(10_000));
    }
    expect(space.readU64(IMAGE)).toBe(5n);
  });
});

describe('AddressSpace after Memory.close', () => {
  it('is VMI_CLOSED', () => {
    using ram = new Ram(0x20000);
    ram.map(IMAGE, 0x8000n);
    const memory = ram.open();
    const space = ram.space(memory);
    space.setWindows(BigUint64Array.of(DIRECT_MAP, 0x20000n, 0n));
    expect(space.readU64(IMAGE)).toBe(0n);
    const plan = new (addon().Plan)(Int32Array.of(-1, 0, 8));
    const walker = new (addon().ListWalker)(space, plan, 0);
    memory.close();
    const none = new BigUint64Array(0);
    const calls = {
      setWindows: () => space.setWindows(none),
      flush: () => space.flush(),
      translate: () => space.translate(IMAGE),
      walk: () => space.walk(IMAGE),
      mappings: () => space.mappings(0n, 1n << 64n, 10),
      'mappings of nothing': () => space.mappings(0n, 0n, 10),
      read: () => space.read(DIRECT_MAP, new Uint8Array(8)),
      readU64: () => space.readU64(DIRECT_MAP),
      readU32: () => space.readU32(DIRECT_MAP),
      gather: () => space.gather(plan, BigUint64Array.of(DIRECT_MAP), new Uint8Array(64)),
      'lists in it': () => walker.walk(BigUint64Array.of(DIRECT_MAP), 10),
    };
    for (const [name, call] of Object.entries(calls)) {
      expect(thrownBy(call), name).toMatchObject({
        code: 'VMI_CLOSED',
        message: 'the memory is closed',
      });
    }
  });
});
