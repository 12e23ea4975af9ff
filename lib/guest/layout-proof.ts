import { hex, VmiError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';

/**
 * How far the direct map may end before RAM does, bytes: firmware keeps its tables at the top of
 * the low part, and the kernel maps no more than RAM it was given. arch/x86/mm/init.c,
 * init_memory_mapping.
 */
const TOLERANCE = 64n << 20n;

/**
 * Proves an assumed RAM layout by the guest's own page tables: the kernel's direct map covers each
 * part of RAM up to its end, and nothing that is not RAM. Its tables for the high part lie in the
 * high part themselves, so a wrong split does not survive the walk.
 *
 * Only what is linear is the direct map: where KASLR moved it, vmalloc and the devices it maps
 * begin a few TiB behind. arch/x86/mm/kaslr.c, kernel_randomize_memory.
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
  for (const { start, length } of ranges) {
    const end = start + length;
    const reach = mapped.reduce(
      (most, part) => (part.start < end && part.end > most ? part.end : most),
      0n,
    );
    if (reach > end || reach + TOLERANCE < end) {
      throw new VmiError(
        'VMI_ATTACH',
        `RAM from ${hex(start)} would end at ${hex(end)}, but the guest's direct map reaches ${hex(reach)}`,
      );
    }
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
}
