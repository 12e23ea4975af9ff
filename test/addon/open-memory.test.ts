import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { addon } from '../../lib/addon.js';
import type { NativeSegment } from '../../types/addon.js';
import { expectMisuse } from './support/misuse.js';
import { Ram, thrownBy } from './support/ram.js';

let ram: Ram;
beforeEach(() => {
  ram = new Ram(0x8000);
});
afterEach(() => {
  ram.remove();
});

const open = (segments: unknown, pid?: unknown) =>
  addon().openMemory({ segments, ...(pid === undefined ? {} : { pid }) } as never);

describe('openMemory of files', () => {
  it('keeps a descriptor of its own', () => {
    const fd = fs.openSync(ram.path, 'r');
    const memory = addon().openMemory({ segments: [{ ...ram.segment(), fd }] });
    fs.closeSync(fd);
    ram.put64(0x18, 3n);
    expect(memory.readU64(0x18n)).toBe(3n);
    memory.close();
  });

  it('merges neighbours and sorts', () => {
    const memory = ram.open([
      ram.segment(0x5000n, 0x1000n, 0x2000n),
      ram.segment(0x1000n, 0x2000n, 0x0n),
      ram.segment(0x4000n, 0x1000n, 0x7000n),
    ]);
    expect([...memory.ranges]).toEqual([0x1000n, 0x2000n, 0x4000n, 0x2000n]);
    expect(memory.mapped).toBe(true);
    ram.put64(0x7ff8, 0x1111111122222222n);
    ram.put64(0x2000, 0x3333333344444444n);
    expect(memory.readU64(0x4ffcn)).toBe(0x4444444411111111n);
    memory.close();
  });

  it('maps a file of many runs once, and has each where it belongs', () => {
    const runs = Array.from({ length: 2000 }, (_, i) =>
      // Every second page of RAM, from the file's pages in turn, 8 bytes off a page.
      ram.segment(BigInt(2 * i) << 12n, 0x1000n, (BigInt(i % 7) << 12n) + 8n),
    );
    for (let page = 0; page < 8; page++) ram.put64(page << 12, BigInt(100 + page));
    ram.put64(0x3010, 0x77n);
    const maps = () => fs.readFileSync('/proc/self/maps', 'utf8').split(ram.path).length - 1;
    const before = maps();
    const memory = ram.open(runs);
    expect(maps() - before).toBe(1);
    expect(memory.readU64((2n * 1998n) << 12n)).toBe(0n);
    expect(memory.readU64(((2n * 1998n) << 12n) + 0xff8n)).toBe(BigInt(100 + (1998 % 7) + 1));
    expect(memory.readU64(((2n * 3n) << 12n) + 8n)).toBe(0x77n);
    expect(memory.read(1n << 12n, new Uint8Array(8))).toBe(0);
    memory.close();
  });

  it('has pages that are absent: none of the file, and what a page set leaves out', () => {
    for (let page = 0; page < 8; page++) ram.put64(page << 12, BigInt(100 + page));
    const memory = ram.open([
      { ...ram.segment(), present: Uint8Array.of(0b1011_0110) },
      { physical: 0x8000n, length: 0x2000n, kind: 'absent' },
    ]);
    expect([...memory.ranges]).toEqual([0n, 0xa000n]);
    expect(memory.mapped).toBe(true);
    const held = Array.from({ length: 11 }, (_, page) => !memory.absent(BigInt(page) << 12n));
    const expected = [false, true, true, false, true, true, false, true, false, false, true];
    expect(held).toEqual(expected);
    for (const [page, holds] of expected.slice(0, 10).entries()) {
      const into = new Uint8Array(16);
      expect(memory.read(BigInt(page) << 12n, into), `page ${page}`).toBe(holds ? 16 : 0);
      if (holds) expect(memory.readU64(BigInt(page) << 12n)).toBe(BigInt(100 + page));
      else {
        const error = thrownBy(() => memory.readU64(BigInt(page) << 12n));
        expect(error).toMatchObject({ code: 'VMI_FAULT', level: 0, absent: true });
      }
    }
    expect(memory.read(0x1ff8n, new Uint8Array(0x4000))).toBe(0x1008);
    memory.close();
    expect(thrownBy(() => memory.absent(0n)).code).toBe('VMI_CLOSED');
  });

  it('does not need aligned offsets', () => {
    ram.put64(0x123, 0xabcdefn);
    const memory = ram.open([ram.segment(0n, 0x1000n, 0x123n)]);
    expect(memory.readU64(0n)).toBe(0xabcdefn);
    memory.close();
  });

  it('refuses a segment that ends beyond the file', () => {
    const error = thrownBy(() => ram.open([ram.segment(0n, 0x8000n, 0x1000n)]));
    expect(error.code).toBe('VMI_ATTACH');
    expect(error.message).toBe(
      'a segment of 32768 bytes at file offset 0x1000 ends beyond the file, which has 32768 bytes',
    );
  });

  it('refuses descriptors that cannot be mapped', () => {
    const folder = fs.openSync('/', 'r');
    const writeOnly = fs.openSync(ram.path, 'a');
    for (const fd of [folder, writeOnly, 54321]) {
      expect(thrownBy(() => open([{ ...ram.segment(), fd }])).code).toBe('VMI_ATTACH');
    }
    fs.closeSync(folder);
    fs.closeSync(writeOnly);
  });
});

describe('openMemory of a process', () => {
  it('reads it', () => {
    ram.put64(0x2345, 99n);
    const { memory, holder } = ram.openAsProcess();
    expect(memory.mapped).toBe(false);
    expect(memory.readU64(0x2345n)).toBe(99n);
    memory.close();
    holder.close();
  });

  it('refuses an address where there is nothing', () => {
    const segment = { kind: 'process', physical: 0n, length: 0x1000n, offset: 0x1000n };
    const error = thrownBy(() => open([segment], process.pid));
    expect(error.code).toBe('VMI_ATTACH');
    expect(error.message).toBe(`process ${process.pid} has no memory at 0x1000`);
  });

  it('refuses a process that is not there', () => {
    const segment = { kind: 'process', physical: 0n, length: 0x1000n, offset: 0x1000n };
    const error = thrownBy(() => open([segment], 0x3ffffff0));
    expect(error.code).toBe('VMI_ATTACH');
    expect(error.message).toBe('there is no process 1073741808');
  });
});

describe('a process that exits', () => {
  let child: ChildProcess;
  beforeEach(async () => {
    child = spawn(process.execPath, ['-e', 'console.log(1); setInterval(() => {}, 1e6)'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout!, 'data');
  });
  afterEach(() => {
    child.kill('SIGKILL');
  });

  it('is VMI_CLOSED', async () => {
    // The first mapping is the program itself: an ELF header.
    const maps = fs.readFileSync(`/proc/${child.pid}/maps`, 'utf8');
    const offset = BigInt(`0x${maps.split('-')[0]}`);
    const memory = addon().openMemory({
      pid: child.pid!,
      segments: [{ kind: 'process', physical: 0x1000n, length: 0x1000n, offset }],
    });
    const mapped = addon().openMemory({ pid: child.pid!, segments: [ram.segment()] });
    memory.begin();
    mapped.begin();
    expect(memory.readU64(0x1000n) & 0xffffffffn).toBe(0x464c457fn);
    child.kill('SIGKILL');
    await once(child, 'exit');
    const gone = { code: 'VMI_CLOSED', message: `QEMU process ${child.pid} has exited` };
    expect(() => memory.readU64(0x1000n)).toThrow(expect.objectContaining(gone));
    expect(() => memory.read(0x1000n, new Uint8Array(8))).toThrow(expect.objectContaining(gone));
    expect(() => memory.begin()).toThrow(expect.objectContaining(gone));
    expect(() => mapped.begin()).toThrow(expect.objectContaining(gone));
    memory.close();
    mapped.close();
  });
});

describe('openMemory, misused', () => {
  it('refuses wrong types', () => {
    expectMisuse((value) => addon().openMemory(value), []);
    expectMisuse((value) => open(value), []);
    expectMisuse((value) => open([value]), []);
    for (const field of ['physical', 'length', 'offset'] as const) {
      const accepted = field === 'offset' ? ['bigint'] : ['bigint'];
      expectMisuse((value) => open([{ ...ram.segment(), [field]: value }]), accepted);
    }
    expectMisuse((value) => open([{ ...ram.segment(), kind: value }]), []);
    expectMisuse((value) => open([{ ...ram.segment(), fd: value }]), ['number']);
    expectMisuse((value) => open([{ ...ram.segment(), present: value ?? null }]), []);
    expectMisuse((value) => open([ram.segment()], value ?? null), ['number']);
  });

  it.each<[string, (good: NativeSegment) => NativeSegment[]]>([
    ['none', () => []],
    ['one off a page', (good) => [{ ...good, physical: 1n }]],
    ['one of no bytes', (good) => [{ ...good, length: 0n }]],
    ['one of part of a page', (good) => [{ ...good, length: 0x800n }]],
    ['one beyond 2^64', (good) => [{ ...good, physical: 0xfffffffffffff000n }]],
    ['one at an offset beyond 2^63', (good) => [{ ...good, offset: 0xffffffffffffffffn }]],
    ['two that overlap', (good) => [good, { ...good, physical: 0x7000n }]],
    ['a page set for other than its pages', (good) => [{ ...good, present: new Uint8Array(2) }]],
    ['an empty page set', (good) => [{ ...good, present: new Uint8Array(0) }]],
    [
      'a page set off a page of the file',
      (good) => [{ ...good, length: 0x1000n, offset: 8n, present: Uint8Array.of(1) }],
    ],
    [
      'a page set of a process',
      (good) => [{ ...good, kind: 'process', present: Uint8Array.of(0xff) }],
    ],
    ['a process without pid', (good) => [{ ...good, kind: 'process' }]],
    [
      'more than 131,072',
      (good) =>
        Array.from({ length: 131_073 }, (_, i) => ({ ...good, physical: BigInt(i) << 20n })),
    ],
  ])('refuses segments: %s', (_, make) => {
    expect(thrownBy(() => open(make(ram.segment())))).toBeInstanceOf(RangeError);
  });

  it('passes on what a getter throws', () => {
    const options = {
      get segments(): never {
        throw new Error('mine');
      },
    };
    expect(() => addon().openMemory(options)).toThrow('mine');
  });
});
