import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { addon } from '../../lib/addon.js';
import type { Memory, NativeSegment } from '../../types/addon.js';
import { ADDRESSES, BYTES, expectMisuse } from './support/misuse.js';
import { Ram, TOP } from './support/ram.js';

const open = (segments: NativeSegment[], pid?: number): Memory =>
  addon().openMemory({ segments, write: true, ...(pid === undefined ? {} : { pid }) });

function textAt(ram: Ram, at: number, length: number): string {
  const bytes = Buffer.alloc(length);
  fs.readSync(ram.fd, bytes, 0, length, at);
  return bytes.toString('latin1');
}

describe('Memory.write', () => {
  it('is refused where the memory was not opened for it', () => {
    using ram = new Ram(0x8000);
    const memory = ram.open();
    expect(memory.writable).toBe(false);
    expect(() => memory.write(0n, Buffer.from('x'))).toThrow(
      expect.objectContaining({ code: 'VMI_UNSUPPORTED' }),
    );
    memory.close();
  });

  it('writes a file across pages, into holes and up to the end of RAM', () => {
    using ram = new Ram(0x8000);
    const memory = open([ram.segment()]);
    expect(memory.writable).toBe(true);
    expect(memory.write(0x1ffdn, Buffer.from('across the page'))).toBe(15);
    expect(textAt(ram, 0x1ffd, 15)).toBe('across the page');
    // A page that was a hole is read as it was written.
    const into = Buffer.alloc(15);
    expect(memory.read(0x1ffdn, into)).toBe(15);
    expect(into.toString()).toBe('across the page');
    expect(memory.write(0x7ffen, Buffer.from('last'))).toBe(2);
    expect(fs.fstatSync(ram.fd).size).toBe(0x8000);
    for (const address of [0x8000n, 1n << 52n, TOP])
      expect(memory.write(address, Buffer.from('x'))).toBe(0);
    expect(memory.write(0n, Buffer.alloc(0))).toBe(0);
    memory.close();
    expect(() => memory.write(0n, into)).toThrow(expect.objectContaining({ code: 'VMI_CLOSED' }));
  });

  it('goes on from segment to segment, and ends at what a dump lacks', () => {
    using ram = new Ram(0x8000);
    const half = { ...ram.segment(0n, 0x2000n), present: Uint8Array.of(1) };
    const memory = open([half, ram.segment(0x2000n, 0x1000n, 0x4000n)]);
    expect(memory.write(0xffcn, Buffer.from('12345678'))).toBe(4);
    expect(memory.write(0x1000n, Buffer.from('x'))).toBe(0);
    memory.close();
    const two = open([ram.segment(0n, 0x1000n), ram.segment(0x1000n, 0x1000n, 0x4000n)]);
    expect(two.write(0xffcn, Buffer.from('12345678'))).toBe(8);
    expect(textAt(ram, 0xffc, 4) + textAt(ram, 0x4000, 4)).toBe('12345678');
    two.close();
  });

  it('does not make a file longer that was cut', () => {
    using ram = new Ram(0x8000);
    const memory = open([ram.segment()]);
    fs.ftruncateSync(ram.fd, 0x3002);
    expect(memory.write(0x3000n, Buffer.from('four'))).toBe(2);
    expect(memory.write(0x5000n, Buffer.from('four'))).toBe(0);
    expect(fs.fstatSync(ram.fd).size).toBe(0x3002);
    memory.close();
  });

  it('says what the host refuses', () => {
    using ram = new Ram(0x8000);
    const fd = fs.openSync(ram.path, 'r');
    const memory = open([{ ...ram.segment(), fd }]);
    fs.closeSync(fd);
    expect(() => memory.write(0n, Buffer.from('x'))).toThrow(
      /^cannot write the file at offset 0x0/,
    );
    memory.close();
  });

  it('writes a process, as far as its memory can be written', () => {
    using ram = new Ram(0x8000);
    ram.put(0x1000, 'before');
    const { memory: read, holder } = ram.openAsProcess();
    read.close();
    const line = fs
      .readFileSync('/proc/self/maps', 'utf8')
      .split('\n')
      .findLast((text) => text.endsWith(ram.path))!;
    const offset = BigInt(`0x${line.split('-')[0]}`);
    const memory = open([{ kind: 'process', physical: 0n, length: 0x8000n, offset }], process.pid);
    // The mapping of this process is read-only, as every mapping of guest RAM is.
    expect(memory.write(0x1000n, Buffer.from('x'))).toBe(0);
    expect(textAt(ram, 0x1000, 6)).toBe('before');
    memory.close();
    holder.close();
  });

  it('takes addresses and bytes only', () => {
    using ram = new Ram(0x8000);
    const memory = open([ram.segment()]);
    expectMisuse((value) => memory.write(value, Buffer.alloc(1)), ADDRESSES);
    expectMisuse((value) => memory.write(0n, value), BYTES);
    expectMisuse(
      (write) => addon().openMemory({ segments: [ram.segment()], write }),
      ['undefined', 'boolean'],
    );
    memory.close();
  });
});
