import type { NativeScan } from '../../types/addon.js';
import { PAGE_SIZE } from '../address.js';
import { VmiError } from '../errors.js';
import { elfCore } from '../export/elf-core.js';
import { CarriedCache } from '../kernel/carried-cache.js';
import type { Kernel } from '../kernel/kernel.js';
import { RecordedPages } from '../memory/image/recorded-pages.js';
import { openAnswered, packRecording, scanKey } from '../memory/image/recording.js';
import type { PhysicalMemory, VcpuRegisters } from '../memory/physical-memory.js';
import { attachThrough } from './attach.js';
import { checkGuest } from './check-guest.js';
import type { Guest } from './guest.js';

/** Pages that are kept at most: 256 MiB. */
const MAX_PAGES = 65_536;

/**
 * Keeps what questions to a guest read of its memory, so that the same questions can be answered
 * when the guest is gone: `replay:FILE` of what {@link pack} gives. A page is kept as it was when
 * it was first read, and of it only what was read.
 *
 * @example
 * const recorder = await Recorder.start(guest);
 * const recorded = await recorder.attach();
 * recorded.tasks();
 * await recorded.close();
 * writeFileSync('guest.rec', recorder.pack());
 */
export class Recorder {
  readonly #memory: PhysicalMemory;
  readonly #registers: readonly VcpuRegisters[];
  readonly #pages = new RecordedPages();
  readonly #scans: Record<string, readonly bigint[]> = {};

  readonly #cache: CarriedCache;
  readonly #kernel: Kernel;
  readonly #kernels = new Set<Kernel>();

  private constructor(
    memory: PhysicalMemory,
    registers: readonly VcpuRegisters[],
    kernel: Kernel,
    cache: CarriedCache,
  ) {
    this.#kernel = kernel;
    this.#memory = memory;
    this.#registers = registers;
    this.#cache = cache;
  }

  /**
   * Begins: reads the registers that the kernel is found by, where the source has them.
   * @throws {TypeError} no guest
   */
  static async start(guest: Guest): Promise<Recorder> {
    checkGuest(guest);
    const { memory, kernel } = guest;
    askWhatIsAskedOften(guest);
    const registers = memory.capabilities.registers ? await memory.registers() : [];
    const cache = new CarriedCache();
    kernel.copyTo(cache);
    return new Recorder(memory, registers, kernel, cache);
  }

  /** Bytes of the pages that were read. */
  get size(): number {
    return this.#pages.count * PAGE_SIZE;
  }

  /**
   * The guest once more, each page of it kept when it is read. To be closed by itself.
   * @throws {VmiError} as `attach`
   */
  async attach(): Promise<Guest> {
    const memory = openAnswered(
      this.#facts(),
      (address, into) => this.#read(address, into),
      (request) => this.#scan(request),
      (address, length) => this.#pages.keep(address, length),
    );
    this.#keepKernels();
    const guest = await attachThrough(this.#cache, memory);
    this.#kernels.add(guest.kernel);
    return guest;
  }

  /** The recording so far, as the bytes of a file. */
  pack(): Buffer {
    this.#keepKernels();
    return packRecording({
      ...this.#facts(),
      pages: this.#pages,
      scans: this.#scans,
      kernel: this.#cache.files,
    });
  }

  /**
   * The same pages as an ELF core, for tools that read dumps with the kernel's debug information
   * (crash, drgn): with the page tables that lead to them, and VMCOREINFO. What was not read is not
   * in it. The guest has to be there still.
   */
  packCore(): Buffer {
    return elfCore(this.#kernel, this.#pages);
  }

  /** What was asked of a kernel's tables need not be asked of a recording. */
  #keepKernels(): void {
    for (const kernel of this.#kernels) kernel.copyTo(this.#cache);
  }

  #facts() {
    const { ranges, addressing, description } = this.#memory;
    return { description, addressing, ranges, registers: this.#registers };
  }

  /** What a search found is kept, not what it looked at. */
  async #scan(request: NativeScan): Promise<BigUint64Array> {
    const key = scanKey(request);
    const { pattern, stride, offsets, start, end, max } = request;
    this.#scans[key] ??= await this.#memory.scan(pattern, {
      stride,
      offsets,
      max,
      ...(start === undefined ? {} : { start }),
      ...(end === undefined ? {} : { end }),
    });
    return BigUint64Array.from(this.#scans[key]);
  }

  #read(address: bigint, into: Uint8Array): number {
    const number = Number(address / BigInt(PAGE_SIZE));
    let page = this.#pages.page(number);
    if (page === undefined) {
      const whole = new Uint8Array(PAGE_SIZE);
      const read = this.#memory.readInto(address, whole);
      if (read < PAGE_SIZE) {
        into.set(whole.subarray(0, Math.min(read, into.length)));
        return Math.min(read, into.length);
      }
      if (this.#pages.count >= MAX_PAGES) {
        throw new VmiError('VMI_UNSUPPORTED', 'a recording holds at most 256 MiB');
      }
      page = whole;
      this.#pages.add(number, page);
    }
    into.set(page.subarray(0, into.length));
    return into.length;
  }
}

/**
 * Makes the kernel's tables known for the questions that nearly every command asks: what is known
 * is carried along in a line each, the tables themselves are megabytes.
 */
function askWhatIsAskedOften(guest: Guest): void {
  for (const ask of [() => guest.crossView(), () => guest.cpus(), () => guest.explain(1)]) {
    try {
      ask();
    } catch (error) {
      // Whoever asks while recording is told.
      if (!(error instanceof VmiError)) throw error;
    }
  }
}
