import { wrap } from '../address.js';
import { FaultError } from '../errors.js';
import type { KernelObjects } from '../objects/kernel-objects.js';
import { list } from '../objects/list.js';
import type { Pointer } from '../objects/pointer.js';
import type { StructObject } from '../objects/struct-object.js';

const PAGE_SHIFT = 12n;
/** Most caches: a kernel has some 200, and as many again for each cgroup of old. */
const MAX_CACHES = 65_536;
/** Bit 0 of `compound_head` marks a page that belongs to another. include/linux/page-flags.h. */
const TAIL = 1n;

/** An object that the kernel allocated by its size. */
export interface SlabObject {
  /** Name of the cache: `task_struct`, `kmalloc-64`. */
  readonly cache: string;
  /** Where the object begins. */
  readonly start: bigint;
  /** Bytes of the object, without what lies between it and the next. */
  readonly size: number;
  /** `struct kmem_cache` */
  readonly object: StructObject;
}

/**
 * Every cache of objects: `/proc/slabinfo`.
 * Source: mm/slab_common.c; `struct list_head slab_caches`, `struct kmem_cache`.
 */
export function slabCaches(objects: KernelObjects): Generator<StructObject> {
  return list(objects.variable('slab_caches'), 'struct kmem_cache', 'list', MAX_CACHES);
}

/**
 * The allocated or free object that a physical address lies in; `undefined` when the page is no
 * slab's.
 *
 * A page's `struct page` is at `vmemmap_base`, by its number; that of a slab names its cache, where
 * there is one of this name. Source: mm/slab.h, folio_slab; `struct page.slab_cache` up to 5.16,
 * `struct slab.slab_cache` since commit d122019bf061 (5.17).
 * @param physical as the guest counts it
 * @param pageOffset where the direct map begins
 */
export function slabObject(
  objects: KernelObjects,
  physical: bigint,
  pageOffset: bigint,
): SlabObject | undefined {
  if (!objects.has('vmemmap_base')) return undefined;
  const base = objects.variable('vmemmap_base', 'unsigned long') as bigint;
  const size = BigInt(objects.sizeof('struct page'));
  try {
    const page = objects.object('struct page', base + (physical >> PAGE_SHIFT) * size);
    const caches = new Map([...slabCaches(objects)].map((cache) => [cache.$address, cache]));
    for (const head of headsOf(page as StructObject)) {
      const cache = caches.get(cacheOf(head) ?? 0n);
      if (cache === undefined) continue;
      const start = wrap(pageOffset + (((head.$address - base) / size) << PAGE_SHIFT));
      const step = BigInt(cache.size as number);
      const address = wrap(pageOffset + physical);
      if (step === 0n || address < start) continue;
      return {
        cache: (cache.name as Pointer | null)?.string(64) ?? '',
        start: start + ((address - start) / step) * step,
        size: cache.object_size as number,
        object: cache,
      };
    }
  } catch (error) {
    // Of memory that is no RAM there is no struct page.
    if (!(error instanceof FaultError)) throw error;
  }
  return undefined;
}

/**
 * The page itself, or the first one of those it is allocated with. Which of two encodings a kernel
 * uses the caller sees by where it leads.
 */
function headsOf(page: StructObject): StructObject[] {
  // Since 7.x the word may be a mask of the address instead of the address itself.
  const word = (page.compound_head ?? page.compound_info) as bigint | undefined;
  if (word === undefined || (word & TAIL) === 0n) return [page];
  return [word - TAIL, page.$address & word].map(
    (address) => page.$object('struct page', address) as StructObject,
  );
}

function cacheOf(page: StructObject): bigint | undefined {
  const slab = page.$has('slab_cache') ? page : (page.$cast('struct slab') as StructObject);
  try {
    return (slab.slab_cache as StructObject | null)?.$address;
  } catch (error) {
    if (error instanceof FaultError) return undefined;
    throw error;
  }
}
