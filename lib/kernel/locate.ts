import { PHYSICAL_MASK, wrap } from '../address.js';
import { hex, VmiError } from '../errors.js';
import type { PhysicalMemory, VcpuRegisters } from '../memory/physical-memory.js';
import type { Mapping, VirtualMemory } from '../memory/virtual-memory.js';
import type { KernelPlace } from './cache.js';
import {
  type AddressRange,
  type ByteSource,
  Kallsyms,
  TOKEN_PATTERN,
  tokenTableAround,
} from './symbols/kallsyms.js';
import { findVmcoreinfo, requiredNumber, type Vmcoreinfo, vmcoreinfoAt } from './vmcoreinfo.js';

/** __START_KERNEL_map, where the image is mapped. arch/x86/include/asm/page_64_types.h. */
export const KERNEL_MAP = 0xffff_ffff_8000_0000n;
/** End of KERNEL_IMAGE_SIZE with KASLR (1 GiB); modules follow. Without KASLR they start 512 MiB lower. */
export const KERNEL_MAP_END = 0xffff_ffff_c000_0000n;
/** Index of the top-level entry that maps {@link KERNEL_MAP}, with 4 levels and with 5. */
const TEXT_ENTRY = 511n * 8n;
/** CR0.PG, CR4.PAE, CR4.LA57, EFER.LMA. SDM vol. 3A, 2.5 and 2.2.1. */
const CR0_PG = 1n << 31n;
const CR4_PAE = 1n << 5n;
const CR4_LA57 = 1n << 12n;
const EFER_LMA = 1n << 10n;
/** PTI: the user's half of a page directory pair. arch/x86/include/asm/pgtable.h, PTI_PGTABLE_SWITCH_BIT. */
const PTI_BIT = 1n << 12n;
/** Freed parts (init sections) leave holes in the image; larger ones end it. */
const MAX_HOLE = 32n << 20n;
/** The smallest kernel has more than this mapped. */
const MIN_IMAGE = 4n << 20n;
const MAX_MAPPINGS = 65_536;
/** The image is aligned to this, virtual and physical: CONFIG_PHYSICAL_ALIGN is at least 2 MiB on x86-64. */
const IMAGE_ALIGN = 2n << 20n;
/** RAM around a token table that is searched for the rest of its kernel. */
const AROUND = 64n << 20n;
/** Runs of digits looked at; most are lists of names in programs. */
const MAX_TOKEN_HITS = 4096;
const BANNER = Buffer.from('Linux version ', 'latin1');

/** A kernel's image in memory, as a page table maps it. */
export interface MappedImage {
  /** Whether it is one piece of physical memory; in a PV guest of Xen its pages lie anywhere in the machine. */
  readonly linear: boolean;
  /** Lowest mapped address: `_text`. */
  readonly virtual: bigint;
  /** Bytes to the end of the highest mapped page. */
  readonly length: bigint;
  /** Physical address of its first byte. */
  readonly physical: bigint;
  /** The runs that are present, ascending; all at the same distance from their physical addresses if `linear`. */
  readonly runs: readonly Mapping[];
}

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

/** What was tried and what came of it, for the message when nothing fits. */
export class Trail {
  readonly #lines: string[] = [];

  note(line: string): void {
    if (this.#lines.length < 32 && !this.#lines.includes(line)) this.#lines.push(line);
  }

  toString(): string {
    return this.#lines.join('; ');
  }
}

export interface LocateOptions {
  readonly registers?: readonly VcpuRegisters[] | undefined;
  /** Physical addresses where VMCOREINFO was before; tried before a scan. */
  readonly hints?: readonly bigint[] | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Asked before the search of all RAM by contents, the slowest: `true` when a kernel was found by then. */
  readonly settled?: (() => boolean) | undefined;
}

/**
 * Gives page tables that may be the running kernel's, best source first: vCPU registers, VMCOREINFO, contents of RAM.
 * A later source is only looked at when the caller asks for more, and never behind registers: while a machine boots,
 * RAM still holds the kernel that ran before. Nothing is proven yet but that the table maps an
 * image of plausible size; with several kernels in RAM (a warm reset does not clear it) there are several.
 */
export async function* locate(
  memory: PhysicalMemory,
  options: LocateOptions,
  trail: Trail,
): AsyncGenerator<ImageCandidate> {
  // A source that cannot tell gives zeroes: no CPU has both CR0 and CR3 clear once firmware runs.
  const registers = (options.registers ?? []).filter(({ cr0, cr3 }) => cr0 !== 0n || cr3 !== 0n);
  if (registers.length > 0) {
    yield* fromRegisters(memory, registers, trail);
    trail.note('RAM was not searched: a kernel that no vCPU maps does not run');
    return;
  }
  trail.note('registers: the source gives none');
  // Frames of a machine that are not the guest's cannot be read, and there is no telling how many there are.
  if (memory.addressing === 'machine') return;
  const seen = new Set<string>();
  for (const hint of new Set(options.hints ?? [])) {
    const info = vmcoreinfoAt(memory, hint);
    const candidate = info === undefined ? undefined : fromVmcoreinfo(memory, info, trail);
    if (candidate === undefined || seen.has(imageKey(candidate.image))) continue;
    seen.add(imageKey(candidate.image));
    yield { ...candidate, hinted: true };
  }
  const copies = await findVmcoreinfo(memory, { signal: options.signal });
  if (copies.length === 0) trail.note(`VMCOREINFO: no copy in ${memory.size >> 20n} MiB of RAM`);
  for (const info of copies) {
    const candidate = fromVmcoreinfo(memory, info, trail);
    if (candidate === undefined || seen.has(imageKey(candidate.image))) continue;
    seen.add(imageKey(candidate.image));
    yield candidate;
  }
  if (options.settled?.() === true) return;
  for await (const candidate of fromContents(memory, options.signal, trail)) {
    if (seen.has(imageKey(candidate.image))) continue;
    seen.add(imageKey(candidate.image));
    yield candidate;
  }
}

function imageKey(image: MappedImage): string {
  return `${image.virtual} ${image.physical}`;
}

/**
 * The largest run of the kernel's part of the address space that lies in one piece of RAM; holes in it (freed init
 * sections) are allowed. Modules and the fixmap lie elsewhere.
 */
export function findImage(space: VirtualMemory): MappedImage | undefined {
  if (space.physical.addressing === 'machine') return findScatteredImage(space);
  const mappings = space.mappings(KERNEL_MAP, KERNEL_MAP_END, MAX_MAPPINGS);
  const groups = new Map<bigint, Mapping[][]>();
  for (const mapping of mappings) {
    const distance = wrap(mapping.physical - mapping.virtual);
    const pieces = groups.get(distance) ?? [];
    const piece = pieces.at(-1);
    const last = piece?.at(-1);
    if (
      piece !== undefined &&
      last !== undefined &&
      mapping.virtual - (last.virtual + last.length) <= MAX_HOLE
    ) {
      piece.push(mapping);
    } else {
      pieces.push([mapping]);
    }
    groups.set(distance, pieces);
  }
  let best: { runs: Mapping[]; bytes: bigint } | undefined;
  for (const runs of [...groups.values()].flat()) {
    const bytes = runs.reduce((sum, run) => sum + run.length, 0n);
    if (best === undefined || bytes > best.bytes) best = { runs, bytes };
  }
  if (best === undefined || best.bytes < MIN_IMAGE) return undefined;
  const first = best.runs[0]!;
  const last = best.runs.at(-1)!;
  const length = last.virtual + last.length - first.virtual;
  if (!space.physical.contains(first.physical, length)) return undefined;
  return {
    linear: true,
    virtual: first.virtual,
    length,
    physical: first.physical,
    runs: best.runs,
  };
}

/** The largest run by virtual addresses alone, for page tables that hold frames of a machine. */
function findScatteredImage(space: VirtualMemory): MappedImage | undefined {
  const pieces: Mapping[][] = [];
  for (const mapping of space.mappings(KERNEL_MAP, KERNEL_MAP_END, MAX_MAPPINGS)) {
    const piece = pieces.at(-1);
    const last = piece?.at(-1);
    const hole = last === undefined ? MAX_HOLE : mapping.virtual - (last.virtual + last.length);
    if (piece === undefined || last === undefined || hole > MAX_HOLE) pieces.push([mapping]);
    else if (hole === 0n)
      piece[piece.length - 1] = { ...last, length: last.length + mapping.length };
    else piece.push(mapping);
  }
  const bytes = (runs: readonly Mapping[]) => runs.reduce((sum, run) => sum + run.length, 0n);
  const runs = pieces.reduce<Mapping[]>((best, one) => (bytes(one) > bytes(best) ? one : best), []);
  const [first, last] = [runs[0], runs.at(-1)];
  if (first === undefined || last === undefined || bytes(runs) < MIN_IMAGE) return undefined;
  const length = last.virtual + last.length - first.virtual;
  return { linear: false, virtual: first.virtual, length, physical: first.physical, runs };
}

/** Bytes of the image that are mapped. */
function mappedBytes(image: MappedImage): bigint {
  return image.runs.reduce((sum, run) => sum + run.length, 0n);
}

function spaceAt(
  memory: PhysicalMemory,
  root: bigint,
  levels: 4 | 5,
): { space: VirtualMemory; image: MappedImage } | undefined {
  if (!memory.contains(root, 4096n)) return undefined;
  const space = memory.virtual(root, levels);
  try {
    const image = findImage(space);
    return image === undefined ? undefined : { space, image };
  } catch (error) {
    // A page that is no page table can claim any number of mappings.
    if (error instanceof VmiError && error.code !== 'VMI_CLOSED') return undefined;
    throw error;
  }
}

function fromRegisters(
  memory: PhysicalMemory,
  registers: readonly VcpuRegisters[],
  trail: Trail,
): ImageCandidate[] {
  const found = new Map<string, ImageCandidate>();
  const looked = new Set<string>();
  for (const one of registers) {
    const { vcpu, cr0, cr3, cr4 } = one;
    if (!isInLongMode(one)) {
      trail.note(
        `registers: vCPU ${vcpu} is not in 64-bit mode (cr0 ${hex(cr0)}, cr4 ${hex(cr4)})`,
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
      // The process whose table this is may exit at any moment; where the image lies does not change.
      if (at.image.linear) at.space.setWindows(at.image.runs);
      const known = found.get(key);
      if (known !== undefined && mappedBytes(known.image) >= mappedBytes(at.image)) continue;
      found.set(key, { source: 'registers', label: labelOf(one), ...at });
    }
    if (found.size === 0)
      trail.note(`registers: cr3 ${hex(cr3)} of vCPU ${vcpu} maps no kernel image`);
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
 * Whether all vCPUs that run in 64-bit mode map the kernel that a table maps: all page tables of a kernel share that entry.
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
  trail: Trail,
): ImageCandidate | undefined {
  const label = `VMCOREINFO of ${info.release} at ${hex(info.address)}`;
  // NUMBER(phys_base) is signed; __pa_symbol(): va - __START_KERNEL_map + phys_base.
  const physBase = requiredNumber(info, 'phys_base');
  const physical = (address: bigint) => wrap(address - KERNEL_MAP + physBase);
  const table = info.symbols.get('swapper_pg_dir') ?? info.symbols.get('init_top_pgt');
  if (table === undefined) {
    trail.note(`${label}: it names no page table`);
    return undefined;
  }
  const levels = info.numbers.get('pgtable_l5_enabled') === 1n ? 5 : 4;
  const at = spaceAt(memory, physical(table) & PHYSICAL_MASK, levels);
  if (at === undefined) {
    trail.note(
      `${label}: no page table at ${hex(physical(table))} that maps a kernel image (a kernel that ran before a reset?)`,
    );
    return undefined;
  }
  const stext = info.symbols.get('_stext')!;
  for (const [name, address] of [
    ['_stext', stext],
    ['its page table', table],
  ] as const) {
    // prettier-ignore
    if (translated(at.space, address) !== physical(address)) {
      trail.note(
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

/**
 * Kernels by what they contain: a kallsyms token table in RAM, the tables around it, the page table they name. The
 * image is in one piece, so what lies how far from what is the same in physical addresses.
 */
async function* fromContents(
  memory: PhysicalMemory,
  signal: AbortSignal | undefined,
  trail: Trail,
): AsyncGenerator<ImageCandidate> {
  const hits = await memory.scan(TOKEN_PATTERN, { max: MAX_TOKEN_HITS, signal });
  let tables = 0;
  for (const hit of hits) {
    const label = `contents: token table at ${hex(hit)}`;
    const around = ramAround(memory, hit);
    if (around === undefined) continue;
    try {
      const tokenTable = tokenTableAt(memory, hit, around);
      if (tokenTable === undefined) continue;
      tables++;
      const candidate = fromTokenTable(memory, tokenTable, around, label, trail);
      if (candidate !== undefined) yield candidate;
    } catch (error) {
      if (!(error instanceof VmiError) || error.code === 'VMI_CLOSED') throw error;
      trail.note(`${label}: ${error.message}`);
    }
  }
  if (tables === 0)
    trail.note(`contents: no kallsyms token table in ${memory.size >> 20n} MiB of RAM`);
}

function ramAround(memory: PhysicalMemory, address: bigint): AddressRange | undefined {
  const range = memory.ranges.find(
    ({ start, length }) => address >= start && address < start + length,
  );
  if (range === undefined) return undefined;
  const end = range.start + range.length;
  const low = address - AROUND;
  return {
    start: low > range.start ? low : range.start,
    end: address + AROUND < end ? address + AROUND : end,
  };
}

/** Physical address of the token table whose digits were hit; ten digits in a row stand elsewhere too. */
function tokenTableAt(
  memory: PhysicalMemory,
  hit: bigint,
  around: AddressRange,
): bigint | undefined {
  const before = hit - around.start < 8192n ? hit - around.start : 8192n;
  const near = memory.read(hit - before, Math.min(Number(around.end - hit + before), 16_384));
  const tokens = tokenTableAround(near, Number(before));
  return tokens === undefined ? undefined : hit - before + BigInt(tokens.table);
}

function fromTokenTable(
  memory: PhysicalMemory,
  tokenTable: bigint,
  around: AddressRange,
  label: string,
  trail: Trail,
): ImageCandidate | undefined {
  const { symbols, relative } = physicalKallsyms(memory, tokenTable, around);
  const table = symbols.find('init_top_pgt');
  const banner = symbols.find('linux_banner');
  if (table === undefined || banner === undefined) {
    trail.note(`${label}: its ${symbols.count} symbols lack init_top_pgt or linux_banner`);
    return undefined;
  }
  const distance = relative ? 0n : distanceByBanner(memory, banner, around);
  if (distance === undefined) {
    trail.note(`${label}: no banner near it at the place of linux_banner`);
    return undefined;
  }
  const root = wrap(table + distance);
  for (const levels of [4, 5] as const) {
    if (root % 4096n !== 0n) break;
    const at = spaceAt(memory, root, levels);
    if (at === undefined) continue;
    const offset = tokenTable - at.image.physical;
    if (offset < 0n || offset >= at.image.length) continue;
    return { source: 'contents', label, ...at, tokenTable: at.image.virtual + offset };
  }
  trail.note(`${label}: the page table at ${hex(root)} does not map the image it lies in`);
  return undefined;
}

/**
 * Symbols by tables at physical addresses. Offsets from a base give virtual addresses; offsets from their own place
 * (`relative`) give physical ones, as the tables were found at such.
 */
function physicalKallsyms(
  memory: PhysicalMemory,
  tokenTable: bigint,
  around: AddressRange,
): { symbols: Kallsyms; relative: boolean } {
  const source: ByteSource = { read: (address, length) => memory.read(address, length) };
  const virtual = { start: KERNEL_MAP, end: KERNEL_MAP_END };
  let failure: unknown;
  for (const image of [virtual, around]) {
    try {
      const symbols = Kallsyms.find(source, tokenTable, image, around);
      return { symbols, relative: symbols.tables.form === 'place' };
    } catch (error) {
      failure ??= error;
    }
  }
  throw failure;
}

/** How far the image's physical addresses are from its virtual ones: by the text that `linux_banner` must show. */
function distanceByBanner(
  memory: PhysicalMemory,
  banner: bigint,
  around: AddressRange,
): bigint | undefined {
  const first = around.start - (around.start % IMAGE_ALIGN) + (banner % IMAGE_ALIGN);
  const text = Buffer.alloc(BANNER.length);
  for (let at = first; at + 16n <= around.end; at += IMAGE_ALIGN) {
    if (memory.readInto(at, text) === text.length && text.equals(BANNER)) return wrap(at - banner);
  }
  return undefined;
}
