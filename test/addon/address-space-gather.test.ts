import { describe, expect, it } from 'vitest';
import { addon } from '../../lib/addon.js';
import { BYTES, expectMisuse, WORDS } from './support/misuse.js';
import { bytesOf, DIRECT_MAP, IMAGE, Ram, TOP, thrownBy, withEachSource } from './support/ram.js';

const makePlan = (...columns: number[]) => new (addon().Plan)(Int32Array.from(columns));

describe('AddressSpace.gather', () => {
  it('lays rows out as declared', () => {
    using ram = new Ram(0x20000);
    ram.mapDirect();
    ram.put(0x8000, Buffer.concat([Buffer.from('task one'), bytesOf(DIRECT_MAP + 0x9000n, 0n)]));
    ram.put(
      0x8100,
      Buffer.concat([Buffer.from('task two'), bytesOf(DIRECT_MAP + 0x9000n, 0xdead000000000100n)]),
    );
    ram.put64(0x9010, 0x42n);
    withEachSource(ram, (memory, source) => {
      const space = ram.space(memory);
      for (const windows of [[], [DIRECT_MAP, 1n << 40n, 0n]]) {
        space.setWindows(BigUint64Array.from(windows));
        const plan = makePlan(-1, 5, 3, -1, 8, 8, 1, 0x10, 4, -1, 16, 8, 3, 0, 8);
        const bases = BigUint64Array.of(DIRECT_MAP + 0x8000n, DIRECT_MAP + 0x8100n, IMAGE);
        const into = new Uint8Array(256).fill(0xee);
        expect(space.gather(plan, bases, into)).toBeUndefined();
        const view = new DataView(into.buffer);
        // Masks, then bases at 16, then each column at a multiple of 8.
        expect(
          [0, 4, 8].map((at) => view.getUint32(at, true)),
          source,
        ).toEqual([0, 0b10000, 0b01011]);
        expect([16, 24, 32].map((at) => view.getBigUint64(at, true))).toEqual([...bases]);
        expect(Buffer.from(into).toString('latin1', 40, 46)).toBe('onetwo');
        expect(into.subarray(46, 49)).toEqual(new Uint8Array(3));
        expect(view.getBigUint64(56, true)).toBe(DIRECT_MAP + 0x9000n);
        expect([80, 84, 88].map((at) => view.getUint32(at, true))).toEqual([0x42, 0x42, 0]);
        expect(view.getBigUint64(104, true)).toBe(0xdead000000000100n);
        expect(view.getBigUint64(128, true)).toBe(0n);
        expect(into.subarray(144)).toEqual(new Uint8Array(112).fill(0xee));
      }
    });
  });

  it('zeroes a column that crosses into what cannot be read', () => {
    using ram = new Ram(0x20000);
    ram.map(IMAGE, 0x8000n);
    ram.put(0x8000, Buffer.alloc(0x1000, 1));
    withEachSource(ram, (memory) => {
      const into = new Uint8Array(64).fill(0xee);
      ram
        .space(memory)
        .gather(makePlan(-1, 0xff8, 16, -1, 0xff0, 8), BigUint64Array.of(IMAGE), into);
      expect(into[0]).toBe(1);
      expect(into.subarray(16, 32)).toEqual(new Uint8Array(16));
      expect(into.subarray(32, 40)).toEqual(new Uint8Array(8).fill(1));
    });
  });

  it('takes any base', () => {
    using ram = new Ram(0x20000);
    ram.map(0xfffffffffffff000n, 0x8000n);
    ram.map(0n, 0x9000n);
    withEachSource(ram, (memory) => {
      const into = new Uint8Array(256);
      const bases = BigUint64Array.of(TOP, TOP - 7n, 0n, 0x8000000000000000n, 1n);
      // Base plus offset wraps as pointers do; a column that lies across 2^64 is not there.
      ram.space(memory).gather(makePlan(-1, 0, 8, -1, 8, 8, -1, -1, 1), bases, into);
      expect([...new Uint32Array(into.buffer, 0, 5)]).toEqual([0b001, 0b000, 0b000, 0b111, 0b000]);
    });
  });

  it('may be given bases in its own buffer', () => {
    using ram = new Ram(0x20000);
    for (let i = 0; i < 8; i++) ram.put64(0x8000 + i * 8, BigInt(i));
    ram.mapDirect();
    const memory = ram.open();
    const buffer = new ArrayBuffer(32 + 64 + 64);
    const bases = new BigUint64Array(buffer, 32, 8);
    for (let i = 0; i < 8; i++) bases[i] = DIRECT_MAP + 0x8000n + BigInt(i * 8);
    ram.space(memory).gather(makePlan(-1, 0, 8), bases, new Uint8Array(buffer));
    expect([...new BigUint64Array(buffer, 96, 8)]).toEqual([0n, 1n, 2n, 3n, 4n, 5n, 6n, 7n]);
    expect(bases[7]).toBe(DIRECT_MAP + 0x8038n);
    memory.close();
  });

  it('refuses wrong types and a buffer that is too small', () => {
    using ram = new Ram(0x20000);
    const memory = ram.open();
    const space = ram.space(memory);
    const plan = makePlan(-1, 0, 8);
    expectMisuse((value) => space.gather(value, new BigUint64Array(1), new Uint8Array(64)), []);
    expectMisuse((value) => space.gather(plan, value, new Uint8Array(64)), WORDS);
    expectMisuse((value) => space.gather(plan, new BigUint64Array(1), value), BYTES);
    expect(
      thrownBy(() => space.gather(plan, new BigUint64Array(2), new Uint8Array(39))).message,
    ).toBe('Expected into with at least 40 bytes but received 39');
    space.gather(plan, new BigUint64Array(0), new Uint8Array(0));
    memory.close();
  });
});
