import type {
  AddressSpace,
  Memory,
  NativeLoader,
  NativeSamplerOptions,
  Sampler,
} from '../../types/addon.js';
import { type AddressLike, MAX_ADDRESS, toAddress, toLength } from '../address.js';
import { FaultError, fromNative, VmiError } from '../errors.js';
import { checkFlag, checkOptions, checkSignal, describe, type OptionNames } from '../options.js';
import { type Cr3WriteOptions, checkCr3Writes, type RawCr3Writes } from './cr3-writes.js';
import type { DebugStub } from './debug-stub.js';
import { type Engine, NATIVE } from './engine.js';
import { failed } from './failed.js';
import type {
  Capabilities,
  Machine,
  MachineLook,
  RegisterOptions,
  VcpuRegisters,
} from './machine.js';
import type { Addressing, PhysicalMemoryOptions } from './memory-options.js';
import { type ScanOptions, scan } from './scan.js';
import { checkBytes, type WriteBytes, writeAll } from './write.js';

export type {
  AbortOptions,
  Capabilities,
  Machine,
  MachineLook,
  RegisterOptions,
  VcpuRegisters,
} from './machine.js';
export type { Addressing } from './memory-options.js';
export type { ScanOptions } from './scan.js';

/** A run of physical addresses with RAM in it. */
export interface PhysicalRange {
  /** Guest-physical address of the first byte. */
  readonly start: bigint;
  /** Bytes. */
  readonly length: bigint;
}

const REGISTER_NAMES: OptionNames<RegisterOptions> = { signal: true, all: true };
/** Result of a batch: all bytes in one buffer, and how many of each element were read. */
export interface BatchResult {
  readonly bytes: Buffer;
  /** Bytes read per element; less than asked for where RAM ends. */
  readonly transferred: Uint32Array;
}

/** Physical memory of one guest, and the machine behind it. */
export class PhysicalMemory implements AsyncDisposable {
  /** The kind of source: `qemu`, `image`, `libvmi`, `custom`. */
  readonly source: string;
  /** One line for people: what was attached, and how its RAM is reached. */
  readonly description: string;
  /** Whether the guest may change while it is read. */
  readonly live: boolean;
  /** What its addresses count. */
  readonly addressing: Addressing;
  /** Whether the ranges hold holes that only a read finds. */
  readonly sparse: boolean;
  /** Where RAM is, ascending. */
  readonly ranges: readonly PhysicalRange[];
  /** End of the highest range: one more than the last physical address. */
  readonly end: bigint;
  /** What the source can do. */
  readonly capabilities: Capabilities;
  readonly #native: Memory;
  readonly #engine: Engine;
  readonly #machine: Machine | undefined;
  readonly #look: (() => MachineLook) | undefined;
  readonly #ramSize: bigint | undefined;
  readonly #write: WriteBytes | undefined;
  readonly #loader: NativeLoader;
  readonly #handle: number;
  #closing: Promise<void> | undefined;
  #held = false;

  /** @internal */
  constructor(options: PhysicalMemoryOptions) {
    if (typeof options?.native?.handle !== 'number')
      throw new TypeError(
        `Expected a PhysicalMemory made by openMemory() or openSource() but received ${describe(options)}`,
      );
    this.source = options.source;
    this.description = options.description;
    this.live = options.live;
    this.#native = options.native;
    this.#engine = options.engine ?? NATIVE;
    this.#loader = this.#engine.loader();
    this.#handle = options.native.handle;
    this.#machine = options.machine;
    this.#look = options.look;
    this.#ramSize = options.ramSize;
    const { native } = options;
    this.#write =
      options.write ??
      (native.writable ? (address, bytes) => native.write(address, bytes) : undefined);
    this.addressing = options.addressing ?? 'guest-physical';
    this.sparse = options.ramSize !== undefined;
    const pairs = options.native.ranges;
    const ranges: PhysicalRange[] = [];
    for (let i = 0; i < pairs.length; i += 2)
      ranges.push({ start: pairs[i]!, length: pairs[i + 1]! });
    this.ranges = ranges;
    const last = ranges.at(-1);
    this.end = last === undefined ? 0n : last.start + last.length;
    this.capabilities = {
      registers: options.machine?.registers !== undefined,
      pause: options.machine?.pause !== undefined,
      write: this.#write !== undefined,
      events: options.machine?.cr3Writes !== undefined,
      map: options.native.mapped,
    };
  }

  /**
   * Whether the guest was stopped by {@link pause} and not resumed here since. That somebody else
   * lets it run meanwhile, over the same monitor, is not seen.
   */
  get held(): boolean {
    return this.#held;
  }

  /** Whether {@link look} can tell anything. */
  get canLook(): boolean {
    return this.#look !== undefined;
  }

  /**
   * Asks the hypervisor about the guest as it is now, and waits for the answer: some 50 ms.
   * @returns `undefined` where there is nothing to ask
   */
  look(): MachineLook | undefined {
    this.checkOpen();
    return this.#look?.();
  }

  /** Bytes of RAM in all. */
  get size(): bigint {
    return this.#ramSize ?? this.ranges.reduce((sum, range) => sum + range.length, 0n);
  }

  /** Whether `length` bytes at `address` are RAM. */
  contains(address: bigint, length = 1n): boolean {
    const from = typeof address === 'bigint' ? address : toAddress(address);
    const end = from + (typeof length === 'bigint' ? length : toAddress(length, 'length'));
    return this.ranges.some((range) => from >= range.start && end <= range.start + range.length);
  }

  /**
   * Starts an operation: what the source caches is dropped.
   * @throws {VmiError} `VMI_CLOSED` after `close()` or when the guest has exited
   */
  begin(): void {
    this.checkOpen();
    try {
      this.#native.begin();
    } catch (error) {
      throw fromNative(error);
    }
  }

  /**
   * Reads a copy of `length` bytes.
   * @throws {FaultError} the first address that is not RAM
   */
  read(address: AddressLike, length: number): Buffer {
    const bytes = Buffer.allocUnsafeSlow(toLength(length));
    const from = toAddress(address);
    const transferred = this.readInto(from, bytes);
    if (transferred < length) {
      throw new FaultError({
        address: from + BigInt(transferred),
        space: 'physical',
        cr3: undefined,
        requested: length,
        transferred,
        level: 0,
        absent: this.absent(from + BigInt(transferred)),
      });
    }
    return bytes;
  }

  /** Fills `into`; returns the bytes read before the first address that is not RAM. */
  readInto(address: AddressLike, into: Uint8Array): number {
    this.checkOpen();
    try {
      return this.#native.read(typeof address === 'bigint' ? address : toAddress(address), into);
    } catch (error) {
      throw failed(error, address);
    }
  }

  /**
   * Whether an address is RAM whose page the dump that is read leaves out. Reading it is a fault,
   * never zeroes.
   */
  absent(address: AddressLike): boolean {
    this.checkOpen();
    try {
      return this.#native.absent(toAddress(address));
    } catch (error) {
      throw fromNative(error);
    }
  }

  /** @internal What works on it. */
  get engine(): Engine {
    return this.#engine;
  }

  /**
   * Reads `length` bytes at every address in one crossing.
   * @throws {TypeError} `addresses`
   */
  readMany(addresses: BigUint64Array, length: number): BatchResult {
    this.checkOpen();
    if (!(addresses instanceof BigUint64Array))
      throw new TypeError(
        `Expected addresses as a BigUint64Array but received ${describe(addresses)}`,
      );
    const bytes = Buffer.allocUnsafeSlow(addresses.length * toLength(length));
    try {
      return { bytes, transferred: this.#native.readMany(addresses, length, bytes) };
    } catch (error) {
      throw fromNative(error);
    }
  }

  /**
   * Loads a little-endian 64-bit value.
   * @throws {FaultError} the address is not RAM
   */
  readU64(address: AddressLike): bigint {
    this.checkOpen();
    const { word, handle } = this.#loader;
    try {
      word[0] =
        typeof address === 'bigint' && address >= 0n && address <= MAX_ADDRESS
          ? address
          : toAddress(address);
      handle[0] = this.#handle;
      this.#loader.load();
      return word[0];
    } catch (error) {
      throw failed(error, address);
    }
  }

  /**
   * Writes bytes: all of them, or none where the RAM at one of them is not to be had. What the
   * guest's CPUs do meanwhile is not held up: pause it for more than 8 bytes of one moment.
   * @throws {VmiError} `VMI_READ_ONLY`: it was attached without `write`
   * @throws {FaultError} the first address that is not RAM, or not in the dump
   */
  write(address: AddressLike, bytes: Uint8Array): void {
    this.checkOpen();
    writeAll(this, this.checkWritable(), toAddress(address), checkBytes(bytes));
  }

  /** @internal @throws {VmiError} `VMI_READ_ONLY` */
  checkWritable(): WriteBytes {
    if (this.#write !== undefined) return this.#write;
    throw new VmiError(
      'VMI_READ_ONLY',
      `${this.description} was opened for reading alone: attach(target, { write: true }) lets its memory be written`,
    );
  }

  /**
   * Finds a byte pattern on worker threads; addresses ascend. Where RAM is anonymous memory of
   * another process, what that process never touched is not read, and neither is a page that the
   * host has swapped out: nothing is brought into memory to be searched. A read by address does
   * bring a page in from swap; untouched memory reads as zeroes and stays untouched.
   * @throws {RangeError} `threads` is not 1 to 16
   * @throws {VmiError} `VMI_ABORTED` when the signal fires
   */
  async scan(pattern: Uint8Array, options: ScanOptions = {}): Promise<bigint[]> {
    this.checkOpen();
    return scan(this.#native, pattern, options);
  }

  /**
   * Registers of every vCPU, from the hypervisor.
   * @throws {VmiError} `VMI_UNSUPPORTED` where the source has none
   */
  async registers(options: RegisterOptions = {}): Promise<VcpuRegisters[]> {
    this.checkOpen();
    checkOptions(options, REGISTER_NAMES);
    checkSignal(options.signal);
    checkFlag(options.all, 'all');
    if (this.#machine?.registers === undefined) {
      throw new VmiError('VMI_UNSUPPORTED', `${this.description} gives no vCPU registers`);
    }
    return this.#machine.registers(options);
  }

  /**
   * Stops the guest's vCPUs.
   * @throws {VmiError} `VMI_UNSUPPORTED` where the source cannot; `VMI_CLOSED`: it has ended
   */
  async pause(): Promise<void> {
    this.begin();
    if (this.#machine?.pause === undefined) {
      throw new VmiError('VMI_UNSUPPORTED', `${this.description} cannot be paused`);
    }
    await this.#machine.pause();
    this.#held = true;
  }

  /** Lets the vCPUs run again. */
  async resume(): Promise<void> {
    this.checkOpen();
    this.#held = false;
    await this.#machine?.resume?.();
  }

  /**
   * Writes to CR3 as they happen. The caller closes the stream.
   * @throws {VmiError} `VMI_UNSUPPORTED` where the source has none
   */
  cr3Writes(options: Cr3WriteOptions = {}): RawCr3Writes {
    this.checkOpen();
    checkCr3Writes(options);
    if (this.#machine?.cr3Writes === undefined) {
      throw new VmiError(
        'VMI_UNSUPPORTED',
        `${this.description} reports no writes to CR3: that takes libvmi on Xen, or on a KVM with introspection (KVMi)`,
      );
    }
    return this.#machine.cr3Writes(options);
  }

  /**
   * @internal Opens a debugger's way into the running guest, which stops it.
   * @throws {VmiError} `VMI_UNSUPPORTED` where the source has none; `VMI_BUSY`: another has it
   */
  async debugStub(): Promise<DebugStub> {
    this.checkOpen();
    if (this.#machine?.debugStub !== undefined) return this.#machine.debugStub();
    throw new VmiError(
      'VMI_UNSUPPORTED',
      `${this.description} has no debug stub that can be turned on: that takes QEMU's monitor`,
    );
  }

  /**
   * @internal Starts a thread that looks at what the guest's CPUs run.
   * @throws {VmiError} `VMI_CLOSED`
   */
  startSampler(options: NativeSamplerOptions): Sampler {
    this.checkOpen();
    return this.#engine.sampler(this.#native, options);
  }

  /**
   * @internal What walks the page table at `root`, of 4 or 5 levels, over this memory.
   * @throws {VmiError} `VMI_CLOSED`
   */
  addressSpace(root: bigint, levels: 4 | 5): AddressSpace {
    this.checkOpen();
    try {
      return this.#engine.space(this.#native, root, levels);
    } catch (error) {
      throw fromNative(error);
    }
  }

  /** Releases the mapping and the machine. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    try {
      await this.#machine?.close();
    } finally {
      this.#native.close();
    }
  }

  /** @internal */
  checkOpen(): void {
    if (this.#closing !== undefined)
      throw new VmiError('VMI_CLOSED', `${this.description} is closed`);
  }
}
