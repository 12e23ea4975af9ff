import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FaultError } from '../../../../lib/errors.js';
import type { PhysicalMemory } from '../../../../lib/memory/physical-memory.js';
import { VirtualMemory } from '../../../../lib/memory/virtual-memory.js';
import {
  DumpFolder,
  elfOf,
  flattened,
  kdumpOf,
  PACK,
  PAGE,
  pageOf,
  pfns,
  type Ram,
} from './support/dumps.js';

const folder = new DumpFolder();
afterAll(() => folder.remove());

const ABSENT = [20, 21, 30, 41, 42];
const ZERO = [18, 32];
/** Two runs, the second starting at no multiple of eight pages. */
const RAM: Ram = {
  runs: [
    { first: 16, count: 20 },
    { first: 41, count: 30 },
  ],
  page: (pfn) =>
    ABSENT.includes(pfn) ? undefined : ZERO.includes(pfn) ? Buffer.alloc(PAGE) : pageOf(pfn),
};

const FORMATS: readonly (readonly [name: string, file: () => Buffer])[] = [
  ['ELF with p_filesz < p_memsz', () => elfOf(RAM)],
  ...Object.keys(PACK).map(
    (flags) => [`kdump, flags ${flags}`, () => kdumpOf(RAM, Number(flags))] as const,
  ),
  ['kdump, flattened', () => flattened(kdumpOf(RAM), 1000)],
];

describe.each(FORMATS)('a page that a dump lacks: %s', (_, file) => {
  let memory: PhysicalMemory;
  beforeAll(async () => {
    memory = await folder.open(file());
  });
  const address = (pfn: number) => BigInt(pfn * PAGE);

  it('has every other page, zeroes where the dump says zero', () => {
    for (const pfn of pfns(RAM)) {
      const page = RAM.page(pfn);
      if (page !== undefined)
        expect(memory.read(address(pfn), PAGE).equals(page), `page ${pfn}`).toBe(true);
      expect(memory.absent(address(pfn))).toBe(page === undefined);
    }
  });

  it('counts it as RAM', () => {
    expect(memory.ranges).toEqual(
      RAM.runs.map(({ first, count }) => ({
        start: address(first),
        length: BigInt(count * PAGE),
      })),
    );
  });

  it.each(ABSENT)('is a fault that says so: page %i', (pfn) => {
    for (const read of [
      () => memory.readU64(address(pfn) + 8n),
      () => memory.read(address(pfn), 16),
      () => memory.read(address(pfn) + 8n, PAGE),
    ]) {
      let error: unknown;
      try {
        read();
      } catch (thrown) {
        error = thrown;
      }
      expect(error).toBeInstanceOf(FaultError);
      expect(error).toMatchObject({ code: 'VMI_FAULT', level: 0, absent: true });
      expect((error as Error).message).toContain('this page is not in the dump (excluded)');
    }
    expect(memory.readInto(address(pfn), Buffer.alloc(100))).toBe(0);
  });

  it('ends a read that runs into it', () => {
    expect(memory.readInto(address(19) + 100n, Buffer.alloc(2 * PAGE))).toBe(PAGE - 100);
    const { transferred } = memory.readMany(
      BigUint64Array.of(address(19), address(20), address(29) + 4090n, address(31)),
      8,
    );
    expect([...transferred]).toEqual([8, 0, 6, 8]);
  });

  it('is not what is beyond RAM', () => {
    expect(memory.absent(0n)).toBe(false);
    expect(() => memory.readU64(0n)).toThrow('the address is not in guest RAM');
  });

  it('is passed over by a scan', async () => {
    // The first bytes of every page that is not zero, and nothing of what was left out.
    for (const pfn of [16, 22, 43, 70]) {
      const pattern = pageOf(pfn).subarray(0, 68);
      expect(await memory.scan(pattern), `page ${pfn}`).toEqual([address(pfn)]);
    }
    expect(await memory.scan(pageOf(41).subarray(0, 68))).toEqual([]);
    // Zeroes across its border are no hit, nor are they in it.
    const hits = await memory.scan(new Uint8Array(128), { stride: 64, max: 65536 });
    for (const hit of hits) {
      const pfn = Number(hit) / PAGE;
      expect(ABSENT.some((absent) => absent === Math.floor(pfn))).toBe(false);
    }
  });
});

it('is a fault by a virtual address, too: the page, or a page of the page table', async () => {
  // PML4 at page 1, down to page 4; page 5 is mapped and left out, page 6 is a table that was left
  // out.
  const entry = (pfn: number) => BigInt(pfn * PAGE) | 3n;
  const table = (entries: Record<number, bigint>) => {
    const page = Buffer.alloc(PAGE);
    for (const [index, value] of Object.entries(entries))
      page.writeBigUInt64LE(value, Number(index) * 8);
    return page;
  };
  const pages: Record<number, Buffer> = {
    1: table({ 0: entry(2) }),
    2: table({ 0: entry(3) }),
    3: table({ 0: entry(4), 1: entry(6) }),
    4: table({ 0: entry(5), 1: entry(7) }),
    7: pageOf(7),
  };
  const ram: Ram = { runs: [{ first: 1, count: 8 }], page: (pfn) => pages[pfn] };
  for (const file of [elfOf(ram), kdumpOf(ram)]) {
    const space = new VirtualMemory(await folder.open(file), BigInt(PAGE), 4);
    expect(space.read(0x1000n, 8).equals(pageOf(7).subarray(0, 8))).toBe(true);
    for (const address of [0n, 0x20_0000n]) {
      const message = /\(virtual, cr3 0x1000\): this page is not in the dump \(excluded\)/;
      expect(() => space.readU64(address)).toThrow(message);
      expect(() => space.read(address, 16)).toThrow(message);
    }
    expect(() => space.translate(0x20_0000n)).toThrow('this page is not in the dump (excluded)');
    expect(() => space.read(0x40_0000n, 8)).toThrow('page not present at pd');
  }
});
