import { inspect } from 'node:util';
import { hex, type VmiError } from '../errors.js';
import type { PhysicalMemory } from '../memory/physical-memory.js';
import type { VirtualMemory } from '../memory/virtual-memory.js';
import { milliseconds } from '../milliseconds.js';
import type { CachedKernel } from './cache.js';
import type { CarriedCache } from './carried-cache.js';
import type { KernelInRam } from './choose.js';
import { KernelCpus } from './cpus.js';
import { type ChosenKernel, findKernel } from './find-kernel.js';
import { findKaslrOffset } from './kaslr.js';
import type { KernelImage } from './kernel-image.js';
import { checkLoading, type KernelOptions, openCache } from './kernel-options.js';
import type { SymbolTable } from './symbols/table.js';
import type { TypeTable } from './types/table.js';
import { KERNEL_MAP } from './x86-64.js';
import type { P2m } from './xen-p2m.js';

/** How a kernel was found, and where what is known of it comes from. */
export interface Provenance {
  readonly located: 'registers' | 'vmcoreinfo' | 'contents';
  /** The vCPU, the copy of VMCOREINFO or the table by which it was found. */
  readonly by: string;
  /** `kallsyms`, the profile's file, or `contents` where the kernel names nothing. */
  readonly symbols: string;
  /** `btf`, the profile's file, or `inferred` where the kernel has no types. */
  readonly types: string;
  /** Why this one was taken of several in RAM; `undefined`: no other was met. */
  readonly chosen: string | undefined;
  /** Whether the cache knew this kernel. */
  readonly cached: boolean;
  /** Duration of {@link Kernel.load}. */
  readonly milliseconds: number;
}

/**
 * The kernel a guest runs: symbols, types and page table, verified. Made by {@link Kernel.load}.
 */
export class Kernel {
  /** As `uname -r` prints it. */
  readonly release: string;
  /** As `/proc/version` shows it. */
  readonly banner: string;
  /** Hex; `undefined` when the kernel was built without. */
  readonly buildId: string | undefined;
  /** Virtual memory through the kernel's own page table. */
  readonly memory: VirtualMemory;
  /** Levels of its page tables. */
  readonly levels: 4 | 5;
  /**
   * Physical address of the kernel's own top-level table: a CR3 value that maps the kernel and
   * never dangles.
   */
  readonly root: bigint;
  /** Where its image is, in virtual and in physical memory. */
  readonly image: KernelImage;
  /**
   * Virtual address of physical address 0 in the direct map; of a PV guest of Xen, of
   * pseudo-physical address 0.
   */
  readonly pageOffset: bigint;
  /**
   * Translates between what a PV guest of Xen calls physical and the machine's addresses;
   * `undefined` in all others.
   */
  readonly p2m: P2m | undefined;
  /** Its symbols, by name and by address. */
  readonly symbols: SymbolTable;
  /** Its types: structures, and where their members are. */
  readonly types: TypeTable;
  /**
   * Whether page-table isolation is on: then CR3 of user mode is that of the kernel with bit 12
   * set.
   */
  readonly pti: boolean;
  /**
   * The kernel's `phys_base`, signed: `physical = virtual - 0xffffffff80000000 + physBase` within
   * the image; pseudo-physical in a PV guest of Xen.
   */
  readonly physBase: bigint;
  /**
   * Why this kernel's tasks cannot be read: what is not known of it, and what would help.
   * `undefined` where they can, as nearly always.
   */
  readonly lacking: VmiError | undefined;
  /** How it was found, and where what is known of it comes from. */
  readonly provenance: Provenance;
  /**
   * The kernels that were found in RAM, by where they lie. A warm reset, a kexec and a crash leave
   * the old one there. Of an image, and where one was asked for, it is all of them; registers of a
   * running guest lead to the one that runs, and no other is looked for.
   */
  readonly inRam: readonly KernelInRam[];
  /** Whether the user chose it: then it need not be the one that runs. */
  readonly asked: boolean;
  readonly #kaslr: () => bigint | undefined;
  readonly #found: ChosenKernel;
  readonly #cpus: KernelCpus;
  /** Answers in the cache's file. */
  #saved: number;
  #saving: Promise<boolean> = Promise.resolve(false);

  private constructor(found: ChosenKernel, milliseconds: number, asked: boolean) {
    const { image, candidate } = found;
    this.#found = found;
    this.#cpus = new KernelCpus(found);
    this.#saved =
      found.cached === undefined ? 0 : found.cached.symbols.size + found.cached.offsets.size;
    this.release = found.release;
    this.banner = found.banner;
    this.buildId = found.buildId?.hex;
    this.memory = found.memory;
    this.levels = image.levels;
    this.root = image.root;
    this.image = image;
    this.pageOffset = image.pageOffset;
    this.symbols = found.symbols;
    this.types = found.types;
    this.pti = found.pti;
    this.lacking = found.lacking;
    this.inRam = found.all;
    this.asked = asked;
    this.p2m = image.p2m;
    const imagePhysical = image.p2m?.ofImage(image.virtual) ?? image.physical;
    this.physBase = BigInt.asIntN(64, imagePhysical - (image.virtual - KERNEL_MAP));
    const { vmcoreinfo } = candidate;
    const text = image.virtual;
    this.#kaslr = () => findKaslrOffset({ ...found, text, vmcoreinfo });
    this.provenance = {
      located: candidate.source,
      by: candidate.label,
      symbols: found.symbols.source,
      types: found.types.source,
      chosen: found.why,
      cached: found.cached !== undefined,
      milliseconds,
    };
  }

  /**
   * Finds the kernel that runs, with no profile: by vCPU registers, VMCOREINFO or the contents of
   * RAM. Symbols come from kallsyms, types from BTF. Always verified: banner, init_task, its list,
   * init_mm's page table, the direct map.
   *
   * @throws {VmiError} `VMI_ATTACH`: no Linux kernel that can be verified, or none of that number;
   *   what was tried and found is in the message
   * @throws {VmiError} `VMI_ABORTED`
   * @throws {TypeError} no memory, or an option that there is not, or of another type
   * @throws {RangeError} `number`
   */
  static async load(memory: PhysicalMemory, options: KernelOptions = {}): Promise<Kernel> {
    checkLoading(memory, options);
    const started = milliseconds();
    const { signal, profile, registers, number } = options;
    const cache = options.opened ?? openCache(options.cache);
    const found = await findKernel(memory, { profile, cache, signal, registers, number });
    const kernel = new Kernel(found, milliseconds() - started, number !== undefined);
    if (cache !== undefined) {
      void kernel.remember();
      const at = found.candidate.vmcoreinfo?.address;
      if (at !== undefined) void cache.hint(at);
    }
    return kernel;
  }

  /** @see root */
  get cr3(): bigint {
    return this.root;
  }

  /**
   * How far KASLR moved the image, in bytes; `undefined` where this guest does not say, and it is
   * not guessed.
   */
  get kaslr(): bigint | undefined {
    return this.#kaslr();
  }

  /**
   * CPUs that are or were online: one more than the highest number in `cpu_online_mask`, 1 without
   * SMP. CPUs are brought up and down at run time, so it is read at every use.
   */
  get cpuCount(): number {
    return (this.onlineCpus().at(-1) ?? 0) + 1;
  }

  /** Numbers of the CPUs that are online now, ascending. */
  onlineCpus(): number[] {
    return this.#cpus.online();
  }

  /**
   * What to add to a per-cpu symbol's address for one CPU, modulo 2^64. kernel:
   * `__per_cpu_offset[cpu]`.
   * @throws {RangeError} no such CPU
   */
  perCpuOffset(cpu: number): bigint {
    return this.#cpus.perCpuOffset(cpu);
  }

  /**
   * Writes what was found and asked so far to the cache, so that the next attach need not ask the
   * guest. Never fails; returns whether there was something to write and it was written.
   */
  remember(): Promise<boolean> {
    this.#saving = this.#saving.then(async () => {
      const saved = await this.#save();
      const { cache, candidate } = this.#found;
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

  /** @internal Keeps what is known so far in another cache. */
  copyTo(cache: CarriedCache): void {
    const known = this.#known();
    if (known !== undefined) cache.keep(known, this.image.virtual);
  }

  async #save(): Promise<boolean> {
    const { cache } = this.#found;
    const cached = this.#known();
    if (cache === undefined || cached === undefined) return false;
    // Answers are only ever added.
    const size = cached.symbols.size + cached.offsets.size;
    if (size === this.#saved) return false;
    const saved = await cache.save(cached, this.image.virtual);
    if (saved) this.#saved = size;
    return saved;
  }

  /** What a cache keeps; `undefined` where the kernel cannot be told from another. */
  #known(): CachedKernel | undefined {
    const { guest, buildId, image } = this.#found;
    if (buildId === undefined) return undefined;
    const symbols = guest.symbols.known;
    const offsets = guest.types.known;
    return {
      buildId: buildId.hex,
      buildIdAt: Number(buildId.address - image.virtual),
      release: this.release,
      tables: guest.tables(),
      btf: guest.btf(),
      symbols,
      offsets,
    };
  }
}
