import { VmiError } from '../../errors.js';

/** A run of guest-physical RAM inside a QEMU RAM block. */
export interface BlockRange {
  readonly physical: bigint;
  readonly length: bigint;
  /** Name of the RAM block: `pc.ram`, or the id of a memory backend. */
  readonly block: string;
  /** Bytes from the start of the block. */
  readonly offset: bigint;
}

const FLAT_RANGE =
  /^\s*([0-9a-f]{16})-([0-9a-f]{16}) \(prio (-?\d+), (ram|rom)\): (.+?)(?: @([0-9a-f]+))?(?: KVM)?\s*$/;

/**
 * Reads the RAM ranges out of `info mtree -f` (QEMU softmmu/memory.c, `mtree_print_flatview`).
 *
 * A flat view per address space is printed; the one of the address space `memory` is taken. Main
 * memory is every block that has a RAM range of priority 0: a device's memory (video RAM, for one)
 * sits in a window of priority 1. Ranges of main memory that the chipset has made read-only (the
 * BIOS shadow) still are main memory.
 * @throws {VmiError} `VMI_ATTACH` when no RAM is found in the text
 */
export function parseMemoryTree(text: string): BlockRange[] {
  const view = text.split(/^FlatView #\d+\s*$/m).find((part) => /^\s*AS "memory",/m.test(part));
  const rows: (BlockRange & { main: boolean })[] = [];
  for (const line of (view ?? '').split('\n')) {
    const match = FLAT_RANGE.exec(line);
    if (match === null) continue;
    const start = BigInt(`0x${match[1]}`);
    const end = BigInt(`0x${match[2]}`);
    if (end < start) continue;
    rows.push({
      physical: start,
      length: end - start + 1n,
      block: match[5]!,
      offset: BigInt(`0x${match[6] ?? '0'}`),
      main: match[3] === '0' && match[4] === 'ram',
    });
  }
  const main = new Set(rows.filter((row) => row.main).map((row) => row.block));
  const ranges = merge(rows.filter((row) => main.has(row.block)));
  if (ranges.length === 0) {
    throw new VmiError(
      'VMI_ATTACH',
      `QEMU's 'info mtree -f' shows no RAM: ${JSON.stringify(text.slice(0, 120))}`,
    );
  }
  return ranges;
}

/** Reads the host address out of `gpa2hva` (QEMU monitor/misc.c, `hmp_gpa2hva`). */
export function parseHostAddress(text: string): bigint {
  const match = /is (0x[0-9a-f]+)/i.exec(text);
  if (match === null) {
    throw new VmiError('VMI_ATTACH', `QEMU did not tell where guest RAM is: '${text.trim()}'`);
  }
  return BigInt(match[1]!);
}

function merge(rows: readonly BlockRange[]): BlockRange[] {
  const sorted = [...rows].sort((a, b) => (a.physical < b.physical ? -1 : 1));
  const merged: BlockRange[] = [];
  for (const { physical, length, block, offset } of sorted) {
    const last = merged.at(-1);
    if (
      last !== undefined &&
      last.block === block &&
      last.physical + last.length === physical &&
      last.offset + last.length === offset
    ) {
      merged[merged.length - 1] = { ...last, length: last.length + length };
    } else {
      merged.push({ physical, length, block, offset });
    }
  }
  return merged;
}
