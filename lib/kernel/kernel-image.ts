import { wrap } from '../address.js';
import { CorruptError, hex } from '../errors.js';
import { type Mapping, VirtualMemory } from '../memory/virtual-memory.js';
import { type ImageCandidate, imagePhysical } from './candidate.js';
import { directMapProblem, findPageOffset, machineMapProblem } from './direct-map.js';
import type { MappedImage } from './image.js';
import type { SymbolTable } from './symbols/table.js';
import { P2m } from './xen-p2m.js';

/** The kernel's image: a page table that maps it, and where. */
export interface KernelImage extends MappedImage {
  readonly source: ImageCandidate['source'];
  readonly levels: 4 | 5;
  /** The kernel's own top-level table. */
  readonly root: bigint;
  /** Where physical address 0 is in the direct map. */
  readonly pageOffset: bigint;
  /**
   * Linear mappings of image and direct map, checked against the page table; none in a PV guest of
   * Xen.
   */
  readonly windows: readonly Mapping[];
  readonly p2m: P2m | undefined;
}

/** The kernel's own page table and direct map, and the windows they make. */
export function mapKernel(
  candidate: ImageCandidate,
  symbols: SymbolTable,
): { image: KernelImage; memory: VirtualMemory } {
  const { image, space, source } = candidate;
  const { physical: memory, levels } = space;
  const table = symbols.find('init_top_pgt') ?? symbols.find('swapper_pg_dir');
  const root = table === undefined ? space.root : imagePhysical(candidate, table);
  if (root === undefined || root % 4096n !== 0n || !memory.contains(root, 4096n)) {
    throw new CorruptError(`init_top_pgt at ${hex(table ?? 0n)} is no page table`, table ?? 0n);
  }
  const kernel = space.root === root ? space : new VirtualMemory(memory, root, levels);
  const last = image.runs.at(-1)!;
  for (const address of [image.virtual, last.virtual + last.length - 4096n]) {
    const found = kernel.walk(address).physical;
    if (found !== imagePhysical(candidate, address)) {
      throw new CorruptError(
        `the kernel's page table at ${hex(root)} maps ${hex(address)} to ${found === undefined ? 'nothing' : hex(found)}, not to its image`,
        address,
      );
    }
  }
  const p2m = memory.addressing === 'machine' ? new P2m(kernel, symbols) : undefined;
  const problem =
    p2m === undefined
      ? (start: bigint) => directMapProblem(kernel, start)
      : (start: bigint) => machineMapProblem(kernel, start, p2m, table);
  const pageOffset = findPageOffset(kernel, symbols, problem);
  if (p2m !== undefined) {
    return {
      image: { ...image, source, levels, root, pageOffset, windows: [], p2m },
      memory: kernel,
    };
  }
  // One window for each part of RAM; the image's are the runs that are present.
  const windows = [
    ...memory.ranges.map(({ start, length }) => ({
      virtual: wrap(pageOffset + start),
      length,
      physical: start,
    })),
    ...image.runs,
  ];
  kernel.setWindows(windows);
  return { image: { ...image, source, levels, root, pageOffset, windows, p2m }, memory: kernel };
}
