import { describe, expect, it } from 'vitest';
import { addon } from '../../lib/addon.js';
import { Ram, TOP, thrownBy, withEachSource } from './support/ram.js';

const loader = addon().loader();
const load = (handle: number, address: bigint) => {
  loader.word[0] = address;
  loader.handle[0] = handle;
  loader.load();
  return loader.word[0];
};

describe('loader', () => {
  it('is one', () => {
    expect(addon().loader()).toBe(loader);
  });

  it('loads what readU64 reads, and throws what it throws', () => {
    using ram = new Ram(0x3000);
    ram.put(0xffd, Buffer.from([1, 2, 3, 4, 5, 6, 7, 0x88, 9]));
    withEachSource(ram, (memory, source) => {
      for (const address of [0n, 0xffdn, 0xffen, 0x2ff8n])
        expect(load(memory.handle, address), source).toBe(memory.readU64(address));
      for (const address of [0x2ff9n, 0x3000n, TOP]) {
        const thrown = thrownBy(() => load(memory.handle, address));
        expect(thrown).toMatchObject({ code: 'VMI_FAULT', space: 'physical', requested: 8 });
        expect(thrown).toEqual(thrownBy(() => memory.readU64(address)));
        // The word stays as it was.
        expect(loader.word[0]).toBe(address);
      }
    });
  });

  it('loads through a page table', () => {
    using ram = new Ram(0x100000);
    ram.mapDirect();
    ram.put64(0x5008n, 0x1234n);
    const memory = ram.open();
    const space = ram.space(memory);
    const outcome = (read: () => bigint) => {
      try {
        return read();
      } catch (error) {
        return { ...(error as object) };
      }
    };
    const mapped = 0xffff_8880_0000_5008n;
    expect(load(space.handle, mapped)).toBe(0x1234n);
    for (const address of [0n, mapped, mapped + 5n, 0x1ffdn, TOP]) {
      expect(outcome(() => load(space.handle, address))).toEqual(
        outcome(() => space.readU64(address)),
      );
    }
    memory.close();
    expect(() => load(space.handle, mapped)).toThrow(
      expect.objectContaining({ code: 'VMI_CLOSED' }),
    );
  });

  it('tells objects apart, and refuses what none has', () => {
    using one = new Ram(0x3000);
    using two = new Ram(0x3000);
    one.put64(0n, 1n);
    two.put64(0n, 2n);
    const memories = [one.open(), two.open(), one.open()];
    const handles = memories.map((memory) => memory.handle);
    expect(new Set(handles).size).toBe(3);
    expect(memories.map((memory) => memory.handle)).toEqual(handles);
    expect(handles.map((handle) => load(handle, 0n))).toEqual([1n, 2n, 1n]);
    for (const handle of [0, 1, Math.max(...handles) + 1, 0xffff_ffff]) {
      expect(() => load(handle, 0n), String(handle)).toThrow(
        /^Expected handle of a Memory or an AddressSpace but received /,
      );
    }
    for (const memory of memories) memory.close();
    expect(() => load(handles[0]!, 0n)).toThrow(expect.objectContaining({ code: 'VMI_CLOSED' }));
  });
});
