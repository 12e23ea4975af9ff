import { setImmediate as nextTurn } from 'node:timers/promises';
import { wrap } from '../address.js';
import type { Mapping, VirtualMemory } from '../memory/virtual-memory.js';
import { checkAborted } from './aborted.js';
import type { AddressRange } from './bytes.js';
import { KERNEL_MAP, KERNEL_MAP_END } from './x86-64.js';

/** Freed parts (init sections) leave holes in the image; larger ones end it. */
const MAX_HOLE = 32n << 20n;
/** The smallest kernel has more than this mapped. */
const MIN_IMAGE = 4n << 20n;
const MAX_MAPPINGS = 65_536;
/** Bytes of an image that is searched page by page that are read at a time. */
const SCAN_CHUNK = 1 << 20;
/** The same where the source itself searches. */
const SCAN_PIECE = 4n << 20n;

/** A kernel's image in memory, as a page table maps it. */
export interface MappedImage {
  /**
   * Whether it is one piece of physical memory; in a PV guest of Xen its pages lie anywhere in the
   * machine.
   */
  readonly linear: boolean;
  /** Lowest mapped address: `_text`. */
  readonly virtual: bigint;
  /** Bytes to the end of the highest mapped page. */
  readonly length: bigint;
  /** Physical address of its first byte. */
  readonly physical: bigint;
  /**
   * The runs that are present, ascending; all at the same distance from their physical addresses if
   * `linear`.
   */
  readonly runs: readonly Mapping[];
}

/**
 * The largest run of the kernel's part of the address space that lies in one piece of RAM; holes in
 * it (freed init sections) are allowed. Modules and the fixmap lie elsewhere.
 */
export function findImage(space: VirtualMemory): MappedImage | undefined {
  if (space.physical.addressing === 'machine') return findScatteredImage(space);
  const mappings = space.mappings(KERNEL_MAP, KERNEL_MAP_END, MAX_MAPPINGS);
  const groups = new Map<bigint, Mapping[][]>();
  for (const mapping of mappings) {
    const distance = wrap(mapping.physical - mapping.virtual);
    const pieces = groups.get(distance) ?? [];
    const piece = pieces.at(-1);
    const last = piece?.at(-1);
    if (
      piece !== undefined &&
      last !== undefined &&
      mapping.virtual - (last.virtual + last.length) <= MAX_HOLE
    ) {
      piece.push(mapping);
    } else {
      pieces.push([mapping]);
    }
    groups.set(distance, pieces);
  }
  let best: { runs: Mapping[]; bytes: bigint } | undefined;
  for (const runs of [...groups.values()].flat()) {
    const bytes = runs.reduce((sum, run) => sum + run.length, 0n);
    if (best === undefined || bytes > best.bytes) best = { runs, bytes };
  }
  if (best === undefined || best.bytes < MIN_IMAGE) return undefined;
  const first = best.runs[0]!;
  const last = best.runs.at(-1)!;
  const length = last.virtual + last.length - first.virtual;
  if (!space.physical.contains(first.physical, length)) return undefined;
  return {
    linear: true,
    virtual: first.virtual,
    length,
    physical: first.physical,
    runs: best.runs,
  };
}

/** The largest run by virtual addresses alone, for page tables that hold frames of a machine. */
function findScatteredImage(space: VirtualMemory): MappedImage | undefined {
  const pieces: Mapping[][] = [];
  for (const mapping of space.mappings(KERNEL_MAP, KERNEL_MAP_END, MAX_MAPPINGS)) {
    const piece = pieces.at(-1);
    const last = piece?.at(-1);
    const hole = last === undefined ? MAX_HOLE : mapping.virtual - (last.virtual + last.length);
    if (piece === undefined || last === undefined || hole > MAX_HOLE) pieces.push([mapping]);
    else if (hole === 0n)
      piece[piece.length - 1] = { ...last, length: last.length + mapping.length };
    else piece.push(mapping);
  }
  const bytes = (runs: readonly Mapping[]) => runs.reduce((sum, run) => sum + run.length, 0n);
  const runs = pieces.reduce<Mapping[]>((best, one) => (bytes(one) > bytes(best) ? one : best), []);
  const [first, last] = [runs[0], runs.at(-1)];
  if (first === undefined || last === undefined || bytes(runs) < MIN_IMAGE) return undefined;
  const length = last.virtual + last.length - first.virtual;
  return { linear: false, virtual: first.virtual, length, physical: first.physical, runs };
}

/** Bytes of the image that are mapped. */
export function mappedBytes(image: MappedImage): bigint {
  return image.runs.reduce((sum, run) => sum + run.length, 0n);
}

export function rangeOf(image: MappedImage): AddressRange {
  return { start: image.virtual, end: image.virtual + image.length };
}

/**
 * The mapped run an address is in: freed sections leave holes around it when page tables are
 * isolated.
 */
export function runOf(image: MappedImage, address: bigint): AddressRange {
  const run = image.runs.find(
    ({ virtual, length }) => address >= virtual && address < virtual + length,
  );
  return run === undefined ? rangeOf(image) : { start: run.virtual, end: run.virtual + run.length };
}

/**
 * Virtual addresses at which a pattern stands in an image, ascending; at most `max`. The image is
 * read piece by piece, no further than the answer takes: a source that goes through a monitor reads
 * 2 MB a second.
 */
export async function* scanImage(
  space: VirtualMemory,
  image: MappedImage,
  pattern: Uint8Array,
  max: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<bigint> {
  let left = max;
  if (image.linear) {
    const end = image.physical + image.length;
    for (let start = image.physical; start < end && left > 0; start += SCAN_PIECE) {
      // A pattern may lie across the end of a piece.
      const stop = start + SCAN_PIECE + BigInt(pattern.length - 1);
      const hits = await space.physical.scan(pattern, {
        start,
        end: stop < end ? stop : end,
        max: left,
        signal,
      });
      for (const hit of hits) yield hit - image.physical + image.virtual;
      left -= hits.length;
    }
    return;
  }
  const chunk = Buffer.allocUnsafeSlow(SCAN_CHUNK + pattern.length - 1);
  for (const { virtual, length } of image.runs) {
    for (let done = 0n; done < length; done += BigInt(SCAN_CHUNK)) {
      checkAborted(signal);
      const rest = length - done;
      const part = rest < BigInt(chunk.length) ? chunk.subarray(0, Number(rest)) : chunk;
      const bytes = part.subarray(0, space.readInto(virtual + done, part));
      for (
        let at = bytes.indexOf(pattern);
        at >= 0 && at < SCAN_CHUNK;
        at = bytes.indexOf(pattern, at + 1)
      ) {
        yield virtual + done + BigInt(at);
        if (--left === 0) return;
      }
      await nextTurn();
    }
  }
}
