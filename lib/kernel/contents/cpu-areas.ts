import { wrap } from '../../address.js';
import { FaultError } from '../../errors.js';
import type { VirtualMemory } from '../../memory/virtual-memory.js';
import type { MappedImage } from '../image.js';
import { GuestWords } from '../layout/guest-words.js';

/** Bytes of a CPU's static variables that are searched, from their start on. */
export const AREA_LENGTH = 512 << 10;
/** Values of the image that come into question. */
const MAX_VALUES = 4096;
/** CONFIG_NR_CPUS at most. arch/x86/Kconfig, NR_CPUS_RANGE_END. */
const MAX_CPUS = 8192;
const WORD = 8n;
/** Addresses are counted modulo this. */
const SPACE = 1n << 64n;

/** Where each CPU has its variables. */
export interface CpuAreas {
  /** Address of `__per_cpu_offset`. */
  readonly table: bigint;
  /** Address of `this_cpu_off`, as symbols have it: each CPU's is what is added to it. */
  readonly self: bigint;
  /**
   * Where per-cpu symbols start: 0, or an address of the image (since 6.15, commit 9d7de2aa8b41).
   */
  readonly start: bigint;
  /** What is added to a per-cpu symbol, by CPU. */
  readonly offsets: readonly bigint[];
}

/** The image of a kernel, read as a whole; zeroes where it has holes. */
export function readImage(space: VirtualMemory, image: MappedImage): Buffer {
  const bytes = Buffer.alloc(Number(image.length));
  for (const { virtual, length } of image.runs) {
    const at = Number(virtual - image.virtual);
    space.readInto(virtual, bytes.subarray(at, at + Number(length)));
  }
  return bytes;
}

/**
 * Finds `__per_cpu_offset` by its contents: a table of addresses of pages, at each of which, the
 * same distance behind it, that address stands again (`this_cpu_off`).
 * @param bytes the image's
 * @returns what comes into question, those with the most CPUs first
 */
export function findCpuAreas(space: VirtualMemory, image: MappedImage, bytes: Buffer): CpuAreas[] {
  const values = pageAddresses(image, bytes);
  const area = Buffer.allocUnsafeSlow(AREA_LENGTH);
  const found: CpuAreas[] = [];
  const look = (offset: bigint, start: bigint) => {
    for (const self of selfReferences(space, offset, start, area)) {
      for (const place of values.get(offset)!)
        found.push(areasAt(new GuestWords(space), { place, self, start }));
    }
  };
  for (const offset of values.keys()) look(offset, 0n);
  // Since 6.15 per-cpu symbols count from where the image has them: then the address of the first
  // CPU's variables is known to the kernel, too (`pcpu_base_addr`).
  for (const offset of values.keys()) {
    for (const base of values.keys()) {
      const start = base - offset + SPACE;
      if (start >= image.virtual && start < image.virtual + image.length) look(offset, start);
    }
  }
  return found.sort((a, b) => b.offsets.length - a.offsets.length);
}

/** Words of the image that are addresses of pages outside it, and where they stand. */
function pageAddresses(image: MappedImage, bytes: Buffer): Map<bigint, bigint[]> {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
  const found = new Map<bigint, bigint[]>();
  for (let i = 0; i + 1 < words.length; i += 2) {
    const high = words[i + 1]!;
    // What is above is the image's and modules'.
    if (high < 0xff00_0000 || high === 0xffff_ffff || (words[i]! & 0xfff) !== 0) continue;
    const value = bytes.readBigUInt64LE(4 * i);
    const places = found.get(value) ?? [];
    if (places.length === 0 && found.size >= MAX_VALUES) continue;
    if (places.length < 16) places.push(image.virtual + BigInt(4 * i));
    found.set(value, places);
  }
  return found;
}

/** Per-cpu symbols at which a CPU's own offset stands. */
function selfReferences(
  space: VirtualMemory,
  offset: bigint,
  start: bigint,
  area: Buffer,
): bigint[] {
  let read: number;
  try {
    read = space.readInto(wrap(start + offset), area);
  } catch (error) {
    if (error instanceof FaultError) return [];
    throw error;
  }
  const pattern = Buffer.alloc(8);
  pattern.writeBigUInt64LE(offset);
  const bytes = area.subarray(0, read);
  const found: bigint[] = [];
  for (let at = bytes.indexOf(pattern); at >= 0; at = bytes.indexOf(pattern, at + 1)) {
    if (at % 8 === 0) found.push(start + BigInt(at));
  }
  return found;
}

/** The table that a place is in: the entries around it that fit as well. */
function areasAt(
  words: GuestWords,
  { place, self, start }: { place: bigint; self: bigint; start: bigint },
): CpuAreas {
  const fits = (at: bigint) => {
    const offset = words.u64(at);
    return offset !== undefined && offset !== 0n && words.u64(wrap(self + offset)) === offset;
  };
  let table = place;
  for (let n = 0; n < MAX_CPUS && fits(table - WORD); n++) table -= WORD;
  const offsets: bigint[] = [];
  const seen = new Set<bigint>();
  for (let at = table; offsets.length < MAX_CPUS && fits(at); at += WORD) {
    const offset = words.u64(at)!;
    // No two CPUs share their variables.
    if (seen.has(offset)) break;
    seen.add(offset);
    offsets.push(offset);
  }
  return { table, self, start, offsets };
}
