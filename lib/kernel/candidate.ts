import { VmiError } from '../errors.js';
import type { PhysicalMemory } from '../memory/physical-memory.js';
import { VirtualMemory } from '../memory/virtual-memory.js';
import { findImage, type MappedImage } from './image.js';
import type { Vmcoreinfo } from './vmcoreinfo.js';

/** A page table that may be a running kernel's, and the image it maps. */
export interface ImageCandidate {
  readonly source: 'registers' | 'vmcoreinfo' | 'contents';
  /** For messages: where it was found. */
  readonly label: string;
  readonly space: VirtualMemory;
  readonly image: MappedImage;
  readonly vmcoreinfo?: Vmcoreinfo;
  /** Found where VMCOREINFO was before, without a look at the rest of RAM. */
  readonly hinted?: boolean;
  /** Virtual address of the kallsyms token table, where it is known already. */
  readonly tokenTable?: bigint;
}

export function spaceAt(
  memory: PhysicalMemory,
  root: bigint,
  levels: 4 | 5,
): { space: VirtualMemory; image: MappedImage } | undefined {
  if (!memory.contains(root, 4096n)) return undefined;
  const space = new VirtualMemory(memory, root, levels);
  try {
    const image = findImage(space);
    return image === undefined ? undefined : { space, image };
  } catch (error) {
    // A page that is no page table can claim any number of mappings.
    if (error instanceof VmiError && error.code !== 'VMI_CLOSED') return undefined;
    throw error;
  }
}

export function imagePhysical(
  { image, space }: ImageCandidate,
  address: bigint,
): bigint | undefined {
  if (!image.linear) return space.walk(address).physical;
  const offset = address - image.virtual;
  return offset < 0n || offset >= image.length ? undefined : image.physical + offset;
}
