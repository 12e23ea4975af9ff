import { PAGE_MASK } from '../../address.js';
import type { VcpuRegisters } from '../physical-memory.js';

/** End of the physical addresses of any processor. SDM vol. 3A, 4.1.4, MAXPHYADDR. */
export const MAX_PHYSICAL = 1n << 52n;

/** A run of guest-physical RAM, as a dump describes it. */
export interface DumpRange {
  /** Guest-physical address of the first byte. */
  readonly physical: bigint;
  /** Bytes of RAM. */
  readonly length: bigint;
  /** Where in the file the first byte is. */
  readonly offset: bigint;
  /**
   * Bytes of it that the file holds, from the first on; the rest is RAM that was left out. Default:
   * all.
   */
  readonly held?: bigint;
}

/** What a dump holds. */
export interface DumpContent {
  /** For people: `ELF core`, `LiME dump`. */
  readonly format: string;
  readonly ranges: readonly DumpRange[];
  /** Of the vCPUs; empty where the dump has none. */
  readonly registers: readonly VcpuRegisters[];
  /**
   * The open file that the offsets are of, where it is not the dump itself: whoever takes the
   * content closes it.
   */
  readonly unpacked?: number | undefined;
  /**
   * One bit a page of the unpacked file from its start on, set where the dump had the page;
   * `undefined`: all of `ranges`.
   */
  readonly present?: Uint8Array | undefined;
}

/** What a format is called of which the end of the file lacks so many bytes. */
export function cutShort(format: string, missing: bigint): string {
  if (missing === 0n) return format;
  return `${format}, cut short: ${(missing + 0xfffffn) >> 20n} MiB are missing`;
}

/** Bytes of a run at `offset` that a file holds, of the `wanted` that it should. */
export function heldBy(fileSize: bigint, offset: bigint, wanted: bigint): bigint {
  const rest = offset < fileSize ? fileSize - offset : 0n;
  return rest < wanted ? rest : wanted;
}

/** Whole pages of RAM: in the file at `offset`, or left out of it. */
export interface PageRun {
  readonly physical: bigint;
  readonly length: bigint;
  readonly offset: bigint | undefined;
}

/**
 * What the ranges of a dump say, as runs of whole pages that ascend and do not overlap.
 *
 * - Firmware's map of RAM may start or end within a page, and a file may: no page table names a
 *   part of one. Of a page that the file holds a part of, nothing is taken.
 * - Ranges may overlap: `/proc/vmcore` has the kernel's text once more. The bytes are the same;
 *   those that come first are taken.
 */
export function pageRuns(ranges: readonly DumpRange[]): PageRun[] {
  const held: { start: bigint; end: bigint; offset: bigint }[] = [];
  const ram: { start: bigint; end: bigint }[] = [];
  for (const { physical, length, offset, held: inFile = length } of ranges) {
    const start = (physical + PAGE_MASK) & ~PAGE_MASK;
    const end = (physical + length) & ~PAGE_MASK;
    if (end <= start) continue;
    ram.push({ start, end });
    const heldEnd = (physical + (inFile < length ? inFile : length)) & ~PAGE_MASK;
    if (heldEnd > start) held.push({ start, end: heldEnd, offset: offset + (start - physical) });
  }
  const byStart = (a: { start: bigint }, b: { start: bigint }) =>
    a.start < b.start ? -1 : a.start > b.start ? 1 : 0;
  ram.sort(byStart);
  held.sort(byStart);

  const runs: PageRun[] = [];
  let filled = 0n;
  for (const { start, end, offset } of held) {
    const from = start > filled ? start : filled;
    if (end <= from) continue;
    runs.push({ physical: from, length: end - from, offset: offset + (from - start) });
    filled = end;
  }
  return withAbsent(runs, ram);
}

/** Adds what is RAM and in no run. */
function withAbsent(
  runs: readonly PageRun[],
  ram: readonly { start: bigint; end: bigint }[],
): PageRun[] {
  const all: PageRun[] = [];
  let next = 0;
  let covered = 0n;
  const leaveOut = (from: bigint, end: bigint) => {
    if (end > from) all.push({ physical: from, length: end - from, offset: undefined });
  };
  for (const { start, end } of ram) {
    let from = start > covered ? start : covered;
    for (let run = runs[next]; run !== undefined && run.physical < end; run = runs[next]) {
      leaveOut(from, run.physical);
      all.push(run);
      const runEnd = run.physical + run.length;
      if (runEnd > from) from = runEnd;
      next++;
    }
    leaveOut(from, end);
    covered = from > end ? from : end > covered ? end : covered;
  }
  return all;
}

/** `count` bits of a bitmap from bit `first` on, as a bitmap of their own. */
export function bitsOf(bitmap: Uint8Array, first: number, count: number): Uint8Array {
  const bits = new Uint8Array((count + 7) >> 3);
  const shift = first & 7;
  const start = first >>> 3;
  for (let i = 0; i < bits.length; i++) {
    const low = bitmap[start + i] ?? 0;
    const high = bitmap[start + i + 1] ?? 0;
    bits[i] = ((low >>> shift) | (high << (8 - shift))) & 0xff;
  }
  return bits;
}
