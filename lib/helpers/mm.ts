import type { ArrayObject } from '../objects/array.js';
import type { KernelObjects } from '../objects/kernel-objects.js';
import { MAX_NODES } from '../objects/list.js';
import { mapleTree } from '../objects/maple-tree.js';
import type { Pointer } from '../objects/pointer.js';
import { rbtree } from '../objects/rbtree.js';
import type { StructObject } from '../objects/struct-object.js';
import { pathText } from './paths.js';

// include/linux/mm.h.
const VM_READ = 1n;
const VM_WRITE = 2n;
const VM_EXEC = 4n;
const VM_SHARED = 8n;
const PAGE = 4096n;

/** A part of an address space, as a line of `/proc/PID/maps` tells it. */
export interface Vma {
  readonly start: bigint;
  /** One past the last byte. */
  readonly end: bigint;
  /** `r-xp`: what may be done, and whether it is shared or private. */
  readonly flags: string;
  /** Bytes from the start of the file; 0 without a file. */
  readonly offset: bigint;
  /** Path of the file, `[heap]`, `[stack]`, `[vdso]` and its like; empty for what has no name. */
  readonly name: string;
  /** `struct vm_area_struct` */
  readonly object: StructObject;
}

/**
 * The parts of an address space in ascending order: `/proc/PID/maps`.
 *
 * Source: fs/proc/task_mmu.c, show_map_vma. A maple tree (`mm_struct.mm_mt`) since commit
 * 524e00b36e8c (6.1), a red-black tree (`mm_struct.mm_rb`) before.
 * @param mm `struct mm_struct`
 */
export function* vmas(mm: StructObject): Generator<Vma> {
  if (mm.$has('mm_mt')) {
    for (const { pointer } of mapleTree(mm.mm_mt)) {
      yield toVma(mm, mm.$object('struct vm_area_struct', pointer));
    }
  } else {
    const all = rbtree(mm.mm_rb, 'struct vm_area_struct', 'vm_rb', MAX_NODES);
    for (const area of all) yield toVma(mm, area);
  }
}

/** Pages of an address space that are in memory, and in swap: `VmRSS` of `/proc/PID/status`. */
export interface Rss {
  readonly file: bigint;
  readonly anonymous: bigint;
  readonly shared: bigint;
  readonly swap: bigint;
}

/**
 * Counts the pages of an address space.
 *
 * Source: include/linux/mm_types_task.h, MM_FILEPAGES …; `mm_struct.rss_stat`, a structure of
 * counters, since commit f1a7941243c1 (6.2) an array of counters with a part on each CPU.
 * @param mm `struct mm_struct`
 */
export function rss(objects: KernelObjects, mm: StructObject): Rss {
  const stat = mm.rss_stat;
  const counts = stat.count as ArrayObject | undefined;
  const cpus = counts === undefined ? objects.onlineCpus() : [];
  const of = (index: number): bigint => {
    if (counts !== undefined) return counts.at(index).counter as bigint;
    const counter = stat.at(index) as StructObject;
    let sum = counter.count as bigint;
    const parts = counter.counters as Pointer | null;
    for (const cpu of cpus) sum += BigInt((parts?.perCpu(cpu).at() as number | undefined) ?? 0);
    return sum < 0n ? 0n : sum;
  };
  return { file: of(0), anonymous: of(1), swap: of(2), shared: of(3) };
}

/** Where a page of user memory is. */
export type PageState =
  | 'present'
  /** In swap, or on its way there and back. */
  | 'swapped'
  /** Never touched here; its contents are in a file. */
  | 'file'
  /** Never touched: it would be of zeroes. */
  | 'untouched'
  /** No part of the address space. */
  | 'unmapped';

/**
 * Says where the page at a user address is: why it cannot be read.
 * @param mm `struct mm_struct`
 */
export function pageState(objects: KernelObjects, mm: StructObject, address: bigint): PageState {
  const walk = objects.inProcess(mm).memory.walk(address);
  if (walk.physical !== undefined) return 'present';
  const last = walk.steps.at(-1);
  // A page-table entry that is not empty and not present is a swap entry. Source: mm/memory.c.
  if (last?.level === 'pt' && last.entry !== 0n) return 'swapped';
  for (const { start, end, object } of vmas(mm)) {
    if (address >= start && address < end) return object.vm_file === null ? 'untouched' : 'file';
  }
  return 'unmapped';
}

function toVma(mm: StructObject, area: StructObject): Vma {
  const flags = area.vm_flags as bigint;
  const file = area.vm_file as StructObject | null;
  const flag = (bit: bigint, letter: string) => ((flags & bit) === 0n ? '-' : letter);
  return {
    start: area.vm_start,
    end: area.vm_end,
    flags:
      flag(VM_READ, 'r') +
      flag(VM_WRITE, 'w') +
      flag(VM_EXEC, 'x') +
      ((flags & VM_SHARED) === 0n ? 'p' : 's'),
    offset: file === null ? 0n : (area.vm_pgoff as bigint) * PAGE,
    name: file === null ? areaName(mm, area) : pathText(file.f_path),
    object: area,
  };
}

/** fs/proc/task_mmu.c, get_vma_name; mm/mmap.c, special_mapping_name. */
function areaName(mm: StructObject, area: StructObject): string {
  const name = area.vm_ops?.name as Pointer | null | undefined;
  if (name?.symbol === 'special_mapping_name') {
    const special = (area.$follow('vm_private_data') as Pointer).cast('struct vm_special_mapping');
    return (special.name as Pointer | null)?.string(64) ?? '';
  }
  const { vm_start: start, vm_end: end } = area;
  if (start <= mm.brk && end >= mm.start_brk) return '[heap]';
  if (start <= mm.start_stack && end >= mm.start_stack) return '[stack]';
  return '';
}
