import { describe, expect, it } from 'vitest';
import { addon } from '../../lib/addon.js';
import type { NativeLoader } from '../../types/addon.js';
import { Ram, TOP, thrownBy, withEachSource } from './support/ram.js';

const read = ({ word, load }: NativeLoader, address: bigint) => {
  word[0] = address;
  load();
  return word[0];
};

describe('loader', () => {
  it('loads what readU64 reads, and throws what it throws', () => {
    using ram = new Ram(0x3000);
    ram.put(0xffd, Buffer.from([1, 2, 3, 4, 5, 6, 7, 0x88, 9]));
    withEachSource(ram, (memory, source) => {
      const loader = memory.loader();
      for (const address of [0n, 0xffdn, 0xffen, 0x2ff8n])
        expect(read(loader, address), source).toBe(memory.readU64(address));
      for (const address of [0x2ff9n, 0x3000n, TOP]) {
        const thrown = thrownBy(() => read(loader, address));
        expect(thrown).toMatchObject({ code: 'VMI_FAULT', space: 'physical', requested: 8 });
        expect(thrown).toEqual(thrownBy(() => memory.readU64(address)));
        // The word stays as it was.
        expect(loader.word[0]).toBe(address);
      }
    });
  });

  it('loads through a page table', () => {
    using ram = new Ram(0x8000);
    const memory = ram.open();
    const space = ram.space(memory);
    const loader = space.loader();
    const outcome = (load: () => bigint) => {
      try {
        return load();
      } catch (error) {
        return { ...(error as object) };
      }
    };
    for (const address of [0n, 0x1000n, 0x1ffdn, 0xffff_8880_0000_0000n, TOP]) {
      expect(outcome(() => read(loader, address))).toEqual(outcome(() => space.readU64(address)));
    }
    memory.close();
    expect(() => read(loader, 0n)).toThrow(expect.objectContaining({ code: 'VMI_CLOSED' }));
  });

  it('gives everyone a word of their own', () => {
    using ram = new Ram(0x3000);
    const memory = ram.open();
    const [a, b] = [memory.loader(), memory.loader()];
    a.word[0] = 1n;
    b.word[0] = 2n;
    expect([a.word[0], b.word[0]]).toEqual([1n, 2n]);
    memory.close();
    expect(() => read(a, 0n)).toThrow(expect.objectContaining({ code: 'VMI_CLOSED' }));
  });

  it('outlives a word that was given away', () => {
    using ram = new Ram(0x3000);
    const memory = ram.open();
    const { word, load } = memory.loader();
    // Node copies what native code owns instead of giving it away; should it ever not, nothing is freed that `load` uses.
    structuredClone(word.buffer, { transfer: [word.buffer as ArrayBuffer] });
    for (let i = 0; i < 1000; i++) load();
    memory.close();
  });

  it('belongs to a Memory or an AddressSpace', () => {
    const { Memory, AddressSpace } = addon();
    for (const { prototype } of [Memory, AddressSpace]) {
      expect(() => prototype.loader.call({})).toThrow(TypeError);
    }
  });
});
