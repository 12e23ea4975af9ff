import type { NativeScan } from '../../types/addon.js';
import { PAGE_SIZE } from '../address.js';
import { VmiError } from '../errors.js';
import { openAnswered, packRecording, scanKey } from '../memory/image/recording.js';
import type { PhysicalMemory, VcpuRegisters } from '../memory/physical-memory.js';
import { attach } from './attach.js';
import type { Guest } from './guest.js';

/** Pages that are kept at most: 256 MiB. */
const MAX_PAGES = 65_536;

/**
 * Keeps the pages that questions to a guest read, so that the same questions can be answered when
 * the guest is gone: `image:FILE` of what {@link pack} gives. A page is kept as it was when it was
 * first read.
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
  readonly #pages = new Map<number, Uint8Array>();
  readonly #scans: Record<string, readonly bigint[]> = {};

  private constructor(memory: PhysicalMemory, registers: readonly VcpuRegisters[]) {
    this.#memory = memory;
    this.#registers = registers;
  }

  /** Reads the registers that the kernel is found by, where the source has them. */
  static async start({ memory }: Guest): Promise<Recorder> {
    return new Recorder(memory, memory.capabilities.registers ? await memory.registers() : []);
  }

  /** Bytes of the pages that are kept. */
  get size(): number {
    return this.#pages.size * PAGE_SIZE;
  }

  /**
   * The guest once more, each page of it kept when it is read. To be closed by itself.
   * @throws {VmiError} as `attach`
   */
  attach(): Promise<Guest> {
    const memory = openAnswered(
      this.#facts(),
      (address, into) => this.#read(address, into),
      (request) => this.#scan(request),
    );
    return attach({ memory }, { cache: false });
  }

  /** The recording so far, as the bytes of a file. */
  pack(): Buffer {
    return packRecording({ ...this.#facts(), pages: this.#pages, scans: this.#scans });
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
    let page = this.#pages.get(number);
    if (page === undefined) {
      const whole = new Uint8Array(PAGE_SIZE);
      const read = this.#memory.readInto(address, whole);
      if (read < PAGE_SIZE) {
        into.set(whole.subarray(0, Math.min(read, into.length)));
        return Math.min(read, into.length);
      }
      if (this.#pages.size >= MAX_PAGES) {
        throw new VmiError('VMI_UNSUPPORTED', 'a recording holds at most 256 MiB');
      }
      page = whole;
      this.#pages.set(number, page);
    }
    into.set(page.subarray(0, into.length));
    return into.length;
  }
}
