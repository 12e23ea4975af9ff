import { wrap } from '../../address.js';
import { FaultError } from '../../errors.js';
import type { VirtualMemory } from '../../memory/virtual-memory.js';
import type { MappedImage } from '../image.js';
import { GuestWords } from '../layout/guest-words.js';

/** Bytes of a CPU's static variables that are searched, from their start on. */
export const AREA_LENGTH = 512 << 10;
/** Values of the image that come into question. */
const MAX_VALUES = 65_536;
/** Places at which a value is known to stand. */
const MAX_PLACES = 16;
/** CONFIG_NR_CPUS at most. arch/x86/Kconfig, NR_CPUS_RANGE_END. */
const MAX_CPUS = 8192;
const WORD = 8n;
const PAGE = 4096n;

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
 * same distance behind it, that address stands again (`this_cpu_off`). The first CPU's run queue
 * has `init_task` as its idle task.
 * @param bytes the image's
 * @returns what comes into question, tables first, then single entries
 */
export function* findCpuAreas(
  space: VirtualMemory,
  image: MappedImage,
  { bytes, initTask }: { bytes: Buffer; initTask: bigint },
): Generator<CpuAreas> {
  const values = pageAddresses(image, bytes);
  const ascending = BigUint64Array.from(values.keys()).sort();
  const places = new Set([...values.values()].flat());
  const isTable = (place: bigint) => places.has(place + WORD) || places.has(place - WORD);
  const words = new GuestWords(space);
  const area = Buffer.allocUnsafeSlow(AREA_LENGTH);
  for (const inTable of [true, false]) {
    for (const [offset, all] of values) {
      const own = inTable ? all.filter(isTable) : all;
      if (own.length === 0) continue;
      for (const start of startsOf(image, { offset, repeated: all.length > 1, ascending })) {
        const selves = selfReferences(readArea(space, start + offset, area), {
          offset,
          start,
          initTask,
        });
        const found = selves.flatMap((self) =>
          own.map((place) => areasAt(words, { place, self, start })),
        );
        // A CPU may have the address elsewhere as well, where the others have not.
        found.sort((a, b) => b.offsets.length - a.offsets.length);
        yield* found.filter(({ offsets }) => offsets.length > (inTable ? 1 : 0));
      }
    }
  }
}

/**
 * Where per-cpu symbols may start, for the first CPU's offset. They count from 0, or, since 6.15,
 * from where the image has them. The address of the first CPU's variables is known to the kernel,
 * too (`pcpu_base_addr`).
 */
function* startsOf(
  image: MappedImage,
  of: { offset: bigint; repeated: boolean; ascending: BigUint64Array },
): Generator<bigint> {
  const { offset, repeated, ascending } = of;
  if (repeated) yield 0n;
  const first = wrap(offset + image.virtual);
  let low = 0;
  for (let high = ascending.length; low < high; ) {
    const middle = (low + high) >>> 1;
    if (ascending[middle]! < first) low = middle + 1;
    else high = middle;
  }
  for (; low < ascending.length && ascending[low]! < first + image.length; low++)
    yield wrap(ascending[low]! - offset);
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
    if (places.length < MAX_PLACES) places.push(image.virtual + BigInt(4 * i));
    found.set(value, places);
  }
  return found;
}

/** Per-cpu symbols at which the first CPU's own offset stands; none of what is no CPU's. */
function selfReferences(
  bytes: Buffer,
  { offset, start, initTask }: { offset: bigint; start: bigint; initTask: bigint },
): bigint[] {
  if (placesOf(bytes, initTask).next().done === true) return [];
  return Array.from(placesOf(bytes, offset), (at) => start + BigInt(at));
}

function readArea(space: VirtualMemory, address: bigint, area: Buffer): Buffer {
  try {
    return area.subarray(0, space.readInto(wrap(address), area));
  } catch (error) {
    if (error instanceof FaultError) return area.subarray(0, 0);
    throw error;
  }
}

/** Where a word stands among others. */
function* placesOf(bytes: Buffer, word: bigint): Generator<number> {
  const pattern = Buffer.alloc(8);
  pattern.writeBigUInt64LE(word);
  for (let at = bytes.indexOf(pattern); at >= 0; at = bytes.indexOf(pattern, at + 1)) {
    if (at % 8 === 0) yield at;
  }
}

/** The table that a place is in: the entries around it that fit as well. */
function areasAt(
  words: GuestWords,
  { place, self, start }: { place: bigint; self: bigint; start: bigint },
): CpuAreas {
  const fits = (at: bigint) => {
    const offset = words.u64(at);
    if (offset === undefined || offset === 0n || offset % PAGE !== 0n) return false;
    return words.u64(wrap(self + offset)) === offset;
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
