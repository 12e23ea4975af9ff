import type { AddressSpace, NativeFinder, NativeRows, Plan } from '../../../types/addon.js';
import { PAGE_SIZE, PHYSICAL_MASK } from '../../address.js';
import { CorruptError, FaultError } from '../../errors.js';
import { walkLists } from './lists.js';
import { handleOf } from './loader.js';
import { lookUp } from './radix-tree.js';
import { gather, mostRows, rowsOf } from './rows.js';
import type { ScriptedMemory } from './scripted-memory.js';

/** Bits of a paging-structure entry. SDM vol. 3A, tables 4-15 to 4-20. */
const PRESENT = 1n;
const LARGE = 1n << 7n;
/** Marks what a page table that cannot be read may map. types/addon.d.ts, `mappings`. */
const UNREADABLE = 1n << 63n;
/** Pages whose place is kept at most. */
const MAX_KEPT = 65_536;

/** One page table over a {@link ScriptedMemory}: the addon's `AddressSpace`, in TypeScript. */
export class ScriptedAddressSpace implements AddressSpace {
  readonly handle: number;
  readonly #memory: ScriptedMemory;
  readonly #root: bigint;
  readonly #levels: number;
  #windows: readonly { start: bigint; length: bigint; physical: bigint }[] = [];
  /** Physical address of a page, or the level that was not present, by its number. */
  readonly #pages = new Map<bigint, bigint | number>();

  constructor(memory: ScriptedMemory, root: bigint, levels: number) {
    if ((root & 0xfffn) !== 0n)
      throw new RangeError(`Expected root as a page-aligned address but received ${root}n`);
    this.#memory = memory;
    this.#root = root;
    this.#levels = levels;
    this.handle = handleOf(this);
  }

  setWindows(windows: BigUint64Array): void {
    this.#windows = Array.from({ length: windows.length / 3 }, (_, i) => {
      const [start, length, physical] = windows.subarray(i * 3, i * 3 + 3);
      return { start: start!, length: length!, physical: physical! };
    });
    this.flush();
  }

  flush(): void {
    this.#pages.clear();
  }

  translate(address: bigint): bigint {
    const page = this.#pageOf(address);
    if (typeof page === 'bigint') return page | (address & 0xfffn);
    throw this.#fault(address, 1, 0, page);
  }

  walk(address: bigint): BigUint64Array {
    const steps: bigint[] = [];
    if (!this.#isCanonical(address)) return new BigUint64Array();
    let table = this.#root;
    for (let level = this.#levels; level >= 1; level--) {
      const at = table + ((address >> BigInt(12 + 9 * (level - 1))) & 511n) * 8n;
      const entry = this.#entry(at);
      if (entry === undefined) break;
      steps.push(BigInt(level), at, entry);
      if ((entry & PRESENT) === 0n || isLeaf(level, entry)) break;
      table = entry & PHYSICAL_MASK;
    }
    return BigUint64Array.from(steps);
  }

  mappings(start: bigint, end: bigint, max: number): BigUint64Array {
    const found: { virtual: bigint; length: bigint; physical: bigint }[] = [];
    const visit = (table: bigint, level: number, base: bigint): void => {
      const size = 1n << BigInt(12 + 9 * (level - 1));
      for (let i = 0n; i < 512n; i++) {
        let virtual = base + i * size;
        // The upper half repeats its highest bit. SDM vol. 1, 3.3.7.1.
        if (level === this.#levels && i >= 256n)
          virtual = BigInt.asUintN(64, BigInt.asIntN(12 + 9 * level, virtual));
        if (virtual + size <= start || virtual >= end) continue;
        const entry = this.#entry(table + i * 8n);
        if (entry !== undefined && (entry & PRESENT) === 0n) continue;
        if (entry !== undefined && !isLeaf(level, entry)) {
          visit(entry & PHYSICAL_MASK, level - 1, virtual);
          continue;
        }
        const physical =
          entry === undefined ? UNREADABLE | table : entry & PHYSICAL_MASK & ~(size - 1n);
        const last = found.at(-1);
        const follows =
          entry === undefined
            ? (last?.physical ?? 0n) >= UNREADABLE
            : last !== undefined && last.physical + last.length === physical;
        if (last !== undefined && last.virtual + last.length === virtual && follows)
          last.length += size;
        else found.push({ virtual, length: size, physical });
        if (found.length > max)
          throw new CorruptError(`the page table has more than ${max} runs of pages`, virtual, max);
      }
    };
    visit(this.#root, this.#levels, 0n);
    return clipped(found, start, end);
  }

  read(address: bigint, into: Uint8Array): number {
    let done = 0;
    while (done < into.length) {
      const at = address + BigInt(done);
      if (at >= 1n << 64n) break;
      const page = this.#pageOf(at);
      if (typeof page === 'number') break;
      const offset = Number(at & 0xfffn);
      const part = into.subarray(done, done + Math.min(into.length - done, PAGE_SIZE - offset));
      const read = this.#memory.read(page + BigInt(offset), part);
      done += read;
      if (read < part.length) break;
    }
    return done;
  }

  readU64(address: bigint): bigint {
    return this.#exactly(address, 8).readBigUInt64LE();
  }

  readU32(address: bigint): number {
    return this.#exactly(address, 4).readUInt32LE();
  }

  lookUp(tree: Int32Array, head: bigint, index: number): bigint {
    return lookUp((address, length) => this.#exactly(address, length), tree, head, index);
  }

  finder(tree: Int32Array, head: bigint, plan: Plan): NativeFinder {
    const first = rowsOf(this.#read, plan, BigUint64Array.of(0n), NO_WALK, undefined);
    const row = new Uint8Array((first.buffer!.byteLength + 7) & ~7);
    const tagMask = BigInt(tree[1]!);
    return {
      row: row.buffer as ArrayBuffer,
      find: (index) => {
        this.#memory.begin();
        this.flush();
        const entry = this.lookUp(tree, head, index);
        if (entry === 0n) return 0;
        if ((entry & tagMask) !== 0n) return 2;
        gather(this.#read, plan, BigUint64Array.of(entry), row);
        return 1;
      },
    };
  }

  gather(plan: Plan, bases: BigUint64Array, into: Uint8Array): void {
    gather(this.#read, plan, bases, into);
  }

  lists(
    plan: Plan,
    heads: BigUint64Array,
    link: number,
    max: number,
    into?: Uint8Array,
  ): NativeRows {
    const { nodes, counts, retries } = walkLists(
      {
        link: (address) => {
          const bytes = Buffer.alloc(16);
          if (this.read(address, bytes) < 16) return undefined;
          return { next: bytes.readBigUInt64LE(0), prev: bytes.readBigUInt64LE(8) };
        },
        refresh: () => {
          this.#memory.refresh();
          this.flush();
        },
        isKernel: (address) =>
          address >> 63n === 1n && (address & 7n) === 0n && this.#isCanonical(address),
        fault: (address) => {
          throw this.#fault(address, 16, this.read(address, Buffer.alloc(16)));
        },
      },
      heads,
      Math.min(max, mostRows(plan)),
    );
    const bases = BigUint64Array.from(nodes, (node) => BigInt.asUintN(64, node - BigInt(link)));
    return rowsOf(this.#read, plan, bases, { counts, retries }, into);
  }

  readonly #read = (address: bigint, into: Uint8Array) => this.read(address, into);

  #exactly(address: bigint, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    const transferred = this.read(address, bytes);
    if (transferred === length) return bytes;
    throw this.#fault(address, length, transferred);
  }

  #fault(from: bigint, requested: number, transferred: number, level?: number): FaultError {
    const address = BigInt.asUintN(64, from + BigInt(transferred));
    const page = level ?? this.#pageOf(address);
    return new FaultError({
      address,
      space: 'virtual',
      cr3: this.#root,
      requested,
      transferred,
      level: typeof page === 'number' ? page : 0,
    });
  }

  #isCanonical(address: bigint): boolean {
    return BigInt.asUintN(64, BigInt.asIntN(12 + 9 * this.#levels, address)) === address;
  }

  /** Physical address of the page that holds an address, or the level that was not present. */
  #pageOf(address: bigint): bigint | number {
    const number = address >> 12n;
    const known = this.#pages.get(number);
    if (known !== undefined) return known;
    const page = this.#windowed(number << 12n) ?? this.#translated(number << 12n);
    if (this.#pages.size >= MAX_KEPT) this.#pages.clear();
    this.#pages.set(number, page);
    return page;
  }

  #windowed(address: bigint): bigint | undefined {
    for (const { start, length, physical } of this.#windows) {
      const offset = address - start;
      if (offset < 0n || offset >= length) continue;
      const at = physical + offset;
      if (this.#memory.read(at, new Uint8Array(1)) === 1) return at;
    }
    return undefined;
  }

  #translated(address: bigint): bigint | number {
    if (!this.#isCanonical(address)) return this.#levels;
    const steps = this.walk(address);
    const level = Number(steps.at(-3) ?? 0n);
    const entry = steps.at(-1) ?? 0n;
    if (level === 0) return 0;
    if ((entry & PRESENT) === 0n) return level;
    // The table it points to is not in RAM.
    if (!isLeaf(level, entry)) return 0;
    const size = 1n << BigInt(12 + 9 * (level - 1));
    return (entry & PHYSICAL_MASK & ~(size - 1n)) | (address & (size - 1n));
  }

  #entry(at: bigint): bigint | undefined {
    const bytes = Buffer.alloc(8);
    return this.#memory.read(at, bytes) < 8 ? undefined : bytes.readBigUInt64LE();
  }
}

const NO_WALK = { counts: new Uint32Array(0), retries: 0 };

/** Whether an entry maps a page: always at level 1, a large one at levels 2 and 3. */
function isLeaf(level: number, entry: bigint): boolean {
  return level === 1 || (level <= 3 && (entry & LARGE) !== 0n);
}

/** Runs as triples, cut to [start, end). */
function clipped(
  runs: readonly { virtual: bigint; length: bigint; physical: bigint }[],
  start: bigint,
  end: bigint,
): BigUint64Array {
  return BigUint64Array.from(
    runs.flatMap(({ virtual, length, physical }) => {
      const from = virtual < start ? start : virtual;
      const to = virtual + length > end ? end : virtual + length;
      return [from, to - from, physical >= UNREADABLE ? physical : physical + (from - virtual)];
    }),
  );
}
