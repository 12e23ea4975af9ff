import {
  closeSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  FaultError,
  type MemoryOptions,
  openMemory,
  openSource,
  type PhysicalMemory,
  parseTarget,
  VirtualMemory,
  VmiError,
} from '../../lib/index.js';
import { libvmiReport } from '../../lib/libvmi/report.js';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';
import { libvirtMissing } from '../lab/libvirt.mjs';

const MIB = 1 << 20;
const libvmi = libvmiReport();
const kvm =
  libvmi.usable && libvmi.drivers.some(({ name, present }) => name === 'kvm' && present === true);
const noLibvirt = await libvirtMissing();
if (noLibvirt !== '') console.warn(`conformance of libvirt – skipped: ${noLibvirt}`);
const DOMAIN = 'node-libvmi conformance';
if (!libvmi.loaded)
  console.warn(`conformance of libvmi – skipped: ${libvmi.error ?? 'libvmi is not installed'}`);

/** A file of RAM in one piece, by a function of JavaScript. */
function readBy(path: string): MemoryOptions {
  const fd = openSync(path, 'r');
  return {
    ranges: [{ start: 0, length: fstatSync(fd).size }],
    read: (address, into) => readSync(fd, into, 0, into.length, Number(address)),
    close: () => closeSync(fd),
  };
}

/**
 * Every source, over the RAM of real guests that stand still; QEMU itself writes what the bytes
 * are.
 */
describe('PhysicalMemory conformance', () => {
  let shared: LabGuest;
  let anonymous: LabGuest;
  let domain: LabGuest;
  const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-test-'));
  const core = join(folder, 'core.elf');

  beforeAll(async () => {
    shared = await bootGuest({ suite: 'bookworm', flavour: 'cloud', memory: 256, backend: 'file' });
    anonymous = await bootGuest({ suite: 'bookworm', flavour: 'cloud', memory: 256, qmp: false });
    if (noLibvirt === '') {
      domain = await bootGuest({
        suite: 'bookworm',
        flavour: 'cloud',
        memory: 256,
        libvirt: DOMAIN,
      });
      await domain.stop();
    }
    await shared.stop();
    await anonymous.stop();
    await shared.dumpElf(core);
  });
  afterAll(async () => {
    await shared?.close();
    await anonymous?.close();
    await domain?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const sources: [name: string, target: () => string, guest: () => LabGuest][] = [
    ['qemu, shared RAM', () => `qemu:${shared.pid}`, () => shared],
    ['qemu, anonymous RAM, no monitor', () => `qemu:${anonymous.pid}`, () => anonymous],
    ['qmp', () => `qmp:${shared.qmpPath}`, () => shared],
    ['image, raw', () => `image:${shared.memoryPath}`, () => shared],
    ['image, ELF core', () => `image:${core}`, () => shared],
  ];
  if (libvmi.loaded)
    sources.push(['libvmi, file driver', () => `libvmi:${shared.memoryPath}`, () => shared]);

  if (noLibvirt === '') sources.push(['libvirt', () => `libvirt:${DOMAIN}`, () => domain]);
  if (noLibvirt === '' && kvm)
    sources.push(['libvmi, KVM driver', () => `kvm:${DOMAIN}`, () => domain]);

  /** The same files as a user would read them himself. */
  const made: [name: string, open: () => MemoryOptions, guest: () => LabGuest][] = [
    [
      'a file that was named',
      () => ({ segments: [{ physical: 0n, file: shared.memoryPath! }] }),
      () => shared,
    ],
    ['a function', () => readBy(shared.memoryPath!), () => shared],
  ];
  const all: [name: string, open: () => Promise<PhysicalMemory>, guest: () => LabGuest][] = [
    ...sources.map(
      ([name, target, guest]) =>
        [
          name,
          async () => (await openSource(parseTarget(target()))).candidates[0]!.open(),
          guest,
        ] as (typeof all)[number],
    ),
    ...made.map(
      ([name, options, guest]) =>
        [name, async () => openMemory(options()), guest] as (typeof all)[number],
    ),
  ];

  describe.each(all)('%s', (_name, open, guest) => {
    let memory: PhysicalMemory;
    let truth: Buffer;
    /** 1 MiB of RAM at 16 MiB, as QEMU's own monitor writes it. */
    const at = 16n << 20n;

    beforeAll(async () => {
      const path = join(folder, 'truth');
      await guest().dumpRange(path, at, MIB);
      truth = readFileSync(path);
    });
    beforeEach(async () => {
      memory = await open();
    });
    afterEach(async () => {
      await memory.close();
    });

    it('has ranges that ascend and hold the guest', () => {
      expect(memory.ranges.length).toBeGreaterThan(0);
      let end = 0n;
      for (const { start, length } of memory.ranges) {
        expect(start).toBeGreaterThanOrEqual(end);
        expect(length).toBeGreaterThan(0n);
        end = start + length;
      }
      expect(memory.end).toBe(end);
      expect(memory.size).toBeGreaterThanOrEqual(255n << 20n);
      expect(memory.contains(at, BigInt(MIB))).toBe(true);
      expect(memory.contains(end)).toBe(false);
    });

    it('reads what QEMU reads, at any alignment', () => {
      memory.begin();
      expect(memory.read(at, MIB).equals(truth)).toBe(true);
      for (const offset of [0, 1, 7, 4088, 4093, 4095, 4096, MIB - 9]) {
        expect(memory.read(at + BigInt(offset), 9)).toEqual(
          Buffer.from(truth.subarray(offset, offset + 9)),
        );
        expect(memory.readU64(at + BigInt(offset))).toBe(truth.readBigUInt64LE(offset));
      }
      expect(memory.read(Number(at), 8)).toEqual(Buffer.from(truth.subarray(0, 8)));
      expect(memory.read(at, 0).length).toBe(0);
    });

    it('reads a batch, each element as far as it goes', () => {
      const addresses = BigUint64Array.of(
        at,
        at + 4090n,
        memory.end - 4n,
        memory.end,
        2n ** 64n - 1n,
        at + 5n,
      );
      const { bytes, transferred } = memory.readMany(addresses, 16);
      expect([...transferred]).toEqual([16, 16, 4, 0, 0, 16]);
      expect(bytes.subarray(0, 16).equals(truth.subarray(0, 16))).toBe(true);
      expect(bytes.subarray(16, 32).equals(truth.subarray(4090, 4106))).toBe(true);
      expect(bytes.subarray(80, 96).equals(truth.subarray(5, 21))).toBe(true);
    });

    it('says where RAM ends', () => {
      const into = Buffer.alloc(16);
      expect(memory.readInto(memory.end - 3n, into)).toBe(3);
      for (const [address, requested, transferred] of [
        [memory.end - 3n, 16, 3],
        [memory.end, 1, 0],
        [2n ** 64n - 1n, 8, 0],
      ] as const) {
        try {
          memory.read(address, requested);
          expect.unreachable();
        } catch (error) {
          expect(error).toBeInstanceOf(FaultError);
          expect(error).toMatchObject({
            code: 'VMI_FAULT',
            space: 'physical',
            requested,
            transferred,
            level: 0,
          });
          expect((error as FaultError).address).toBe(address + BigInt(transferred));
        }
      }
      expect(() => memory.readU64(memory.end - 4n)).toThrow(FaultError);
      expect(() => memory.read(-1n, 1)).toThrow(RangeError);
      expect(() => memory.read(2 ** 60, 1)).toThrow(RangeError);
      expect(() => memory.read('0' as unknown as bigint, 1)).toThrow(TypeError);
      expect(() => memory.read(0n, -1)).toThrow(RangeError);
    });

    it('finds a pattern, and stops when it is told to', async () => {
      let offset = 0;
      while (truth.subarray(offset, offset + 16).every((byte) => byte === truth[offset]))
        offset += 16;
      const pattern = truth.subarray(offset, offset + 16);
      const found = await memory.scan(pattern, { start: at, end: at + BigInt(MIB) });
      expect(found).toContain(at + BigInt(offset));
      for (const address of found) expect(memory.read(address, 16).equals(pattern)).toBe(true);
      for (const threads of [1, 3])
        expect(await memory.scan(pattern, { start: at, end: at + BigInt(MIB), threads })).toEqual(
          found,
        );
      await expect(memory.scan(pattern, { threads: 17 })).rejects.toThrow(RangeError);
      const strided = await memory.scan(pattern, {
        start: at,
        end: at + BigInt(MIB),
        stride: 4096,
        offsets: [offset % 4096],
      });
      expect(strided).toContain(at + BigInt(offset));
      await expect(memory.scan(pattern, { signal: AbortSignal.abort() })).rejects.toMatchObject({
        code: 'VMI_ABORTED',
      });
    });

    it('keeps its word on what it can do', async () => {
      const { registers, pause } = memory.capabilities;
      if (registers) {
        const rows = await memory.registers();
        expect(rows.length).toBe(2);
        for (const row of rows) expect(memory.contains(row.cr3 & ~0xfffn)).toBe(true);
      } else {
        await expect(memory.registers()).rejects.toMatchObject({ code: 'VMI_UNSUPPORTED' });
      }
      if (!pause) await expect(memory.pause()).rejects.toMatchObject({ code: 'VMI_UNSUPPORTED' });
    });

    it('is closed for good', async () => {
      await memory.close();
      await memory.close();
      const calls = [
        () => memory.begin(),
        () => memory.read(at, 8),
        () => memory.readU64(at),
        () => new VirtualMemory(memory, at, 4),
      ];
      for (const call of calls) {
        expect(call).toThrow(VmiError);
        expect(call).toThrow(/closed/);
      }
      await expect(memory.scan(Buffer.of(1))).rejects.toMatchObject({ code: 'VMI_CLOSED' });
    });
  });
});
