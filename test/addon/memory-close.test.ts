import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { Ram, thrownBy } from './support/ram.js';

describe('Memory.close', () => {
  it('is idempotent and unmaps', () => {
    using ram = new Ram(0x10000);
    const memory = ram.open();
    const mappings = () => fs.readFileSync('/proc/self/maps', 'utf8').split(ram.path).length - 1;
    expect(mappings()).toBe(1);
    memory.close();
    memory.close();
    expect(mappings()).toBe(0);
  });

  it('gives the descriptors back', () => {
    using ram = new Ram(0x10000);
    const before = fs.readdirSync('/proc/self/fd').length;
    for (let i = 0; i < 10; i++) ram.open().close();
    for (let i = 0; i < 10; i++) thrownBy(() => ram.open([ram.segment(0n, 0x20000n)]));
    expect(fs.readdirSync('/proc/self/fd').length).toBe(before);
  });

  it('leaves the facts and takes the rest', () => {
    using ram = new Ram(0x10000);
    const memory = ram.open();
    const space = ram.space(memory);
    memory.close();
    expect([...memory.ranges]).toEqual([0n, 0x10000n]);
    expect(memory.mapped).toBe(true);
    const closed = expect.objectContaining({ code: 'VMI_CLOSED' });
    expect(() => memory.begin()).toThrow(closed);
    expect(() =>
      memory.scan({ pattern: Buffer.from('a'), stride: 1, offsets: [0], max: 1 }),
    ).toThrow(closed);
    expect(() => ram.space(memory)).toThrow(closed);
    expect(() => space.flush()).toThrow(closed);
  });

  it('is not undone by a file that changes', () => {
    using ram = new Ram(0x10000);
    ram.put(0, Buffer.alloc(0x10000, 1));
    const memory = ram.open();
    expect(memory.readU64(0x8000n)).toBe(0x0101010101010101n);
    fs.truncateSync(ram.path, 0x4000);
    expect(() => memory.readU64(0x8000n)).toThrow(expect.objectContaining({ code: 'VMI_FAULT' }));
    expect(memory.read(0n, new Uint8Array(0x10000))).toBe(0x4000);
    fs.truncateSync(ram.path, 0x10000);
    expect(memory.readU64(0x8000n)).toBe(0n);
    memory.close();
  });
});

describe('Memory.begin', () => {
  it('returns nothing while the guest is there', () => {
    using ram = new Ram(0x10000);
    const { memory, holder } = ram.openAsProcess();
    expect(memory.begin()).toBeUndefined();
    expect(holder.begin()).toBeUndefined();
    memory.close();
    holder.close();
    expect(() => memory.begin()).toThrow(expect.objectContaining({ code: 'VMI_CLOSED' }));
  });
});

describe('holes of a shared file', () => {
  it('are read without being allocated', async (context) => {
    if (!fs.existsSync('/dev/shm')) return context.skip('needs a tmpfs at /dev/shm');
    using ram = new Ram(32 << 20, 4, '/dev/shm');
    for (let at = 0; at < 32 << 20; at += 1 << 20) ram.put64(at + 8, 5n);
    ram.mapDirect();
    const before = ram.allocated;
    const memory = ram.open();
    const space = ram.space(memory);
    const zero = Buffer.alloc(32 << 20, 1);
    for (let at = 0n; at < 32n << 20n; at += 0x3000n) memory.readU64(at);
    expect(memory.read(0n, zero)).toBe(32 << 20);
    expect(zero.readBigUInt64LE((5 << 20) + 8)).toBe(5n);
    expect(zero.readUInt8((5 << 20) + 0x5000)).toBe(0);
    for (let at = 0n; at < 32n << 20n; at += 0x3000n) space.readU64(0xffff888000000000n + at);
    space.mappings(0n, 1n << 64n, 100);
    const pattern = Buffer.from([5, 0, 0, 0, 0, 0, 0, 0]);
    const hits = await memory.scan({ pattern, stride: 8, offsets: [0], max: 100 });
    expect(hits.length).toBe(32);
    expect(ram.allocated).toBe(before);
    memory.close();
  });
});
