const MIB = 1n << 20n;
const GIB = 1n << 30n;
const FOUR_GIB = 4n * GIB;

/**
 * Where RAM goes on above the hole on hosts with an AMD IOMMU that reserves addresses below 1 TiB:
 * QEMU hw/i386/pc.c, `x86_update_above_4g_mem_start`, where a CPU of AMD can have that much RAM.
 */
export const ONE_TIB = 1n << 40n;

/** RAM of a PC: `low` bytes from 0, the rest from 4 GiB, or from `high`. */
export interface RamSplit {
  readonly low: bigint;
  readonly high?: bigint;
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

/**
 * Where RAM below 4 GiB ends on other machines: QEMU's pc-i440fx up to 1.7 (3.5 GiB), Firecracker
 * and Cloud Hypervisor (3,328 MiB and 3 GiB), q35 before 2.x (2,816 MiB), and what
 * `max-ram-below-4g` rounds to.
 */
const OTHER_LOWS = [3584n * MIB, 3328n * MIB, 3072n * MIB, 2816n * MIB, 2048n * MIB, 1024n * MIB];

/** Splits that {@link ramSplits} does not name, each to be proven by the guest's page tables. */
export function otherSplits(size: bigint, machine?: 'pc' | 'q35'): RamSplit[] {
  const named = ramSplits(size, machine);
  return OTHER_LOWS.filter((low) => size > low && !named.some((split) => split.low === low)).map(
    (low) => ({ low, assumption: `RAM split at ${low / MIB} MiB` }),
  );
}

/** Splits whose upper part lies at 1 TiB, each to be proven by the guest's page tables. */
export function movedSplits(size: bigint, machine?: 'pc' | 'q35'): RamSplit[] {
  return [...ramSplits(size, machine), ...otherSplits(size, machine)]
    .filter(({ low }) => low < size)
    .map(({ low, assumption }) => ({
      low,
      high: ONE_TIB,
      assumption: `${assumption}, its upper part at 1 TiB`,
    }));
}

/** Physical runs of a split, with the offset of each inside the RAM block. */
export function splitRanges(
  size: bigint,
  low: bigint,
  high = FOUR_GIB,
): { physical: bigint; length: bigint; offset: bigint }[] {
  const ranges = [{ physical: 0n, length: low < size ? low : size, offset: 0n }];
  if (size > low) ranges.push({ physical: high, length: size - low, offset: low });
  return ranges;
}
