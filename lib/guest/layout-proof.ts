import { hex, VmiError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';

/**
 * How far the direct map may end before RAM does, bytes: firmware keeps its tables at the top of
 * the low part, and the kernel maps no more than RAM it was given. arch/x86/mm/init.c,
 * init_memory_mapping.
 */
const TOLERANCE = 64n << 20n;

/**
 * The direct map ends long before RAM would. Unmapped is no evidence: `mem=` leaves the end of RAM
 * away, and CONFIG_DEBUG_PAGEALLOC maps what is in use. So it fits, where no other layout does.
 */
export class ShortMapError extends VmiError {}

/**
 * Proves an assumed RAM layout by the guest's own page tables: the kernel's direct map covers each
 * part of RAM up to its end, and nothing that is not RAM. Its tables for the high part lie in the
 * high part themselves, so a wrong split does not survive the walk.
 *
 * Only what is linear is the direct map: where KASLR moved it, vmalloc and the devices it maps
 * begin a few TiB behind. arch/x86/mm/kaslr.c, kernel_randomize_memory.
 * @throws {ShortMapError} `VMI_ATTACH`: nothing contradicts it, but less of RAM is mapped
 * @throws {VmiError} `VMI_ATTACH`: the direct map says otherwise
 */
export function proveLayout(kernel: Kernel): void {
  const { memory, pageOffset } = kernel;
  const ranges = memory.physical.ranges;
  // Under another split RAM may end later, but never twice as late.
  const top = ranges.reduce(
    (most, { start, length }) => (start + length > most ? start + length : most),
    0n,
  );
  const mapped = memory
    .mappings(pageOffset, pageOffset + 2n * top)
    .filter(({ virtual, physical }) => virtual - pageOffset === physical)
    .map(({ physical, length }) => ({ start: physical, end: physical + length }));
  let short: ShortMapError | undefined;
  for (const { start, length } of ranges) {
    const end = start + length;
    const reach = mapped.reduce(
      (most, part) => (part.start < end && part.end > most ? part.end : most),
      0n,
    );
    const why = `RAM from ${hex(start)} would end at ${hex(end)}, but the guest's direct map reaches ${hex(reach)}`;
    if (reach > end) throw new VmiError('VMI_ATTACH', why);
    if (reach + TOLERANCE < end) short ??= new ShortMapError('VMI_ATTACH', why);
  }
  const stray = mapped.find(
    (part) =>
      !ranges.some(({ start, length }) => part.start >= start && part.end <= start + length),
  );
  if (stray !== undefined) {
    throw new VmiError(
      'VMI_ATTACH',
      `the guest's direct map covers ${hex(stray.start)}–${hex(stray.end)}, which would be no RAM`,
    );
  }
  if (short !== undefined) throw short;
}
