const PAGE_OFFSET = 0xfffn;
const FOUR_GIB = 1n << 32n;
/** The window of a PC's video memory; a look at it changes the state of a VGA. */
const VIDEO = [0xa_0000n, 0xc_0000n] as const;
/** Where the devices of a PC begin at the latest. QEMU hw/i386/pc_piix.c, `max_ram_below_4g`. */
const DEVICES = 0xe000_0000n;

/**
 * Where RAM is: libvmi's KVM driver reads whatever is at an address, devices too, and gives zeros
 * where nothing is. It knows how much RAM there is and where it ends; what ends above 4 GiB begins
 * there, the rest is below. DIMMs that were plugged in it does not know.
 * @returns pairs of start and end
 */
export function kvmRanges(size: bigint, end: bigint): [start: bigint, end: bigint][] {
  const above = end > FOUR_GIB ? end - FOUR_GIB : 0n;
  const rest = (above > 0n ? size - above : end) & ~PAGE_OFFSET;
  const low = rest < DEVICES ? rest : DEVICES;
  const ranges: [bigint, bigint][] = [[0n, low < VIDEO[0] ? low : VIDEO[0]]];
  if (low > VIDEO[1]) ranges.push([VIDEO[1], low]);
  if (above > 0n) ranges.push([FOUR_GIB, end]);
  return ranges.filter(([start, stop]) => stop > start);
}
