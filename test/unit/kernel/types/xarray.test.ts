import { describe, expect, it } from 'vitest';
import { parsePlain } from '../../../../lib/kernel/profile/plain.js';
import { Btf } from '../../../../lib/kernel/types/btf.js';
import { xaChunkShift } from '../../../../lib/kernel/types/xarray.js';
import { BtfBuilder } from '../support/build-btf.js';

function withSlots(count: number): Btf {
  const b = new BtfBuilder();
  const pointer = b.pointer(0);
  const slots = b.array(pointer, count);
  b.struct('xa_node', 64 + 8 * count, [{ name: 'slots', type: slots, bits: 40 * 8 }]);
  return new Btf(b.build());
}

describe('the chunk of an XArray', () => {
  it('has as many slots as the kernel gives its nodes', () => {
    expect(xaChunkShift(withSlots(64))).toBe(6);
    expect(xaChunkShift(withSlots(16))).toBe(4);
  });

  it('is read from a profile as well', () => {
    const profile = (type: string, size: number) =>
      parsePlain(
        Buffer.from(
          JSON.stringify({
            format: 'node-libvmi-profile-1',
            types: { xa_node: { size: 0, members: { slots: { offset: 40, size, type } } } },
            symbols: [],
          }),
        ),
      ).types!;
    expect(xaChunkShift(profile('void *[64]', 512))).toBe(6);
    expect(xaChunkShift(profile('void *[16]', 128))).toBe(4);
  });

  it('is not guessed', () => {
    expect(() => xaChunkShift(withSlots(32))).toThrow(
      expect.objectContaining({ code: 'VMI_TYPE' }),
    );
    expect(() => xaChunkShift(new Btf(new BtfBuilder().build()))).toThrow(
      expect.objectContaining({ code: 'VMI_CORRUPT' }),
    );
  });
});
