import { execFileSync, spawnSync } from 'node:child_process';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { VmiError } from '../../../../lib/errors.js';
import { openImage } from '../../../../lib/memory/image/image.js';
import {
  avmlOf,
  DumpFolder,
  elfCore,
  elfNote,
  elfOf,
  flattened,
  kdumpOf,
  libvirtSaveOf,
  limeOf,
  mappedRamOf,
  migrationOf,
  PAGE,
  pageOf,
  pfns,
  type Ram,
  vmwareOf,
  xenCoreOf,
} from './support/dumps.js';

const folder = new DumpFolder();
afterAll(() => folder.remove());

/** From page 0 on, as a migration stream and a .vmem have it. */
const WHOLE: Ram = {
  runs: [{ first: 0, count: 40 }],
  page: (pfn) => (pfn % 7 === 3 ? Buffer.alloc(PAGE) : pageOf(pfn)),
};
/** Two runs, and no page at 0. */
const SPLIT: Ram = {
  runs: [
    { first: 1, count: 9 },
    { first: 16, count: 30 },
  ],
  page: WHOLE.page,
};

const vmware = vmwareOf(SPLIT);
folder.write(vmware.state, 'guest.vmss');

const FORMATS: Record<string, { ram: Ram; file: Buffer; name?: string }> = {
  'ELF core': { ram: SPLIT, file: elfOf(SPLIT) },
  'LiME dump': { ram: SPLIT, file: limeOf(SPLIT) },
  'AVML dump, plain': { ram: SPLIT, file: avmlOf(SPLIT, 1) },
  'AVML dump, packed': { ram: SPLIT, file: avmlOf(SPLIT, 2) },
  kdump: { ram: SPLIT, file: kdumpOf(SPLIT) },
  'kdump, flattened': { ram: SPLIT, file: flattened(kdumpOf(SPLIT), 777) },
  'core of Xen': { ram: SPLIT, file: xenCoreOf(SPLIT) },
  'migration stream': { ram: WHOLE, file: migrationOf(WHOLE) },
  'mapped-ram': { ram: WHOLE, file: mappedRamOf(WHOLE) },
  'virsh save': { ram: WHOLE, file: libvirtSaveOf(WHOLE) },
  VMware: { ram: SPLIT, file: vmware.memory, name: 'guest.vmem' },
  'LiME dump in gzip': { ram: SPLIT, file: gzipSync(limeOf(SPLIT)) },
};
if (spawnSync('zstd', ['--version']).status === 0) {
  const file = execFileSync('zstd', ['-q', '-c'], { input: elfOf(SPLIT) });
  FORMATS['ELF core in zstd'] = { ram: SPLIT, file };
} else {
  console.warn('ELF core in zstd – skipped: zstd is not installed');
}

describe.each(Object.entries(FORMATS))('%s', (_, { ram, file, name }) => {
  it('has every page where it belongs', async () => {
    const memory = await folder.open(file, name);
    for (const pfn of pfns(ram)) {
      const read = memory.read(BigInt(pfn * PAGE), PAGE);
      expect(read.equals(ram.page(pfn)!), `page ${pfn}`).toBe(true);
    }
    expect(memory.ranges).toEqual(
      ram.runs.map(({ first, count }) => ({
        start: BigInt(first * PAGE),
        length: BigInt(count * PAGE),
      })),
    );
  });

  /**
   * Opens bytes: a memory none of whose pages has bytes that the dump did not have, or a coded
   * error.
   */
  const isSound = async (bytes: Uint8Array) => {
    const path = folder.write(bytes, name ?? 'bent');
    const source = await openImage(path).catch((error: unknown) => error);
    if (source instanceof Error) {
      expect(source).toBeInstanceOf(VmiError);
      expect(source).toMatchObject({ code: 'VMI_ATTACH' });
      return;
    }
    const { candidates, close } = source as Awaited<ReturnType<typeof openImage>>;
    try {
      const memory = candidates[0]!.open();
      const into = Buffer.alloc(PAGE);
      for (const { start } of memory.ranges.slice(0, 50)) memory.readInto(start, into);
      await memory.close();
    } catch (error) {
      // More runs than a memory has, or runs that overlap the end of addresses.
      expect(error instanceof VmiError || error instanceof RangeError, String(error)).toBe(true);
    } finally {
      await close();
    }
  };

  it('ends in a coded error, or has less, when it is cut at any byte of its headers', async () => {
    const cuts = [...Array(Math.min(file.length, 200)).keys()];
    for (let at = 200; at < file.length; at += Math.max(1, file.length >> 6)) cuts.push(at);
    for (const cut of cuts) await isSound(file.subarray(0, cut));
  });

  it('ends in a coded error, or in a memory, whatever its headers say', async () => {
    const bent = fc
      .array(fc.tuple(fc.nat(Math.min(file.length - 1, 4096 + 200)), fc.nat(255)), {
        minLength: 1,
        maxLength: 4,
      })
      .map((changes) => {
        const bytes = Buffer.from(file);
        for (const [at, byte] of changes) bytes[at] = byte;
        return bytes;
      });
    await fc.assert(fc.asyncProperty(bent, isSound), { numRuns: 60 });
  });
});

describe('an ELF core of the running or the crashed kernel', () => {
  const text = Buffer.concat([20, 21, 22].map(pageOf));
  const all = Buffer.concat(Array.from({ length: 30 }, (_, i) => pageOf(16 + i)));
  const virtual = 0xffff_8880_0000_0000n;
  const vmcore = [
    { physical: 20n * 4096n, virtual: 0xffff_ffff_8100_0000n, bytes: text },
    { physical: 16n * 4096n, virtual: virtual + 16n * 4096n, bytes: all },
  ];

  it('has the text of the kernel twice', async () => {
    const memory = await folder.open(elfCore(vmcore));
    for (let pfn = 16; pfn < 46; pfn++)
      expect(memory.read(BigInt(pfn * PAGE), PAGE).equals(pageOf(pfn))).toBe(true);
    expect(memory.ranges).toEqual([{ start: 16n * 4096n, length: 30n * 4096n }]);
  });

  it('leaves out what has no physical address, as vmalloc and modules', async () => {
    const nowhere = {
      physical: 0xffff_ffff_ffff_ffffn,
      virtual: 0xffff_c900_0000_0000n,
      bytes: Buffer.alloc(PAGE),
      length: 0x1fff_ffff_ffffn,
    };
    const memory = await folder.open(elfCore([nowhere, ...vmcore]));
    expect(memory.ranges).toEqual([{ start: 16n * 4096n, length: 30n * 4096n }]);
  });

  it('may hold nothing of a range, as VirtualBox of devices', async () => {
    const hole = { physical: 0xa0000n, bytes: Buffer.alloc(0), length: 0x20000n };
    const memory = await folder.open(elfCore([...vmcore, hole]));
    expect(memory.absent(0xa0000n)).toBe(true);
    expect(() => memory.readU64(0xa0000n)).toThrow('this page is not in the dump (excluded)');
  });
});

it('names the core of a process, and of which', async () => {
  const info = Buffer.alloc(136);
  info.write('qemu-system-x86', 40);
  const loads = [0, 1].map((i) => ({ physical: 0n, bytes: pageOf(i) }));
  const core = folder.write(elfCore(loads, elfNote('CORE', 3, info)));
  await expect(openImage(core)).rejects.toMatchObject({
    code: 'VMI_ATTACH',
    message: expect.stringMatching(
      /a core of the process 'qemu-system-x86' on the host, not of a guest: .*dump-guest-memory/,
    ),
  });
});

describe('what a migration stream may say', () => {
  it('counts the page that came last', async () => {
    const changed: Ram = { ...WHOLE, page: (pfn) => (pfn === 5 ? pageOf(99) : WHOLE.page(pfn)) };
    const memory = await folder.open(migrationOf(WHOLE, changed));
    expect(memory.read(5n * 4096n, PAGE).equals(pageOf(99))).toBe(true);
    expect(memory.read(6n * 4096n, PAGE).equals(pageOf(6))).toBe(true);
  });

  it('has no page that never came', async () => {
    const memory = await folder.open(
      migrationOf({ ...WHOLE, page: (pfn) => (pfn === 9 ? undefined : WHOLE.page(pfn)) }),
    );
    expect(() => memory.readU64(9n * 4096n)).toThrow('this page is not in the dump (excluded)');
  });

  it('is refused with capabilities, and when libvirt packed it', async () => {
    const multifd = mappedRamOf(WHOLE, ['multifd', 'mapped-ram', 'x-ignore-shared']);
    await expect(openImage(folder.write(multifd))).rejects.toThrow('made with multifd, x-ignore');
    const packed = libvirtSaveOf(WHOLE);
    packed.writeUInt32LE(1, 28);
    await expect(openImage(folder.write(packed))).rejects.toThrow('packed with gzip');
  });
});

it.each([
  ['QFI\xfb', 'a qcow2 disk'],
  ['BZh9', 'a bzip2 file'],
  ['\xfd7zXZ\0', 'an xz file'],
  ['\xd0\xbe\xd2\xbe\x08\0\0\0\x01\0\0\0', 'the state of a VMware guest'],
])('says what %j is', async (magic, name) => {
  const path = folder.write(Buffer.concat([Buffer.from(magic, 'latin1'), Buffer.alloc(5000)]));
  await expect(openImage(path)).rejects.toMatchObject({
    code: 'VMI_ATTACH',
    message: expect.stringContaining(name),
  });
});
