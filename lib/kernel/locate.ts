import { PHYSICAL_MASK, wrap } from '../address.js';
import { hex } from '../errors.js';
import type { PhysicalMemory, VcpuRegisters } from '../memory/physical-memory.js';
import type { VirtualMemory } from '../memory/virtual-memory.js';
import type { KernelPlace } from './cache.js';
import { type ImageCandidate, spaceAt } from './candidate.js';
import { type MappedImage, mappedBytes } from './image.js';
import { fromContents } from './locate-contents.js';
import type { SearchLog } from './search-log.js';
import { findVmcoreinfo, requiredNumber, type Vmcoreinfo, vmcoreinfoAt } from './vmcoreinfo.js';
import { CR0_PG, CR4_LA57, CR4_PAE, EFER_LMA, KERNEL_MAP, PTI_BIT, TEXT_ENTRY } from './x86-64.js';

export interface LocateOptions {
  readonly registers?: readonly VcpuRegisters[] | undefined;
  /** Physical addresses where VMCOREINFO was before; tried before a scan. */
  readonly hints?: readonly bigint[] | undefined;
  readonly signal?: AbortSignal | undefined;
  /**
   * Asked before the search of all RAM by contents, the slowest: `true` when a kernel was found by
   * then.
   */
  readonly settled?: (() => boolean) | undefined;
  /** Whether RAM is searched where registers lead to a kernel, too: default false. */
  readonly all?: boolean | undefined;
}

/**
 * Gives page tables that may be the running kernel's, best source first: vCPU registers,
 * VMCOREINFO, contents of RAM. A later source is only looked at when the caller asks for more, and
 * behind registers only where all kernels are asked for: while a machine boots, RAM still holds the
 * kernel that ran before.
 * Nothing is proven yet but that the table maps an image of plausible size; with several kernels in
 * RAM (a warm reset does not clear it) there are several.
 */
export async function* locate(
  memory: PhysicalMemory,
  options: LocateOptions,
  log: SearchLog,
): AsyncGenerator<ImageCandidate> {
  // A source that cannot tell gives zeroes: no CPU has both CR0 and CR3 clear once firmware runs.
  const registers = (options.registers ?? []).filter(({ cr0, cr3 }) => cr0 !== 0n || cr3 !== 0n);
  const seen = new Set<string>();
  for (const candidate of fromRegisters(memory, registers, log)) {
    seen.add(imageKey(candidate.image));
    yield candidate;
  }
  if (registers.length > 0 && options.all !== true) {
    log.note('RAM was not searched: a kernel that no vCPU maps does not run');
    return;
  }
  if (registers.length === 0) log.note('registers: the source gives none');
  // Frames of a machine that are not the guest's cannot be read, and there is no telling how many
  // there are.
  if (memory.addressing === 'machine') return;
  for (const hint of new Set(options.hints ?? [])) {
    const info = vmcoreinfoAt(memory, hint);
    const candidate = info === undefined ? undefined : fromVmcoreinfo(memory, info, log);
    if (candidate === undefined || seen.has(imageKey(candidate.image))) continue;
    seen.add(imageKey(candidate.image));
    yield { ...candidate, hinted: true };
  }
  const copies = await findVmcoreinfo(memory, { signal: options.signal });
  if (copies.length === 0) log.note(`VMCOREINFO: no copy in ${memory.size >> 20n} MiB of RAM`);
  for (const info of copies) {
    const candidate = fromVmcoreinfo(memory, info, log);
    if (candidate === undefined || seen.has(imageKey(candidate.image))) continue;
    seen.add(imageKey(candidate.image));
    yield candidate;
  }
  if (options.settled?.() === true) return;
  for await (const candidate of fromContents(memory, options.signal, log)) {
    if (seen.has(imageKey(candidate.image))) continue;
    seen.add(imageKey(candidate.image));
    yield candidate;
  }
}

function imageKey(image: MappedImage): string {
  return `${image.virtual} ${image.physical}`;
}

function fromRegisters(
  memory: PhysicalMemory,
  registers: readonly VcpuRegisters[],
  log: SearchLog,
): ImageCandidate[] {
  const found = new Map<string, ImageCandidate>();
  const looked = new Set<string>();
  for (const one of registers) {
    const { vcpu, cr0, cr3, cr4 } = one;
    if (!isInLongMode(one)) {
      log.note(
        `registers: vCPU ${vcpu} is not in 64-bit mode (cr0 ${hex(cr0)}, cr4 ${hex(cr4)})${modeOf(one)}`,
      );
      continue;
    }
    const levels = levelsOf(cr4);
    const table = cr3 & PHYSICAL_MASK;
    // A PV guest of Xen has no isolation of its own, and the frame beside its table is another's.
    for (const root of memory.addressing === 'machine' ? [table] : [table & ~PTI_BIT, table]) {
      if (!memory.contains(root, 4096n)) continue;
      // All page tables of a kernel share the entry that maps it: one look per entry.
      const entry = memory.readU64(root + TEXT_ENTRY);
      if ((entry & 1n) === 0n || looked.has(`${levels} ${entry}`)) continue;
      looked.add(`${levels} ${entry}`);
      const at = spaceAt(memory, root, levels);
      if (at === undefined) continue;
      const key = imageKey(at.image);
      // The process whose table this is may exit at any moment; where the image lies does not
      // change.
      if (at.image.linear) at.space.setWindows(at.image.runs);
      const known = found.get(key);
      if (known !== undefined && mappedBytes(known.image) >= mappedBytes(at.image)) continue;
      found.set(key, { source: 'registers', label: labelOf(one), ...at });
    }
    if (found.size === 0)
      log.note(`registers: cr3 ${hex(cr3)} of vCPU ${vcpu} maps no kernel image`);
  }
  return [...found.values()].sort((a, b) => (mappedBytes(a.image) > mappedBytes(b.image) ? -1 : 1));
}

/** What a page table maps that was a kernel's own once, of this guest or another. */
export function fromPlace(
  memory: PhysicalMemory,
  { root, levels }: KernelPlace,
): ImageCandidate | undefined {
  if (memory.addressing === 'machine' || root % 4096n !== 0n || !memory.contains(root, 4096n))
    return undefined;
  if ((memory.readU64(root + TEXT_ENTRY) & 1n) === 0n) return undefined;
  const at = spaceAt(memory, root, levels);
  return at === undefined || !at.image.linear
    ? undefined
    : { source: 'registers', label: '', ...at };
}

/**
 * Whether all vCPUs that run in 64-bit mode map the kernel that a table maps: all page tables of a
 * kernel share that entry.
 * @returns the first vCPU, as a candidate's label names it
 */
export function vcpuThatMaps(
  memory: PhysicalMemory,
  registers: readonly VcpuRegisters[],
  { root, levels }: VirtualMemory,
): string | undefined {
  const mapped = (table: bigint) =>
    memory.contains(table, 4096n) ? memory.readU64(table + TEXT_ENTRY) & (PHYSICAL_MASK | 1n) : 0n;
  const wanted = mapped(root);
  const running = registers.filter(isInLongMode);
  const agree = running.every(({ cr3, cr4 }) => {
    const table = cr3 & PHYSICAL_MASK;
    const same = mapped(table & ~PTI_BIT) === wanted || mapped(table) === wanted;
    return same && levelsOf(cr4) === levels;
  });
  const first = running[0];
  return first === undefined || !agree || (wanted & 1n) === 0n ? undefined : labelOf(first);
}

/** What a vCPU outside of 64-bit mode most likely does. SDM vol. 3A, 10.1.4 (state after reset). */
function modeOf({ cr0, rip }: VcpuRegisters): string {
  if ((cr0 & CR0_PG) !== 0n)
    return ': it has 32-bit page tables, as a 32-bit kernel has, which cannot be read';
  return rip === 0xfff0n ? ': it is where a reset leaves it, its guest was never started' : '';
}

function isInLongMode({ cr0, cr4, efer }: VcpuRegisters): boolean {
  return (
    (cr0 & CR0_PG) !== 0n && (cr4 & CR4_PAE) !== 0n && (efer === 0n || (efer & EFER_LMA) !== 0n)
  );
}

function levelsOf(cr4: bigint): 4 | 5 {
  return (cr4 & CR4_LA57) === 0n ? 4 : 5;
}

function labelOf({ vcpu, cr3 }: VcpuRegisters): string {
  return `cr3 ${hex(cr3)} of vCPU ${vcpu}`;
}

function fromVmcoreinfo(
  memory: PhysicalMemory,
  info: Vmcoreinfo,
  log: SearchLog,
): ImageCandidate | undefined {
  const label = `VMCOREINFO of ${info.release} at ${hex(info.address)}`;
  // NUMBER(phys_base) is signed; __pa_symbol(): va - __START_KERNEL_map + phys_base.
  const physBase = requiredNumber(info, 'phys_base');
  const physical = (address: bigint) => wrap(address - KERNEL_MAP + physBase);
  const table = info.symbols.get('swapper_pg_dir') ?? info.symbols.get('init_top_pgt');
  if (table === undefined) {
    log.note(`${label}: it names no page table`);
    return undefined;
  }
  const levels = info.numbers.get('pgtable_l5_enabled') === 1n ? 5 : 4;
  const at = spaceAt(memory, physical(table) & PHYSICAL_MASK, levels);
  if (at === undefined) {
    log.note(
      `${label}: no page table at ${hex(physical(table))} that maps a kernel image (a kernel that ran before a reset?)`,
    );
    return undefined;
  }
  const stext = info.symbols.get('_stext')!;
  for (const [name, address] of [
    ['_stext', stext],
    ['its page table', table],
  ] as const) {
    if (translated(at.space, address) !== physical(address)) {
      log.note(
        `${label}: its page table does not map ${name} (${hex(address)}) to ${hex(physical(address))}`,
      );
      return undefined;
    }
  }
  const tokenTable = info.symbols.get('kallsyms_token_table');
  return {
    source: 'vmcoreinfo',
    label,
    ...at,
    vmcoreinfo: info,
    ...(tokenTable === undefined ? {} : { tokenTable }),
  };
}

function translated(space: VirtualMemory, address: bigint): bigint | undefined {
  return space.walk(address).physical;
}
