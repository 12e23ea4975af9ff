import type {
  AddressSpace,
  ListWalker,
  NativeFinder,
  NativeLoader,
  Plan,
} from '../../types/addon.js';
import { type AddressLike, MAX_ADDRESS, PHYSICAL_MASK, toAddress, toLength } from '../address.js';
import { FaultError, fromNative, LEVEL_NAMES } from '../errors.js';
import {
  checkFlag,
  checkList,
  checkObject,
  checkOptions,
  checkWhole,
  describe,
} from '../options.js';
import { failed } from './failed.js';
import type { PhysicalMemory } from './physical-memory.js';
import { checkBytes, writeVirtual } from './write.js';

/** A run of virtual addresses mapped to a run of physical ones. */
export interface Mapping {
  readonly virtual: bigint;
  readonly length: bigint;
  readonly physical: bigint;
}

/** A run of virtual addresses of which nobody can say what they are mapped to. */
export interface UnreadableMapping {
  readonly virtual: bigint;
  readonly length: bigint;
  /** Physical address of the page table that cannot be read; the first of them. */
  readonly table: bigint;
}

/** What {@link VirtualMemory.mappings} gives: runs that are mapped, ascending. */
export class MappingList extends Array<Mapping> {
  /**
   * What may be mapped as well: the page tables for these addresses are not in memory that can be
   * read, as in a dump that lacks their pages. Empty in a guest whose tables are whole.
   */
  unreadable: readonly UnreadableMapping[] = [];

  /** Derived arrays (`filter`, `map`) are plain ones. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }
}

/** Set in a physical address where a table cannot be read. types/addon.d.ts, `mappings`. */
const UNREADABLE = 1n << 63n;

/** One level of a page walk. SDM vol. 3A, 4.5. */
export interface WalkStep {
  /** `pml5`, `pml4`, `pdpt`, `pd` or `pt`. */
  readonly level: string;
  /** Physical address of the entry. */
  readonly entryAddress: bigint;
  readonly entry: bigint;
  readonly present: boolean;
  /** Whether the entry maps a page (4 KiB, 2 MiB or 1 GiB) instead of pointing to a table. */
  readonly leaf: boolean;
  readonly writable: boolean;
  readonly user: boolean;
  readonly noExecute: boolean;
}

/** Every level of a walk, and where it ended. */
export interface WalkResult {
  readonly address: bigint;
  readonly root: bigint;
  readonly steps: readonly WalkStep[];
  /** `undefined` when the last step is not present, and when the walk met what cannot be read. */
  readonly physical: bigint | undefined;
  /** Physical address of the entry that could not be read, which ended the walk. */
  readonly unreadable?: bigint | undefined;
  /** Bytes of the page: 4 KiB, 2 MiB or 1 GiB. */
  readonly pageSize: bigint | undefined;
}

/** How virtual memory is written. */
export interface WriteOptions {
  /** Whether pages that the guest maps read-only are written, too; default false. */
  readonly readOnly?: boolean | undefined;
}

const LEAF_SIZE = [0n, 1n << 12n, 1n << 21n, 1n << 30n] as const;
const PRESENT = 1n;
const WRITABLE = 1n << 1n;
const USER = 1n << 2n;
const PAGE_SIZE_BIT = 1n << 7n;
const NO_EXECUTE = 1n << 63n;

/**
 * Guest-virtual memory through one page table.
 * @example
 * new VirtualMemory(guest.memory, guest.pidToCr3(1), guest.kernel.levels).readU64(0x400000n)
 */
export class VirtualMemory {
  /** The physical memory that it is in. */
  readonly physical: PhysicalMemory;
  /** Physical address of the top-level table. */
  readonly root: bigint;
  /** Levels of the page table. */
  readonly levels: 4 | 5;
  readonly #native: AddressSpace;
  readonly #loader: NativeLoader;
  #handle: number | undefined;

  /**
   * @param root physical address of the top-level table, page-aligned: what CR3 holds without its
   *   flags
   * @param levels of the page table; `guest.kernel.levels`
   * @throws {VmiError} `VMI_CLOSED`
   * @throws {TypeError} @throws {RangeError} an argument
   */
  constructor(physical: PhysicalMemory, root: bigint, levels: 4 | 5) {
    checkSpace(physical, root, levels);
    this.physical = physical;
    this.root = root;
    this.levels = levels;
    this.#native = physical.addressSpace(root, levels);
    this.#loader = physical.engine.loader();
  }

  /** Names linear mappings that need no page walk: the direct map and the kernel image. */
  setWindows(windows: readonly Mapping[]): void {
    if (!Array.isArray(windows))
      throw new TypeError(`Expected windows as an array but received ${describe(windows)}`);
    checkList(windows, 'windows', checkMapping);
    this.#native.setWindows(
      BigUint64Array.from(
        windows.flatMap((window) => [window.virtual, window.length, window.physical]),
      ),
    );
  }

  /**
   * Starts an operation: the TLB is emptied, and so is what the source caches.
   * @throws {VmiError} `VMI_CLOSED` when the guest has exited
   */
  begin(): void {
    this.physical.begin();
    this.#native.flush();
  }

  /**
   * Physical address of a virtual one.
   * @throws {FaultError} with the level that was not present
   */
  translate(address: AddressLike): bigint {
    try {
      return this.#native.translate(typeof address === 'bigint' ? address : toAddress(address));
    } catch (error) {
      throw failed(error, address);
    }
  }

  /**
   * Walks the page table for `address` and keeps every level. Never throws for an address that is
   * not mapped.
   */
  walk(address: AddressLike): WalkResult {
    const virtual = toAddress(address);
    let raw: BigUint64Array;
    try {
      raw = this.#native.walk(virtual);
    } catch (error) {
      throw fromNative(error);
    }
    const steps: WalkStep[] = [];
    let physical: bigint | undefined;
    let pageSize: bigint | undefined;
    for (let i = 0; i + 2 < raw.length; i += 3) {
      const level = Number(raw[i]);
      const entry = raw[i + 2]!;
      const present = (entry & PRESENT) !== 0n;
      const leaf = present && (level === 1 || ((entry & PAGE_SIZE_BIT) !== 0n && level <= 3));
      steps.push({
        level: LEVEL_NAMES[level] ?? String(level),
        entryAddress: raw[i + 1]!,
        entry,
        present,
        leaf,
        writable: (entry & WRITABLE) !== 0n,
        user: (entry & USER) !== 0n,
        noExecute: (entry & NO_EXECUTE) !== 0n,
      });
      if (leaf) {
        pageSize = LEAF_SIZE[level]!;
        physical = (entry & PHYSICAL_MASK & ~(pageSize - 1n)) | (virtual & (pageSize - 1n));
      }
    }
    const unreadable = physical === undefined ? this.#unreadable(virtual, steps) : undefined;
    return { address: virtual, root: this.root, steps, physical, unreadable, pageSize };
  }

  /** Where the walk would have gone on, had the entry been readable. */
  #unreadable(virtual: bigint, steps: readonly WalkStep[]): bigint | undefined {
    const last = steps.at(-1);
    if (last !== undefined && !last.present) return undefined;
    const table = last === undefined ? this.root : last.entry & PHYSICAL_MASK;
    const level = this.levels - steps.length;
    return table + ((virtual >> BigInt(12 + 9 * (level - 1))) & 511n) * 8n;
  }

  /**
   * Present mappings in [start, end), neighbours merged; `unreadable` has the addresses whose page
   * tables cannot be read.
   * @param max runs of both kinds at most
   * @throws {CorruptError} there are more, or the tables have no end
   */
  mappings(start: bigint, end: bigint, max = 65_536): MappingList {
    for (const [name, value] of Object.entries({ start, end })) {
      if (typeof value !== 'bigint')
        throw new TypeError(`Expected ${name} as a bigint but received ${describe(value)}`);
    }
    checkWhole(max, 'max', 1, 0x7fff_ffff);
    let raw: BigUint64Array;
    try {
      raw = this.#native.mappings(start, end, max);
    } catch (error) {
      throw fromNative(error);
    }
    const mappings = new MappingList();
    const unreadable: UnreadableMapping[] = [];
    for (let i = 0; i + 2 < raw.length; i += 3) {
      const [virtual, length, physical] = [raw[i]!, raw[i + 1]!, raw[i + 2]!];
      if (physical < UNREADABLE) mappings.push({ virtual, length, physical });
      else unreadable.push({ virtual, length, table: physical & ~UNREADABLE });
    }
    mappings.unreadable = unreadable;
    return mappings;
  }

  /**
   * Reads a copy of `length` bytes.
   * @throws {FaultError} the first address that is not mapped
   */
  read(address: AddressLike, length: number): Buffer {
    const from = toAddress(address);
    const bytes = Buffer.allocUnsafeSlow(toLength(length));
    const transferred = this.readInto(from, bytes);
    if (transferred < length) throw this.#faultAt(from, length, transferred);
    return bytes;
  }

  /** Fills `into`; returns the bytes read before the first address that is not mapped. */
  readInto(address: AddressLike, into: Uint8Array): number {
    try {
      return this.#native.read(typeof address === 'bigint' ? address : toAddress(address), into);
    } catch (error) {
      throw failed(error, address);
    }
  }

  /**
   * Writes bytes: all of them, or none where one of their pages is not mapped, or mapped read-only.
   * Nothing is paged in. A page that the guest maps read-only may be shared: code, a page that is
   * copied when its process writes to it, the one page of zeroes.
   * @param options `readOnly: true` writes such pages all the same, for all who share them
   * @throws {VmiError} `VMI_READ_ONLY`: attached without `write`, or a page is mapped read-only
   * @throws {FaultError} the first address that is not mapped
   */
  write(address: AddressLike, bytes: Uint8Array, options: WriteOptions = {}): void {
    checkOptions(options, { readOnly: true });
    checkFlag(options.readOnly, 'readOnly');
    writeVirtual(this, toAddress(address), checkBytes(bytes), options.readOnly === true);
  }

  /** Loads a little-endian 64-bit value. @throws {FaultError} not mapped */
  readU64(address: AddressLike): bigint {
    const { word, handle } = this.#loader;
    try {
      word[0] =
        typeof address === 'bigint' && address >= 0n && address <= MAX_ADDRESS
          ? address
          : toAddress(address);
      // Most address spaces are never asked for one.
      this.#handle ??= this.#native.handle;
      handle[0] = this.#handle;
      this.#loader.load();
      return word[0];
    } catch (error) {
      throw failed(error, address);
    }
  }

  /** Loads a little-endian 32-bit value. @throws {FaultError} not mapped */
  readU32(address: AddressLike): number {
    try {
      return this.#native.readU32(typeof address === 'bigint' ? address : toAddress(address));
    } catch (error) {
      throw failed(error, address);
    }
  }

  /**
   * Reads a NUL-terminated string of at most `max` bytes; without a NUL in them, `max` bytes come
   * back.
   * @throws {FaultError} not mapped before a NUL was found
   */
  readString(address: AddressLike, max = 4096): string {
    const from = toAddress(address);
    const bytes = Buffer.allocUnsafeSlow(toLength(max, 1 << 20, 'max'));
    const transferred = this.readInto(from, bytes);
    const end = bytes.subarray(0, transferred).indexOf(0);
    if (end < 0 && transferred < max) throw this.#faultAt(from, max, transferred);
    return bytes.toString('utf8', 0, end < 0 ? max : end);
  }

  /** @internal */
  lookUp(tree: Int32Array, head: bigint, index: number): bigint {
    try {
      return this.#native.lookUp(tree, head, index);
    } catch (error) {
      throw fromNative(error);
    }
  }

  /** @internal */
  finder(tree: Int32Array, head: bigint, plan: Plan): NativeFinder {
    const { physical } = this;
    const { row, find } = this.#native.finder(tree, head, plan);
    return {
      row,
      find: (index) => {
        physical.checkOpen();
        try {
          return find(index);
        } catch (error) {
          throw fromNative(error);
        }
      },
    };
  }

  /** @internal */
  gather(plan: Plan, bases: BigUint64Array, into: Uint8Array): void {
    try {
      this.#native.gather(plan, bases, into);
    } catch (error) {
      throw fromNative(error);
    }
  }

  /** @internal */
  listWalker(plan: Plan, link: number): ListWalker {
    try {
      return this.physical.engine.walker(this.#native, plan, link);
    } catch (error) {
      throw fromNative(error);
    }
  }

  #faultAt(from: bigint, requested: number, transferred: number): FaultError {
    const address = BigInt.asUintN(64, from + BigInt(transferred));
    const { steps, physical } = this.walk(address);
    const last = steps.at(-1);
    // What could not be read: the page itself, the table that the last entry names, or the root.
    const missing = physical ?? (last === undefined ? this.root : last.entry & PHYSICAL_MASK);
    const level = last === undefined || last.present ? 0 : LEVEL_NAMES.indexOf(last.level as 'pt');
    return new FaultError({
      address,
      space: 'virtual',
      cr3: this.root,
      requested,
      transferred,
      level,
      absent: level === 0 && this.physical.absent(missing),
    });
  }
}

/** @throws {TypeError} @throws {RangeError} */
function checkSpace(physical: PhysicalMemory, root: bigint, levels: number): void {
  if (typeof physical?.addressSpace !== 'function')
    throw new TypeError(`Expected physical as a PhysicalMemory but received ${describe(physical)}`);
  if (typeof root !== 'bigint')
    throw new TypeError(`Expected root as a bigint but received ${describe(root)}`);
  checkWhole(levels, 'levels', 4, 5);
}

/** @throws {TypeError} */
function checkMapping(mapping: unknown, name: string): void {
  const { virtual, length, physical } = checkObject(mapping, name) as Partial<Mapping>;
  for (const [member, value] of Object.entries({ virtual, length, physical })) {
    if (typeof value !== 'bigint')
      throw new TypeError(`Expected ${name}.${member} as a bigint but received ${describe(value)}`);
  }
}
