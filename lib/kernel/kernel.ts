import { setImmediate as nextTurn } from 'node:timers/promises';
import { inspect } from 'node:util';
import { wrap } from '../address.js';
import { CorruptError, FaultError, hex, VmiError } from '../errors.js';
import type { PhysicalMemory, VcpuRegisters } from '../memory/physical-memory.js';
import type { Mapping, VirtualMemory } from '../memory/virtual-memory.js';
import { findBuildId } from './build-id.js';
import { type CachedKernel, type CacheEntry, KernelCache } from './cache.js';
import {
  fromPlace,
  type ImageCandidate,
  KERNEL_MAP,
  type LocateOptions,
  locate,
  type MappedImage,
  Trail,
  vcpuThatMaps,
} from './locate.js';
import type { Profile } from './profile/profile.js';
import {
  type AddressRange,
  Kallsyms,
  type KallsymsTables,
  TOKEN_PATTERN,
  tokenTableAround,
} from './symbols/kallsyms.js';
import { KERNEL_HALF, type KnownSymbols, LazySymbols, type SymbolTable } from './symbols/table.js';
import { BTF_MAGIC, Btf, parseBtfHeader } from './types/btf.js';
import {
  BaseTypes,
  type KnownOffsets,
  LazyTypes,
  type StructType,
  type TypeTable,
} from './types/table.js';
import { P2m } from './xen-p2m.js';

export interface KernelOptions {
  readonly signal?: AbortSignal | undefined;
  /** Symbols and types from the user's files, used in place of the guest's own where they have an answer. */
  readonly profile?: Profile | undefined;
  /** `false`: no cache; a path: a folder other than the default one. */
  readonly cache?: boolean | string | undefined;
  /** The cache that `cache` names, where it is open already. */
  readonly opened?: KernelCache | undefined;
  /** Registers of the vCPUs, or when they are there; asked of the memory's machine when left out. */
  readonly registers?: readonly VcpuRegisters[] | Promise<readonly VcpuRegisters[]> | undefined;
}

/** The cache that an option names; `undefined`: none is to be used. */
export function openCache(option: boolean | string | undefined): KernelCache | undefined {
  return option === false
    ? undefined
    : new KernelCache(typeof option === 'string' ? option : undefined);
}

/** How a kernel was found, and where what is known of it comes from. */
export interface Provenance {
  readonly located: 'registers' | 'vmcoreinfo' | 'contents';
  /** The vCPU, the copy of VMCOREINFO or the table by which it was found. */
  readonly by: string;
  /** `kallsyms`, or the profile's file. */
  readonly symbols: string;
  /** `btf`, or the profile's file. */
  readonly types: string;
  /** Whether the cache knew this kernel. */
  readonly cached: boolean;
  /** Duration of {@link Kernel.load}. */
  readonly milliseconds: number;
}

/** The kernel's image: a page table that maps it, and where. */
export interface KernelImage extends MappedImage {
  readonly source: Provenance['located'];
  readonly levels: 4 | 5;
  /** The kernel's own top-level table. */
  readonly root: bigint;
  /** Where physical address 0 is in the direct map. */
  readonly pageOffset: bigint;
  /** Linear mappings of image and direct map, checked against the page table; none in a PV guest of Xen. */
  readonly windows: readonly Mapping[];
  readonly p2m: P2m | undefined;
}

/** TASK_COMM_LEN. include/linux/sched.h. */
const COMM_LENGTH = 16;
/** X86_FEATURE_PTI, word 7 bit 11. arch/x86/include/asm/cpufeatures.h, the same from 4.15 to 7.x. */
const PTI_WORD = 7;
const PTI_FLAG = 1 << 11;
/** CONFIG_NR_CPUS at most. arch/x86/Kconfig, NR_CPUS_RANGE_END. */
const MAX_CPUS = 8192;
/** Byte offset of the top-level entry that maps the kernel's text. */
const TEXT_ENTRY = 511n * 8n;
/** __PAGE_OFFSET_BASE_L4 and _L5, used without CONFIG_DYNAMIC_MEMORY_LAYOUT. arch/x86/include/asm/page_64_types.h. */
const PAGE_OFFSET_BASE = { 4: 0xffff_8880_0000_0000n, 5: 0xff11_0000_0000_0000n } as const;
/** Most bytes of BTF read: a distribution's kernel has 3–8 MB. */
const MAX_BTF = 64 << 20;
/** Bytes of an image that is searched page by page that are read at a time. */
const SCAN_CHUNK = 1 << 20;
/** The same where the source itself searches. */
const SCAN_PIECE = 4n << 20n;
/** A live list changes under the reader; so often is a look repeated before it counts as broken. */
const ATTEMPTS = 8;
/** Seconds a running guest's clock may be off the host's; a reboot takes longer. */
const CLOCK_TOLERANCE = 2;
/** Build-ids compared at most: the cache holds no more. */
const MAX_CACHE_LOOKS = 256;

/** The kernel a guest runs: symbols, types and page table, verified. Made by {@link Kernel.load}. */
export class Kernel {
  /** As `uname -r` prints it. */
  readonly release: string;
  /** As `/proc/version` shows it. */
  readonly banner: string;
  /** Hex; `undefined` when the kernel was built without. */
  readonly buildId: string | undefined;
  /** Virtual memory through the kernel's own page table. */
  readonly memory: VirtualMemory;
  readonly levels: 4 | 5;
  /** Physical address of the kernel's own top-level table: a CR3 value that maps the kernel and never dangles. */
  readonly root: bigint;
  readonly image: KernelImage;
  /** Virtual address of physical address 0 in the direct map; of a PV guest of Xen, of pseudo-physical address 0. */
  readonly pageOffset: bigint;
  /** Translates between what a PV guest of Xen calls physical and the machine's addresses; `undefined` in all others. */
  readonly p2m: P2m | undefined;
  readonly symbols: SymbolTable;
  readonly types: TypeTable;
  /** Whether page-table isolation is on: then CR3 of user mode is that of the kernel with bit 12 set. */
  readonly pti: boolean;
  /**
   * The kernel's `phys_base`, signed: `physical = virtual - 0xffffffff80000000 + physBase` within the image; pseudo-physical in a
   * PV guest of Xen.
   */
  readonly physBase: bigint;
  /** Entry of the top-level table that maps the kernel's text; every page directory has the same. */
  readonly textEntry: bigint;
  readonly provenance: Provenance;
  readonly #parts: Parts;
  /** Answers in the cache's file. */
  #saved: number;
  #saving: Promise<boolean> = Promise.resolve(false);

  private constructor(parts: Parts, milliseconds: number) {
    const { image, candidate } = parts;
    this.#parts = parts;
    this.#saved =
      parts.cached === undefined ? 0 : parts.cached.symbols.size + parts.cached.offsets.size;
    this.release = parts.release;
    this.banner = parts.banner;
    this.buildId = parts.buildId?.hex;
    this.memory = parts.memory;
    this.levels = image.levels;
    this.root = image.root;
    this.image = image;
    this.pageOffset = image.pageOffset;
    this.symbols = parts.symbols;
    this.types = parts.types;
    this.pti = parts.pti;
    this.p2m = image.p2m;
    const imagePhysical = image.p2m?.ofImage(image.virtual) ?? image.physical;
    this.physBase = BigInt.asIntN(64, imagePhysical - (image.virtual - KERNEL_MAP));
    this.textEntry = parts.memory.physical.readU64(image.root + TEXT_ENTRY);
    this.provenance = {
      located: candidate.source,
      by: candidate.label,
      symbols: parts.symbols.source,
      types: parts.types.source,
      cached: parts.cached !== undefined,
      milliseconds,
    };
  }

  /**
   * Finds the kernel that runs, with no profile: by vCPU registers, VMCOREINFO or the contents of RAM. Symbols come from
   * kallsyms, types from BTF. Always verified: banner, init_task, its list, init_mm's page table, the direct map.
   *
   * @throws {VmiError} `VMI_ATTACH`: no Linux kernel that can be verified; what was tried and found is in the message
   * @throws {VmiError} `VMI_ABORTED`
   */
  static async load(memory: PhysicalMemory, options: KernelOptions = {}): Promise<Kernel> {
    const started = performance.now();
    const { signal, profile } = options;
    const cache = options.opened ?? openCache(options.cache);
    const trail = new Trail();
    memory.begin();
    const asked = options.registers ?? readRegisters(memory, signal, trail);
    const entries = cache === undefined ? [] : cache.entries();
    // While QEMU is at them: the kernel that ran last where a guest had its page table, if it is still there. They decide.
    const guess = cache && guessKernel(memory, { profile, cache, entries, signal });
    let registers = await asked;
    checkAborted(signal);
    // Of no use to registers, and not even read when they settle it.
    const hints = registers.length === 0 && cache !== undefined ? cache.hints() : [];
    const search = () =>
      searchKernel(memory, { registers, hints, profile, cache, entries, signal }, trail);
    let parts = (guess && guessedRight(guess, registers)) ?? (await search());
    // The process whose page table a vCPU had may have exited, and its page be the next one's by now, half made.
    for (let look = 1; parts === undefined && look < ATTEMPTS && memory.live; look++) {
      const now = await readRegisters(memory, signal, trail);
      const then = registers;
      const moved = now.some(({ vcpu, cr3 }) =>
        then.some((one) => one.vcpu === vcpu && one.cr3 !== cr3),
      );
      if (now.length === 0 || (look > 1 && !moved)) break;
      registers = now;
      parts = await search();
    }
    if (parts === undefined) {
      throw new VmiError(
        'VMI_ATTACH',
        `no running Linux kernel found in ${memory.description}: ${trail}`,
      );
    }
    const kernel = new Kernel(parts, performance.now() - started);
    if (cache !== undefined) {
      void kernel.remember();
      const at = parts.candidate.vmcoreinfo?.address;
      if (at !== undefined) void cache.hint(at);
    }
    return kernel;
  }

  /** @see root */
  get cr3(): bigint {
    return this.root;
  }

  /**
   * CPUs that are or were online: one more than the highest number in `cpu_online_mask`, 1 without SMP. CPUs are
   * brought up and down at run time, so it is read at every use.
   */
  get cpuCount(): number {
    return (this.onlineCpus().at(-1) ?? 0) + 1;
  }

  /** Numbers of the CPUs that are online now, ascending. */
  onlineCpus(): number[] {
    const mask = this.symbols.find('__cpu_online_mask');
    const possible = this.#possibleCpus();
    if (mask === undefined) return Array.from({ length: possible }, (_, cpu) => cpu);
    const bytes = this.memory.read(mask, Math.ceil(possible / 64) * 8);
    const online: number[] = [];
    for (let cpu = 0; cpu < possible; cpu++) {
      if (((bytes[cpu >>> 3]! >>> (cpu & 7)) & 1) === 1) online.push(cpu);
    }
    return online;
  }

  /**
   * What to add to a per-cpu symbol's address for one CPU, modulo 2^64. kernel: `__per_cpu_offset[cpu]`.
   * @throws {RangeError} no such CPU
   */
  perCpuOffset(cpu: number): bigint {
    const possible = this.#possibleCpus();
    if (!Number.isInteger(cpu) || cpu < 0 || cpu >= possible) {
      throw new RangeError(`Expected cpu between 0 and ${possible - 1} but received ${cpu}`);
    }
    const table = this.symbols.find('__per_cpu_offset');
    // Without CONFIG_SMP per-cpu variables are plain ones.
    return table === undefined ? 0n : this.memory.readU64(wrap(table + BigInt(cpu * 8)));
  }

  /** The address in the direct map of a physical one; of a pseudo-physical one in a PV guest of Xen. */
  directMap(physical: bigint): bigint {
    return wrap(this.pageOffset + physical);
  }

  /**
   * Physical address of a kernel address.
   * @throws {FaultError} not mapped
   */
  toPhysical(address: bigint): bigint {
    return this.memory.translate(address);
  }

  /**
   * Writes what was found and asked so far to the cache, so that the next attach need not ask the guest. Never fails;
   * returns whether there was something to write and it was written.
   */
  remember(): Promise<boolean> {
    this.#saving = this.#saving.then(async () => {
      const saved = await this.#save();
      const { cache, candidate } = this.#parts;
      if (candidate.source === 'registers' && this.p2m === undefined)
        await cache?.place({ root: this.root, levels: this.levels });
      return saved;
    });
    return this.#saving;
  }

  [inspect.custom](): string {
    const { located, symbols, types, cached } = this.provenance;
    const how = `by ${located}, symbols from ${symbols}, types from ${types}${cached ? ', cached' : ''}`;
    return `Kernel { Linux ${this.release}, ${this.levels} levels, root: ${hex(this.root)}, pti: ${this.pti}, ${how} }`;
  }

  async #save(): Promise<boolean> {
    const { cache, own, buildId, image } = this.#parts;
    if (cache === undefined || buildId === undefined) return false;
    const symbols = own.symbols.known;
    const offsets = own.types.known;
    // Answers are only ever added.
    const size = symbols.size + offsets.size;
    if (size === this.#saved) return false;
    const cached: CachedKernel = {
      buildId: buildId.hex,
      buildIdAt: Number(buildId.address - image.virtual),
      release: this.release,
      tables: own.tables(),
      btf: own.btf(),
      symbols,
      offsets,
    };
    const saved = await cache.save(cached, image.virtual);
    if (saved) this.#saved = size;
    return saved;
  }

  #possibleCpus(): number {
    if (this.symbols.find('__per_cpu_offset') === undefined) return 1;
    const symbol = this.symbols.find('nr_cpu_ids');
    // A constant with CONFIG_FORCE_NR_CPUS: then the table's length tells.
    const count = symbol === undefined ? 64 : this.memory.readU32(symbol);
    if (count < 1 || count > MAX_CPUS) {
      throw new CorruptError(`nr_cpu_ids is ${count}`, symbol ?? 0n);
    }
    return count;
  }
}

/** A user's profile that does not fit the guest: final, whatever other ways to a kernel there are. */
class ProfileError extends VmiError {
  constructor(profile: Profile, why: string, release: string) {
    super(
      'VMI_ATTACH',
      `the profile ${profile.source} does not fit this guest (Linux ${release}): ${why}`,
    );
  }
}

/** The guest's own symbols and types, and where they are. */
interface Own {
  /** Reads what is still to be read through the kernel's own page table: that of a process goes when it exits. */
  through(memory: VirtualMemory): void;
  readonly symbols: LazySymbols;
  readonly types: LazyTypes;
  tables(): KallsymsTables | undefined;
  btf(): { readonly at: bigint; readonly length: number } | undefined;
}

interface Parts {
  readonly candidate: ImageCandidate;
  readonly image: KernelImage;
  readonly memory: VirtualMemory;
  readonly symbols: SymbolTable;
  readonly types: TypeTable;
  readonly own: Own;
  readonly release: string;
  readonly banner: string;
  readonly buildId: { readonly hex: string; readonly address: bigint } | undefined;
  readonly pti: boolean;
  readonly cached: CachedKernel | undefined;
  readonly cache: KernelCache | undefined;
}

interface OpenOptions {
  readonly profile: Profile | undefined;
  readonly cache: KernelCache | undefined;
  readonly entries: readonly CacheEntry[];
  readonly signal: AbortSignal | undefined;
}

async function readRegisters(
  memory: PhysicalMemory,
  signal: AbortSignal | undefined,
  trail: Trail,
): Promise<VcpuRegisters[]> {
  if (!memory.capabilities.registers) return [];
  try {
    return await memory.registers({ signal });
  } catch (error) {
    if (!(error instanceof VmiError) || error.code === 'VMI_ABORTED' || error.code === 'VMI_CLOSED')
      throw error;
    trail.note(`registers: ${error.message}`);
    return [];
  }
}

function checkAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted)
    throw new VmiError('VMI_ABORTED', 'the search for the kernel was aborted', {
      cause: signal.reason,
    });
}

/** The first kernel that registers lead to and that verifies; without registers, of all that verify the one that runs. */
async function searchKernel(
  memory: PhysicalMemory,
  options: OpenOptions & Pick<LocateOptions, 'registers' | 'hints'>,
  trail: Trail,
): Promise<Parts | undefined> {
  const { registers, hints, signal } = options;
  const loaded: Parts[] = [];
  const settled = () => loaded.length > 0;
  for await (const candidate of locate(memory, { registers, hints, signal, settled }, trail)) {
    checkAborted(signal);
    let parts: Parts;
    try {
      parts = await open(candidate, options);
      loaded.push(parts);
    } catch (error) {
      if (
        !(error instanceof VmiError) ||
        error.code === 'VMI_CLOSED' ||
        error.code === 'VMI_ABORTED'
      )
        throw error;
      if (error instanceof ProfileError) throw error;
      trail.note(`${candidate.label}: ${error.message}`);
      continue;
    }
    // Registers settle which of several kernels runs. A hint does when that kernel's clock is right: one that a
    // reset left in RAM stands still. Otherwise all copies are looked at.
    if (candidate.source === 'registers' || (candidate.hinted && runsNow(parts))) break;
  }
  checkAborted(signal);
  return newest(loaded);
}

/** Opens a candidate with what the cache knows, and without it when that does not verify. */
async function open(candidate: ImageCandidate, options: OpenOptions): Promise<Parts> {
  const cached = options.cache && recognise(candidate, options.cache, options.entries);
  if (cached !== undefined) {
    try {
      return assemble(candidate, ownFromCache(candidate, cached), cached, options);
    } catch (error) {
      if (
        !(error instanceof VmiError) ||
        error.code === 'VMI_CLOSED' ||
        error instanceof ProfileError
      )
        throw error;
    }
  }
  return assemble(candidate, await ownFromGuest(candidate, options), undefined, options);
}

/** A kernel that the cache knows, where kernels were found before; nothing says yet that it is the one that runs. */
function guessKernel(
  memory: PhysicalMemory,
  options: OpenOptions & { cache: KernelCache },
): Parts | undefined {
  for (const place of options.cache.places()) {
    try {
      const candidate = fromPlace(memory, place);
      const cached = candidate && recognise(candidate, options.cache, options.entries);
      if (cached !== undefined)
        return assemble(candidate!, ownFromCache(candidate!, cached), cached, options);
    } catch (error) {
      // Whatever it was, the search that follows tells.
      if (!(error instanceof VmiError)) throw error;
    }
  }
  return undefined;
}

/** The guess as registers would have led to it; `undefined` when they lead elsewhere. */
function guessedRight(guess: Parts, registers: readonly VcpuRegisters[]): Parts | undefined {
  const label = vcpuThatMaps(guess.memory.physical, registers, guess.memory);
  return label === undefined ? undefined : { ...guess, candidate: { ...guess.candidate, label } };
}

/** The cached kernel whose build-id the image shows. */
function recognise(
  { space, image }: ImageCandidate,
  cache: KernelCache,
  entries: readonly CacheEntry[],
): CachedKernel | undefined {
  for (const entry of entries.slice(0, MAX_CACHE_LOOKS)) {
    const expected = Buffer.from(entry.buildId, 'hex');
    if (BigInt(entry.buildIdAt + expected.length) > image.length) continue;
    const bytes = Buffer.alloc(expected.length);
    if (
      space.readInto(image.virtual + BigInt(entry.buildIdAt), bytes) < bytes.length ||
      !bytes.equals(expected)
    )
      continue;
    const cached = cache.load(entry, image.virtual);
    if (cached !== undefined) return cached;
  }
  return undefined;
}

function rangeOf(image: MappedImage): AddressRange {
  return { start: image.virtual, end: image.virtual + image.length };
}

/** The mapped run an address is in: freed sections leave holes around it when page tables are isolated. */
function runOf(image: MappedImage, address: bigint): AddressRange {
  const run = image.runs.find(
    ({ virtual, length }) => address >= virtual && address < virtual + length,
  );
  return run === undefined ? rangeOf(image) : { start: run.virtual, end: run.virtual + run.length };
}

/** @throws {VmiError} what the cache says is not what the guest has */
function ownFromCache(candidate: ImageCandidate, cached: CachedKernel): Own {
  const { space, image } = candidate;
  const { tables, btf } = cached;
  // Cheap looks at both, so that a broken file shows now and not at some later question.
  if (tables !== undefined) {
    const head = space.read(tables.tokenTable, 8192);
    const zero = head.indexOf(TOKEN_PATTERN);
    const found = zero < 0 ? undefined : tokenTableAround(head, zero);
    if (
      found === undefined ||
      found.table !== 0 ||
      tables.tokenTable + BigInt(found.index) !== tables.tokenIndex
    ) {
      throw new CorruptError('the cached place of kallsyms is wrong', tables.tokenTable);
    }
  }
  if (btf !== undefined) {
    const header = parseBtfHeader(space.read(btf.at, 32));
    if (header === undefined || header.length > btf.length)
      throw new CorruptError('the cached place of BTF is wrong', btf.at);
  }
  let reads = space;
  return {
    through: (memory) => {
      reads = memory;
    },
    symbols: new LazySymbols('kallsyms', () => openKallsyms(reads, tables, image), cached.symbols),
    types: new LazyTypes('btf', () => openBtf(reads, btf), cached.offsets),
    tables: () => tables,
    btf: () => btf,
  };
}

function openKallsyms(
  space: VirtualMemory,
  tables: KallsymsTables | undefined,
  image: MappedImage,
): Kallsyms {
  if (tables === undefined)
    throw new VmiError('VMI_ATTACH', 'the kernel has no kallsyms: give a profile with symbols');
  return Kallsyms.open(space, tables, rangeOf(image));
}

function openBtf(
  space: VirtualMemory,
  btf: { readonly at: bigint; readonly length: number } | undefined,
): Btf {
  if (btf === undefined) {
    throw new VmiError(
      'VMI_ATTACH',
      'the kernel has no BTF (CONFIG_DEBUG_INFO_BTF): give a profile with types',
    );
  }
  return new Btf(space.read(btf.at, btf.length));
}

async function ownFromGuest(candidate: ImageCandidate, options: OpenOptions): Promise<Own> {
  const { space } = candidate;
  let kallsyms: Kallsyms | undefined;
  let failure: unknown;
  try {
    kallsyms = await searchKallsyms(candidate, options.signal);
  } catch (error) {
    if (!(error instanceof VmiError) || error.code === 'VMI_CLOSED' || error.code === 'VMI_ABORTED')
      throw error;
    failure = error;
    // A profile may stand in.
    if (options.profile?.symbols === undefined) throw error;
  }
  const btf =
    (kallsyms && btfBySymbols(candidate, kallsyms)) ?? (await searchBtf(candidate, options.signal));
  let reads = space;
  return {
    through: (memory) => {
      reads = memory;
    },
    symbols: new LazySymbols('kallsyms', () => {
      if (kallsyms === undefined) throw failure;
      return kallsyms;
    }),
    types: new LazyTypes('btf', () => openBtf(reads, btf)),
    tables: () => kallsyms?.tables,
    btf: () => btf,
  };
}

/** Kallsyms of an image, from its token table on. */
async function searchKallsyms(
  { space, image, tokenTable }: ImageCandidate,
  signal: AbortSignal | undefined,
): Promise<Kallsyms> {
  const range = rangeOf(image);
  let failure: unknown;
  for await (const table of tokenTables(space, image, tokenTable, signal)) {
    try {
      return Kallsyms.find(space, table, range, runOf(image, table));
    } catch (error) {
      if (!(error instanceof VmiError) || error.code === 'VMI_CLOSED') throw error;
      failure ??= error;
    }
  }
  throw (
    failure ??
    new VmiError(
      'VMI_ATTACH',
      `an image at ${hex(image.virtual)} without kallsyms: no Linux kernel, or one that still boots`,
    )
  );
}

async function* tokenTables(
  space: VirtualMemory,
  image: MappedImage,
  known: bigint | undefined,
  signal: AbortSignal | undefined,
): AsyncGenerator<bigint> {
  if (known !== undefined && known >= image.virtual && known < image.virtual + image.length)
    yield known;
  for await (const hit of scanImage(space, image, TOKEN_PATTERN, 256, signal)) {
    const { start } = runOf(image, hit);
    const before = hit - start < 8192n ? hit - start : 8192n;
    const bytes = Buffer.alloc(16_384);
    const read = space.readInto(hit - before, bytes);
    const found = tokenTableAround(bytes.subarray(0, read), Number(before));
    if (found !== undefined) yield hit - before + BigInt(found.table);
  }
}

/**
 * Virtual addresses at which a pattern stands in an image, ascending; at most `max`. The image is read piece by piece, no
 * further than the answer takes: a source that goes through a monitor reads 2 MB a second.
 */
async function* scanImage(
  space: VirtualMemory,
  image: MappedImage,
  pattern: Uint8Array,
  max: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<bigint> {
  let left = max;
  if (image.linear) {
    const end = image.physical + image.length;
    for (let start = image.physical; start < end && left > 0; start += SCAN_PIECE) {
      // A pattern may lie across the end of a piece.
      const stop = start + SCAN_PIECE + BigInt(pattern.length - 1);
      const hits = await space.physical.scan(pattern, {
        start,
        end: stop < end ? stop : end,
        max: left,
        signal,
      });
      for (const hit of hits) yield hit - image.physical + image.virtual;
      left -= hits.length;
    }
    return;
  }
  const chunk = Buffer.allocUnsafeSlow(SCAN_CHUNK + pattern.length - 1);
  for (const { virtual, length } of image.runs) {
    for (let done = 0n; done < length; done += BigInt(SCAN_CHUNK)) {
      checkAborted(signal);
      const rest = length - done;
      const part = rest < BigInt(chunk.length) ? chunk.subarray(0, Number(rest)) : chunk;
      const bytes = part.subarray(0, space.readInto(virtual + done, part));
      for (
        let at = bytes.indexOf(pattern);
        at >= 0 && at < SCAN_CHUNK;
        at = bytes.indexOf(pattern, at + 1)
      ) {
        yield virtual + done + BigInt(at);
        if (--left === 0) return;
      }
      await nextTurn();
    }
  }
}

function btfBySymbols(
  { space, image }: ImageCandidate,
  symbols: SymbolTable,
): { at: bigint; length: number } | undefined {
  const start = symbols.find('__start_BTF');
  const stop = symbols.find('__stop_BTF');
  if (
    start === undefined ||
    stop === undefined ||
    stop <= start ||
    stop > image.virtual + image.length
  )
    return undefined;
  const length = Number(stop - start);
  if (length < 32 || length > MAX_BTF) return undefined;
  const header = parseBtfHeader(space.read(start, 32));
  return header === undefined || header.length > length
    ? undefined
    : { at: start, length: header.length };
}

/** BTF by its magic within the image, for kernels whose symbols do not name it (without CONFIG_KALLSYMS_ALL). */
async function searchBtf(
  { space, image }: ImageCandidate,
  signal: AbortSignal | undefined,
): Promise<{ at: bigint; length: number } | undefined> {
  const end = image.virtual + image.length;
  let best: { at: bigint; length: number } | undefined;
  for await (const hit of scanImage(space, image, BTF_MAGIC, 4096, signal)) {
    const bytes = Buffer.alloc(32);
    if (space.readInto(hit, bytes) < bytes.length) continue;
    const header = parseBtfHeader(bytes);
    if (header === undefined || header.length > MAX_BTF || hit + BigInt(header.length) > end)
      continue;
    if (best === undefined || header.length > best.length)
      best = { at: hit, length: header.length };
  }
  return best;
}

/** Puts a kernel together, and verifies it. */
function assemble(
  candidate: ImageCandidate,
  own: Own,
  cached: CachedKernel | undefined,
  options: OpenOptions,
): Parts {
  const { profile } = options;
  const { space, image } = candidate;
  const symbols =
    profile?.symbols === undefined ? own.symbols : movedProfile(profile, own, candidate);
  const types =
    profile?.types === undefined ? own.types : new ProfileTypes(profile.types, own.types);
  const { banner, release } = readBanner(space, symbols, candidate);
  if (profile !== undefined) checkProfile(profile, own, symbols, banner, release);
  try {
    const { image: found, memory } = anchor(candidate, symbols);
    verifyTasks(memory, symbols, types, found);
    own.through(memory);
    const notes = [own.symbols, symbols]
      .map((table) => trySymbols(table, '__start_notes', '__stop_notes'))
      .find((pair) => pair !== undefined);
    const buildId =
      cached === undefined
        ? notes && findBuildId(memory, notes[0], notes[1])
        : { hex: cached.buildId, address: image.virtual + BigInt(cached.buildIdAt) };
    const pti = readPti(memory, symbols, types, found.root);
    return {
      candidate,
      image: found,
      memory,
      symbols,
      types,
      own,
      release,
      banner,
      buildId,
      pti,
      cached,
      cache: options.cache,
    };
  } catch (error) {
    if (profile === undefined || !(error instanceof VmiError) || error.code === 'VMI_CLOSED')
      throw error;
    throw new ProfileError(profile, error.message, release);
  }
}

/** Symbols that may not be there at all: a kernel without kallsyms. */
function trySymbols(
  symbols: SymbolTable,
  first: string,
  second: string,
): [bigint, bigint] | undefined {
  try {
    const a = symbols.find(first);
    const b = symbols.find(second);
    return a === undefined || b === undefined ? undefined : [a, b];
  } catch {
    return undefined;
  }
}

function readBanner(
  space: VirtualMemory,
  symbols: SymbolTable,
  candidate: ImageCandidate,
): { banner: string; release: string } {
  const at = symbols.address('linux_banner');
  let text = '';
  try {
    text = space.readString(at, 512);
  } catch (error) {
    if (!(error instanceof FaultError)) throw error;
  }
  const release = /^Linux version (\S{1,64}) /.exec(text)?.[1];
  if (release === undefined) {
    throw new CorruptError(`linux_banner at ${hex(at)} does not start with 'Linux version'`, at);
  }
  const expected = candidate.vmcoreinfo?.release;
  if (expected !== undefined && expected !== release) {
    throw new CorruptError(`linux_banner says ${release}, VMCOREINFO ${expected}`, at);
  }
  return { banner: text.trimEnd(), release };
}

/** Symbols of a profile where KASLR put them: by where the image starts. */
function movedProfile(profile: Profile, own: Own, { image, space }: ImageCandidate): SymbolTable {
  const symbols = profile.symbols!;
  const start = symbols.find('_text') ?? symbols.find('startup_64');
  if (start === undefined) {
    throw new ProfileError(
      profile,
      "it has neither '_text' nor 'startup_64', so it cannot be told how far KASLR moved it",
      'unknown release',
    );
  }
  const moved = symbols.moved(wrap(image.virtual - start));
  const banner = moved.find('linux_banner');
  const shown =
    banner === undefined
      ? ''
      : space.physical.contains(image.physical)
        ? textAt(space, banner)
        : '';
  if (!shown.startsWith('Linux version ')) {
    const guest = tryBanner(space, own);
    throw new ProfileError(
      profile,
      banner === undefined
        ? "it has no 'linux_banner'"
        : `there is no banner at its linux_banner (${hex(banner)}, moved by ${hex(wrap(image.virtual - start))})`,
      guest ?? 'unknown release',
    );
  }
  return moved;
}

function textAt(space: VirtualMemory, address: bigint): string {
  const bytes = Buffer.alloc(64);
  return bytes.toString('latin1', 0, space.readInto(address, bytes));
}

function tryBanner(space: VirtualMemory, own: Own): string | undefined {
  try {
    const at = own.symbols.find('linux_banner');
    return at === undefined ? undefined : /^Linux version (\S+)/.exec(textAt(space, at))?.[1];
  } catch {
    return undefined;
  }
}

/** Members whose offsets a wrong profile gets wrong without failing any other check. */
const CHECKED_MEMBERS = [
  ['task_struct', 'tasks'],
  ['task_struct', 'pid'],
  ['task_struct', 'tgid'],
  ['task_struct', 'comm'],
  ['task_struct', 'mm'],
  ['task_struct', 'active_mm'],
  ['mm_struct', 'pgd'],
] as const;
const CHECKED_SYMBOLS = [
  'init_task',
  'init_mm',
  'init_top_pgt',
  'linux_banner',
  '__per_cpu_offset',
] as const;

/** Compares a profile with the guest's banner, and with the guest's own symbols and types where it has them. */
function checkProfile(
  profile: Profile,
  own: Own,
  symbols: SymbolTable,
  banner: string,
  release: string,
): void {
  if (profile.banner !== undefined && profile.banner !== banner) {
    throw new ProfileError(
      profile,
      `it is for '${profile.banner}', the guest runs '${banner}'`,
      release,
    );
  }
  const differences: string[] = [];
  if (profile.types !== undefined) {
    for (const [struct, member] of CHECKED_MEMBERS) {
      const given = profile.types.findOffset(struct, member);
      const real =
        given === undefined ? undefined : tryAnswer(() => own.types.findOffset(struct, member));
      if (real !== undefined && given !== real)
        differences.push(
          `${struct}.${member} is at ${given} in the profile, at ${real} in the guest's BTF`,
        );
    }
  }
  if (profile.symbols !== undefined) {
    for (const name of CHECKED_SYMBOLS) {
      const given = symbols.find(name);
      const real = given === undefined ? undefined : tryAnswer(() => own.symbols.find(name));
      if (real !== undefined && given !== real)
        differences.push(
          `${name} is at ${hex(given!)} by the profile, at ${hex(real)} by the guest's kallsyms`,
        );
    }
  }
  if (differences.length > 0)
    throw new ProfileError(profile, differences.slice(0, 4).join('; '), release);
}

function tryAnswer<T>(ask: () => T): T | undefined {
  try {
    return ask();
  } catch (error) {
    // The guest has no kallsyms or no BTF: nothing to compare with.
    if (error instanceof VmiError && error.code !== 'VMI_CLOSED') return undefined;
    throw error;
  }
}

/** A profile's types, completed by the guest's own where it has some. */
class ProfileTypes extends BaseTypes {
  readonly source: string;
  readonly #first: TypeTable;
  readonly #second: TypeTable;

  constructor(first: TypeTable, second: TypeTable) {
    super();
    this.#first = first;
    this.#second = second;
    this.source = first.source;
  }

  find(name: string): StructType | undefined {
    const first = this.#first.find(name);
    // A libvmi.conf knows offsets but no sizes: its structures are no full answer.
    return first !== undefined && first.size > 0 ? first : (this.#second.find(name) ?? first);
  }

  override findOffset(struct: string, path: string): number | undefined {
    return (
      this.#first.findOffset(struct, path) ?? tryAnswer(() => this.#second.findOffset(struct, path))
    );
  }

  override offset(struct: string, path: string): number {
    return this.findOffset(struct, path) ?? this.#second.offset(struct, path);
  }

  findSize(name: string): number | undefined {
    return this.#first.findSize(name) ?? tryAnswer(() => this.#second.findSize(name));
  }

  names(): Iterable<string> {
    return this.#second.names();
  }
}

/** The kernel's own page table and direct map, and the windows they make. */
function anchor(
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
  const kernel = space.root === root ? space : memory.virtual(root, levels);
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

function imagePhysical({ image, space }: ImageCandidate, address: bigint): bigint | undefined {
  if (!image.linear) return space.walk(address).physical;
  const offset = address - image.virtual;
  return offset < 0n || offset >= image.length ? undefined : image.physical + offset;
}

/** PAGE_OFFSET, proven: what the page table maps there is RAM from 0 on, wherever it was looked at. */
function findPageOffset(
  kernel: VirtualMemory,
  symbols: SymbolTable,
  problemOf: (candidate: bigint) => string | undefined,
): bigint {
  const tried: string[] = [];
  for (const candidate of pageOffsets(kernel, symbols)) {
    const problem = problemOf(candidate);
    if (problem === undefined) return candidate;
    const line = `${hex(candidate)}: ${problem}`;
    if (!tried.includes(line)) tried.push(line);
  }
  throw new VmiError(
    'VMI_ATTACH',
    `no direct map of RAM, the kernel may still be booting (tried ${tried.join(', ')})`,
  );
}

/** Where the direct map may start, likeliest first. */
function* pageOffsets(kernel: VirtualMemory, symbols: SymbolTable): Iterable<bigint> {
  // Set by KASLR (CONFIG_RANDOMIZE_MEMORY). arch/x86/kernel/head64.c.
  const symbol = symbols.find('page_offset_base');
  if (symbol !== undefined) yield kernel.readU64(symbol);
  yield PAGE_OFFSET_BASE[kernel.levels];
  yield* firstSlots(kernel);
}

/** Looks at several places of a direct map. Parts of RAM that firmware keeps are not mapped. */
function directMapProblem(kernel: VirtualMemory, pageOffset: bigint): string | undefined {
  if (pageOffset < KERNEL_HALF || pageOffset % 4096n !== 0n) return 'no page of the kernel half';
  const { physical } = kernel;
  let agreed = 0;
  let looked = 0;
  for (const { start, length: given } of physical.ranges.slice(0, 64)) {
    // Of sparse memory only the end is known: what lies there may be a few pages.
    const length = given < physical.size ? given : physical.size;
    for (const part of [0n, 1n, 3n, 5n, 7n]) {
      const address = start + ((((length - 4096n) * part) / 7n) & ~0xfffn); // prettier-ignore
      const found = kernel.walk(wrap(pageOffset + address)).physical;
      looked++;
      if (found === undefined) continue;
      if (found !== address) return `it maps ${hex(address)} to ${hex(found)}`;
      agreed++;
    }
  }
  if (kernel.walk(wrap(pageOffset + kernel.root)).physical !== kernel.root)
    return 'it does not map the page table';
  return agreed * 4 < looked ? `${agreed} of ${looked} places are mapped` : undefined;
}

/**
 * The same in a PV guest of Xen: the direct map has the machine's frames where the guest's own list of them says, and so does the
 * page that the kernel's page table is.
 */
function machineMapProblem(
  kernel: VirtualMemory,
  pageOffset: bigint,
  p2m: P2m,
  table: bigint | undefined,
): string | undefined {
  if (pageOffset < KERNEL_HALF || pageOffset % 4096n !== 0n) return 'no page of the kernel half';
  const size = kernel.physical.size;
  let agreed = 0;
  let looked = 0;
  const places = [0n, 1n, 2n, 3n, 4n, 5n, 6n].map((part) => ((size * part) / 7n) & ~0xfffn);
  if (table !== undefined) places.push(p2m.ofImage(table));
  for (const address of places) {
    const machine = p2m.toMachine(address);
    if (machine === undefined) continue;
    looked++;
    const found = kernel.walk(wrap(pageOffset + address)).physical;
    if (found === undefined) continue;
    if (found !== machine)
      return `it maps ${hex(address)} to ${hex(found)}, the guest's list to ${hex(machine)}`;
    agreed++;
  }
  if (table !== undefined && p2m.toMachine(p2m.ofImage(table)) !== kernel.root)
    return "the guest's list has another frame for the page table";
  return agreed === 0 || agreed * 4 < looked
    ? `${agreed} of ${looked} places are mapped`
    : undefined;
}

/** The lowest present 1 GiB slots of the kernel half: the direct map is the first large thing in it. */
function firstSlots(kernel: VirtualMemory): bigint[] {
  const slots: bigint[] = [];
  const visit = (table: bigint, level: number, base: bigint): void => {
    if (!kernel.physical.contains(table, 4096n)) return;
    const bytes = kernel.physical.read(table, 4096);
    const shift = BigInt(12 + 9 * (level - 1));
    for (let i = level === kernel.levels ? 256 : 0; i < 512 && slots.length < 4; i++) {
      const entry = bytes.readBigUInt64LE(i * 8);
      if ((entry & 1n) === 0n) continue;
      const address = base + (BigInt(i) << shift);
      if (level === 3) slots.push(wrap(address));
      else visit(entry & 0x000f_ffff_ffff_f000n, level - 1, address);
    }
  };
  // Sign extension of the kernel half above the bits that the table translates.
  visit(kernel.root, kernel.levels, -1n << BigInt(12 + 9 * kernel.levels));
  return slots;
}

/** init_task is the idle task, its list closes, and init_mm names the page table that was found. */
function verifyTasks(
  memory: VirtualMemory,
  symbols: SymbolTable,
  types: TypeTable,
  image: KernelImage,
): void {
  const task = symbols.address('init_task');
  const at = (member: string) => wrap(task + BigInt(types.offset('task_struct', member)));
  const pid = memory.readU32(at('pid'));
  const comm = memory.read(at('comm'), COMM_LENGTH).toString('latin1').split('\0', 1)[0]!;
  if (pid !== 0 || !comm.startsWith('swapper')) {
    throw new CorruptError(
      `init_task at ${hex(task)} has PID ${pid} and comm ${JSON.stringify(comm)}, not PID 0 and 'swapper…'`,
      task,
    );
  }
  verifyList(memory, at('tasks'));
  const mm = memory.readU64(at('mm'));
  if (mm !== 0n) throw new CorruptError(`init_task at ${hex(task)} has an mm (${hex(mm)})`, task);
  const activeAt = types.findOffset('task_struct', 'active_mm');
  const active = activeAt === undefined ? 0n : memory.readU64(wrap(task + BigInt(activeAt)));
  if (active !== 0n && active < KERNEL_HALF) {
    throw new CorruptError(`active_mm of init_task is ${hex(active)}, no kernel address`, task);
  }
  const initMm = symbols.find('init_mm');
  if (initMm === undefined) return;
  const pgd = memory.readU64(wrap(initMm + BigInt(types.offset('mm_struct', 'pgd'))));
  let root: bigint | undefined;
  try {
    root = pgd < KERNEL_HALF ? undefined : memory.translate(pgd);
  } catch (error) {
    if (!(error instanceof FaultError)) throw error;
  }
  if (root !== image.root) {
    throw new CorruptError(
      `init_mm.pgd is ${hex(pgd)} (physical ${root === undefined ? 'none' : hex(root)}), not the kernel's page table at ${hex(image.root)}`,
      initMm,
    );
  }
}

/** Both neighbours of a list head point back. A task may be linked or unlinked just then: looked at again. */
function verifyList(memory: VirtualMemory, head: bigint): void {
  let why = '';
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const next = memory.readU64(head);
    const prev = memory.readU64(wrap(head + 8n));
    if (next < KERNEL_HALF || prev < KERNEL_HALF) {
      why = `its neighbours are ${hex(next)} and ${hex(prev)}`;
      continue;
    }
    try {
      const back = memory.readU64(wrap(next + 8n));
      const forth = memory.readU64(prev);
      if (back === head && forth === head) return;
      why = `its neighbours point to ${hex(back)} and ${hex(forth)}`;
    } catch (error) {
      if (!(error instanceof FaultError)) throw error;
      why = error.message;
    }
  }
  throw new CorruptError(`the list of tasks at ${hex(head)} does not close: ${why}`, head);
}

/** Whether page-table isolation is on, from the CPU features the kernel uses. */
function readPti(
  memory: VirtualMemory,
  symbols: SymbolTable,
  types: TypeTable,
  root: bigint,
): boolean {
  const data = symbols.find('boot_cpu_data');
  const capability = tryAnswer(() => types.findOffset('cpuinfo_x86', 'x86_capability'));
  if (data !== undefined && capability !== undefined) {
    return (memory.readU32(wrap(data + BigInt(capability + PTI_WORD * 4))) & PTI_FLAG) !== 0;
  }
  if (memory.physical.addressing === 'machine') return false;
  // No types: a kernel that can isolate keeps the user's half of init_top_pgt behind it, and fills it when it does.
  if (symbols.find('__pti_set_user_pgtbl') === undefined || (root & 0x1000n) !== 0n) return false;
  const user = memory.physical.read(root + 0x1000n, 4096);
  for (let entry = 256; entry < 512; entry++) if ((user[entry * 8]! & 1) === 1) return true;
  return false;
}

/**
 * Of several kernels that all verify, the one that runs: a warm reset leaves the old one in RAM, whole but with its
 * clock stopped. Only without registers is there more than one.
 */
function newest(all: readonly Parts[]): Parts | undefined {
  if (all.length < 2) return all[0];
  const aged = all.map((parts) => ({ parts, time: wallClock(parts) ?? -1n }));
  aged.sort((a, b) => (a.time > b.time ? -1 : a.time < b.time ? 1 : 0));
  return aged[0]!.parts;
}

/** Whether the kernel's clock shows the host's time. */
function runsNow(parts: Parts): boolean {
  if (!parts.memory.physical.live) return false;
  const time = wallClock(parts);
  return time !== undefined && Math.abs(Number(time) - Date.now() / 1000) < CLOCK_TOLERANCE;
}

/** Seconds since 1970 on the kernel's clock. kernel/time/timekeeping.c: `tk_core`, `timekeeper_data` since 6.18. */
function wallClock({ memory, symbols, types }: Parts): bigint | undefined {
  return tryAnswer(() => {
    const core = symbols.find('tk_core') ?? symbols.find('timekeeper_data');
    if (core === undefined) return undefined;
    // Up to 6.12 the structure has no name: a 4-byte sequence count, then the timekeeper, which is aligned to 8.
    const keeper = types.findOffset('tk_data', 'timekeeper') ?? 8;
    return memory.readU64(wrap(core + BigInt(keeper + types.offset('timekeeper', 'xtime_sec'))));
  });
}

export type { KnownOffsets, KnownSymbols };
