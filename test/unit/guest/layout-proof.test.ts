import { describe, expect, it } from 'vitest';
import { proveLayout, ShortMapError } from '../../../lib/guest/layout-proof.js';
import type { Kernel } from '../../../lib/kernel/kernel.js';
import type { Mapping } from '../../../lib/memory/virtual-memory.js';

const GIB = 1n << 30n;
const PAGE_OFFSET = 0xffff_9fb8_4000_0000n;

/**
 * A kernel with RAM below `low` and from 4 GiB to `top`, as assumed, and a page table that maps
 * what is told.
 */
function kernel(low: bigint, top: bigint, mappings: readonly Mapping[]): Kernel {
  const ranges = [{ start: 0n, length: low }];
  if (top > 4n * GIB) ranges.push({ start: 4n * GIB, length: top - 4n * GIB });
  const inside = (start: bigint, end: bigint) =>
    mappings.filter(({ virtual }) => virtual >= start && virtual < end);
  const memory = { physical: { ranges }, mappings: inside };
  return { memory, pageOffset: PAGE_OFFSET } as unknown as Kernel;
}

const direct = (start: bigint, end: bigint): Mapping => ({
  virtual: PAGE_OFFSET + start,
  length: end - start,
  physical: start,
});

describe('proveLayout', () => {
  const split = [direct(0n, 2n * GIB), direct(4n * GIB, 6n * GIB)];

  it('accepts the layout that the direct map covers', () => {
    expect(() => proveLayout(kernel(2n * GIB, 6n * GIB, split))).not.toThrow();
  });

  it('refuses a split that is too high, too low, or missing', () => {
    expect(() => proveLayout(kernel(3n * GIB, 5n * GIB, split))).toThrow(
      "RAM from 0x100000000 would end at 0x140000000, but the guest's direct map reaches 0x180000000",
    );
    expect(() => proveLayout(kernel(GIB, 7n * GIB, split))).toThrow('reaches 0x80000000');
    expect(() =>
      proveLayout(kernel(3n * GIB, 0n, [direct(0n, 2n * GIB), direct(4n * GIB, 5n * GIB)])),
    ).toThrow();
  });

  it('tells a layout of which less is mapped from one that is contradicted', () => {
    const little = [direct(0n, GIB)];
    expect(() => proveLayout(kernel(2n * GIB, 6n * GIB, little))).toThrow(ShortMapError);
    for (const [low, top] of [
      [3n * GIB, 5n * GIB],
      [GIB, 7n * GIB],
    ] as const)
      expect(() => proveLayout(kernel(low, top, split))).not.toThrow(ShortMapError);
  });

  it('refuses a direct map of what would be no RAM', () => {
    const stray = [direct(0n, 3n * GIB), direct(4n * GIB, 5n * GIB)];
    expect(() => proveLayout(kernel(3n * GIB, 0n, stray))).toThrow('0x100000000–0x140000000');
  });

  it('takes a device that vmalloc maps nearby for what it is', () => {
    // The HPET, mapped right behind the direct map.
    const device = { virtual: PAGE_OFFSET + 7n * GIB, length: 4096n, physical: 0xfed0_0000n };
    expect(() => proveLayout(kernel(2n * GIB, 6n * GIB, [...split, device]))).not.toThrow();
  });
});
