import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import type { NativeScan } from '../../types/addon.js';
import { BYTES, expectMisuse, NUMBERS } from './support/misuse.js';
import { Ram, thrownBy } from './support/ram.js';

const everywhere = (pattern: string): NativeScan => ({
  pattern: Buffer.from(pattern, 'latin1'),
  stride: 1,
  offsets: [0],
  max: 100,
});

describe('Memory.scan', () => {
  it('finds a pattern anywhere, in order', async () => {
    using ram = new Ram(6 << 20);
    const places = [0, 0xffd, 0x5003, (2 << 20) - 3, (4 << 20) - 1, (6 << 20) - 6];
    for (const at of places) ram.put(at, 'needle');
    const memory = ram.open();
    expect([...(await memory.scan(everywhere('needle')))]).toEqual(places.map(BigInt));
    expect([...(await memory.scan(everywhere('haystack')))]).toEqual([]);
    memory.close();
    const read = ram.openAsProcess();
    expect([...(await read.memory.scan(everywhere('needle')))]).toEqual(places.map(BigInt));
    read.memory.close();
    read.holder.close();
  });

  it('finds the same with any number of threads', async () => {
    using ram = new Ram(24 << 20);
    const places = Array.from({ length: 300 }, (_, i) => (i + 1) * 0x12345 - (i % 7)).filter(
      (at) => at < (24 << 20) - 6,
    );
    for (const mib of [2, 4, 6, 8]) places.push((mib << 20) - 3);
    places.sort((a, b) => a - b);
    for (const at of places) ram.put(at, 'needle');
    const read = ram.openAsProcess();
    for (const memory of [ram.open(), read.memory]) {
      for (const threads of [undefined, 1, 2, 3, 16]) {
        const request = { ...everywhere('needle'), ...(threads === undefined ? {} : { threads }) };
        expect([...(await memory.scan({ ...request, max: 1000 }))]).toEqual(places.map(BigInt));
        expect([...(await memory.scan({ ...request, max: 7 }))]).toEqual(
          places.slice(0, 7).map(BigInt),
        );
      }
      memory.close();
    }
    read.holder.close();
  });

  it('looks only where it is told to', async () => {
    using ram = new Ram(0x10000);
    for (const at of [0x1000, 0x2018, 0x3008, 0x4018, 0x5000]) ram.put(at, 'OSRELEASE=');
    const memory = ram.open();
    const request = { ...everywhere('OSRELEASE='), stride: 4096, offsets: [0x18, 0] };
    expect([...(await memory.scan(request))]).toEqual([0x1000n, 0x2018n, 0x4018n, 0x5000n]);
    expect([...(await memory.scan({ ...request, start: 0x1001n, end: 0x4022n }))]).toEqual([
      0x2018n,
      0x4018n,
    ]);
    expect([...(await memory.scan({ ...request, start: 0x1001n, end: 0x4021n }))]).toEqual([
      0x2018n,
    ]);
    expect([...(await memory.scan({ ...request, end: 1n << 64n, max: 2 }))]).toEqual([
      0x1000n,
      0x2018n,
    ]);
    expect([...(await memory.scan({ ...request, start: 0x4000n, end: 0x4000n }))]).toEqual([]);
    expect([...(await memory.scan({ ...request, start: 0x5000n, end: 0x4000n }))]).toEqual([]);
    expect([...(await memory.scan({ ...request, end: 0n }))]).toEqual([]);
    memory.close();
  });

  it('finds a pattern across ranges that touch, not across others', async () => {
    using ram = new Ram(0x4000);
    ram.put(0x0ffd, 'nee');
    ram.put(0x3000, 'dle');
    const touching = ram.open([
      ram.segment(0x1000n, 0x1000n, 0n),
      ram.segment(0x2000n, 0x1000n, 0x3000n),
    ]);
    expect([...(await touching.scan(everywhere('needle')))]).toEqual([0x1ffdn]);
    touching.close();
    const apart = ram.open([
      ram.segment(0x1000n, 0x1000n, 0n),
      ram.segment(0x3000n, 0x1000n, 0x3000n),
    ]);
    expect([...(await apart.scan(everywhere('needle')))]).toEqual([]);
    apart.close();
  });

  it.each([1, 4])('stops when the byte is set, with %d threads', async (threads) => {
    using ram = new Ram(512 << 20);
    const { memory, holder } = ram.openAsProcess();
    const cancel = new Uint8Array(1);
    const scan = memory.scan({ ...everywhere('needle'), threads, cancel });
    const expected = expect(scan).rejects.toMatchObject({
      code: 'VMI_ABORTED',
      message: 'the scan was aborted',
    });
    await sleep(5);
    cancel[0] = 1;
    await expected;
    await expect(memory.scan({ ...everywhere('needle'), threads, cancel })).rejects.toMatchObject({
      code: 'VMI_ABORTED',
    });
    memory.close();
    holder.close();
  });

  it('outlives the buffer of the byte', async () => {
    using ram = new Ram(64 << 20);
    const { memory, holder } = ram.openAsProcess();
    const cancel = new Uint8Array(1);
    const scan = memory.scan({ ...everywhere('needle'), cancel });
    structuredClone(cancel.buffer, { transfer: [cancel.buffer] });
    expect((await scan).length).toBe(0);
    memory.close();
    holder.close();
  });

  it('is ended by close, which waits for it', async () => {
    using ram = new Ram(512 << 20);
    const { memory, holder } = ram.openAsProcess();
    const scans = Array.from({ length: 6 }, (_, i) =>
      memory.scan({ ...everywhere('needle'), threads: i + 1 }),
    );
    const expected = Promise.all(
      scans.map((scan) => expect(scan).rejects.toMatchObject({ code: 'VMI_CLOSED' })),
    );
    await sleep(5);
    memory.close();
    holder.close();
    await expected;
  });

  it('lets others read meanwhile', async () => {
    using ram = new Ram(64 << 20);
    ram.put64(0x1008, 9n);
    const { memory, holder } = ram.openAsProcess();
    const scan = memory.scan(everywhere('needle'));
    for (let i = 0; i < 1000; i++) expect(memory.readU64(0x1008n)).toBe(9n);
    await scan;
    memory.close();
    holder.close();
  });

  it('copies the pattern', async () => {
    using ram = new Ram(4 << 20);
    ram.put(0x200000, 'needle');
    const memory = ram.open();
    const request = everywhere('needle');
    const scan = memory.scan(request);
    request.pattern.fill(0);
    expect([...(await scan)]).toEqual([0x200000n]);
    memory.close();
  });

  it('refuses what cannot be meant', async () => {
    using ram = new Ram(0x4000);
    const memory = ram.open();
    const good = everywhere('needle');
    expectMisuse((value) => memory.scan(value), []);
    expectMisuse((value) => memory.scan({ ...good, pattern: value }), BYTES);
    expectMisuse((value) => memory.scan({ ...good, stride: value }), NUMBERS);
    expectMisuse((value) => memory.scan({ ...good, offsets: value }), []);
    expectMisuse((value) => memory.scan({ ...good, stride: 8192, offsets: [value] }), NUMBERS);
    expectMisuse((value) => memory.scan({ ...good, max: value }), NUMBERS);
    expectMisuse((value) => memory.scan({ ...good, threads: value }), [...NUMBERS, 'undefined']);
    expectMisuse((value) => memory.scan({ ...good, cancel: value }), [...BYTES, 'undefined']);
    for (const field of ['start', 'end'] as const) {
      const accepted = ['undefined', 'bigint', ...(field === 'end' ? ['large bigint'] : [])];
      expectMisuse((value) => memory.scan({ ...good, [field]: value }), accepted);
    }
    for (const bad of [
      { pattern: new Uint8Array(0) },
      { pattern: new Uint8Array(257) },
      { stride: 0 },
      { stride: 2 ** 31 },
      { offsets: [] },
      { offsets: [1] },
      { offsets: Array(65).fill(0) },
      { max: 0 },
      { max: 65_537 },
      { threads: 0 },
      { threads: 17 },
      { end: (1n << 64n) + 1n },
    ]) {
      expect(
        thrownBy(() => memory.scan({ ...good, ...bad })),
        JSON.stringify(bad, (_, v) => String(v)),
      ).toBeInstanceOf(RangeError);
    }
    memory.close();
  });
});
