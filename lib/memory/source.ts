import type { PhysicalMemory } from './physical-memory.js';

/**
 * One way to lay out the RAM of a source. Most sources have exactly one. A raw file, and a QEMU
 * without a monitor, do not say where the hole below 4 GiB starts: they offer every layout a PC can
 * have, and the guest's own page tables decide.
 */
export interface Candidate {
  /** What is assumed, for the message when nothing fits: `RAM split at 3 GiB (machine pc)`. */
  readonly assumption: string;
  /** Whether the source itself vouches for the layout, so that it needs no proof. */
  readonly proven: boolean;
  open(): PhysicalMemory;
}

/** A source that was found and can be read; which layout is right may still be open. */
export interface Source {
  /** In order of likelihood, never empty. */
  readonly candidates: readonly Candidate[];
  /** Releases what `candidates` share, when none of them is kept. */
  close(): Promise<void>;
}

/** What whoever opens a source can do while the source waits for others. */
export interface Waiting {
  /** Called once, if at all. */
  readonly meanwhile?: (() => void) | undefined;
}

const GIB = 1n << 30n;
const FOUR_GIB = 4n * GIB;

/** RAM of a PC: `low` bytes from 0, the rest from 4 GiB. */
export interface RamSplit {
  readonly low: bigint;
  readonly assumption: string;
}

/**
 * Where a PC with `size` bytes of RAM may put the hole below 4 GiB. QEMU hw/i386/pc_piix.c (`pc`:
 * RAM of 3.5 GiB and more keeps 3 GiB below) and hw/i386/pc_q35.c (2.75 GiB and more keeps 2 GiB);
 * `flat` is an image that holds the hole too.
 */
export function ramSplits(size: bigint, machine?: 'pc' | 'q35'): RamSplit[] {
  const splits: RamSplit[] = [];
  const pc = size >= (7n * GIB) / 2n ? 3n * GIB : undefined;
  const q35 = size >= (11n * GIB) / 4n ? 2n * GIB : undefined;
  const add = (low: bigint | undefined, name: string) => {
    const assumption =
      low === undefined
        ? `RAM in one piece (machine ${name})`
        : `RAM split at ${low / GIB} GiB (machine ${name})`;
    const at = low ?? size;
    if (!splits.some((split) => split.low === at)) splits.push({ low: at, assumption });
  };
  if (machine !== 'q35') add(pc, 'pc');
  if (machine !== 'pc') add(q35, 'q35');
  if (machine === 'q35') add(pc, 'pc');
  if (machine === 'pc') add(q35, 'q35');
  return splits;
}

/** Physical runs of a split, with the offset of each inside the RAM block. */
export function splitRanges(
  size: bigint,
  low: bigint,
): { physical: bigint; length: bigint; offset: bigint }[] {
  const ranges = [{ physical: 0n, length: low < size ? low : size, offset: 0n }];
  if (size > low) ranges.push({ physical: FOUR_GIB, length: size - low, offset: low });
  return ranges;
}
