import type { PhysicalMemoryOptions } from '../../../lib/memory/memory-options.js';
import { type Machine, PhysicalMemory } from '../../../lib/memory/physical-memory.js';
import type {
  AddressSpace,
  Memory,
  NativeFinder,
  NativeLoader,
  NativeRows,
  NativeScan,
  Plan,
} from '../../../types/addon.js';
import { FakePlan, gather, lists, lookUp } from './fake-gather.js';

/** A run of fake RAM. */
export interface FakeSegment {
  readonly physical: bigint;
  readonly bytes: Buffer;
}

/** Bits of a paging entry. SDM vol. 3A, table 4-15 ff. */
const PRESENT = 1n;
const LARGE = 1n << 7n;
const TABLE = 0x000f_ffff_ffff_f000n;

/** What has a handle, by handle. */
const loadable: { readU64(address: bigint): bigint }[] = [];
const handleOf = (memory: { readU64(address: bigint): bigint }) => loadable.push(memory) - 1;
const fakeLoader: NativeLoader = {
  word: new BigUint64Array(1),
  handle: new Uint32Array(1),
  load() {
    this.word[0] = loadable[this.handle[0]!]!.readU64(this.word[0]!);
  },
};

/**
 * The native memory over buffers, in TypeScript: logs every call, and fails the n-th read when told
 * to.
 */
export class FakeMemory {
  readonly segments: readonly FakeSegment[];
  /** Every read, in order: `read 0x1000+8`. */
  readonly log: string[] = [];
  /** The number of the read that fails, from 1; 0: none. */
  failAt = 0;
  /** The number of the read that comes back empty, as from memory that cannot be read; 0: none. */
  emptyAt = 0;
  /** Is called before each read with its number, so that the guest can change under the reader. */
  onRead: ((read: number) => void) | undefined;
  /** What the failing read throws. */
  failure: () => Error = () =>
    Object.assign(new Error('the guest is gone'), { code: 'VMI_CLOSED' });
  closed = false;
  readonly mapped = true;
  readonly writable = false;

  write(): number {
    throw new Error('nothing is written here');
  }

  constructor(...segments: FakeSegment[]) {
    this.segments = [...segments].sort((a, b) => (a.physical < b.physical ? -1 : 1));
  }

  /** A fake has all of its RAM. */
  absent(_address: bigint): boolean {
    return false;
  }

  get ranges(): BigUint64Array {
    return BigUint64Array.from(
      this.segments.flatMap(({ physical, bytes }) => [physical, BigInt(bytes.length)]),
    );
  }

  begin(): void {}

  read(address: bigint, into: Uint8Array): number {
    this.log.push(`read 0x${address.toString(16)}+${into.length}`);
    this.onRead?.(this.log.length);
    if (this.failAt > 0 && this.log.length >= this.failAt) throw this.failure();
    return this.log.length === this.emptyAt ? 0 : this.peek(address, into);
  }

  /** A read that is neither logged nor failed. */
  peek(address: bigint, into: Uint8Array): number {
    let done = 0;
    while (done < into.length) {
      const at = address + BigInt(done);
      const segment = this.segments.find(
        (one) => at >= one.physical && at < one.physical + BigInt(one.bytes.length),
      );
      if (segment === undefined) break;
      const offset = Number(at - segment.physical);
      const part = segment.bytes.subarray(offset, offset + into.length - done);
      into.set(part, done);
      done += part.length;
    }
    return done;
  }

  readMany(addresses: BigUint64Array, length: number, into: Uint8Array): Uint32Array {
    return Uint32Array.from(addresses, (address, i) =>
      this.read(address, into.subarray(i * length, (i + 1) * length)),
    );
  }

  readU64(address: bigint): bigint {
    const bytes = Buffer.alloc(8);
    if (this.read(address, bytes) < 8) throw fault(address, 'physical', undefined, 0);
    return bytes.readBigUInt64LE();
  }

  readonly handle = handleOf(this);

  async scan(request: NativeScan): Promise<BigUint64Array> {
    const hits: bigint[] = [];
    const pattern = Buffer.from(request.pattern);
    for (const { physical, bytes } of this.segments) {
      for (let at = bytes.indexOf(pattern); at >= 0; at = bytes.indexOf(pattern, at + 1)) {
        if (request.cancel?.[0])
          throw Object.assign(new Error('the scan was cancelled'), { code: 'VMI_ABORTED' });
        const address = physical + BigInt(at);
        if (request.start !== undefined && address < request.start) continue;
        if (request.end !== undefined && address >= request.end) break;
        if (!request.offsets.includes(Number(address % BigInt(request.stride)))) continue;
        hits.push(address);
        if (hits.length === request.max) return BigUint64Array.from(hits);
      }
    }
    return BigUint64Array.from(hits);
  }

  close(): void {
    this.closed = true;
  }
}

function fault(
  address: bigint,
  space: 'physical' | 'virtual',
  cr3: bigint | undefined,
  level: number,
): Error {
  const data = { code: 'VMI_FAULT', address, space, cr3, requested: 8, transferred: 0, level };
  return Object.assign(new Error('fault'), data);
}

/** The native page-table walker over a {@link FakeMemory}, in TypeScript. */
export class FakeAddressSpace {
  readonly memory: FakeMemory;
  readonly root: bigint;
  readonly levels: number;
  windows: BigUint64Array = new BigUint64Array();

  constructor(memory: unknown, root: bigint, levels: number) {
    this.memory = memory as FakeMemory;
    this.root = root;
    this.levels = levels;
  }

  setWindows(windows: BigUint64Array): void {
    this.windows = windows;
  }

  flush(): void {}

  walk(address: bigint): BigUint64Array {
    const steps: bigint[] = [];
    let table = this.root;
    for (let level = this.levels; level >= 1; level--) {
      const at = table + ((address >> BigInt(12 + 9 * (level - 1))) & 511n) * 8n;
      const entry = this.#entry(at);
      if (entry === undefined) break;
      steps.push(BigInt(level), at, entry);
      if ((entry & PRESENT) === 0n || level === 1 || (level <= 3 && (entry & LARGE) !== 0n)) break;
      table = entry & TABLE;
    }
    return BigUint64Array.from(steps);
  }

  translate(address: bigint): bigint {
    const found = this.#windowed(address) ?? this.#translated(address);
    if (typeof found === 'number') throw fault(address, 'virtual', this.root, found);
    return found;
  }

  mappings(start: bigint, end: bigint, max: number): BigUint64Array {
    const found: { virtual: bigint; length: bigint; physical: bigint }[] = [];
    const visit = (table: bigint, level: number, base: bigint) => {
      const size = 1n << BigInt(12 + 9 * (level - 1));
      for (let i = 0n; i < 512n; i++) {
        let virtual = base + i * size;
        if (level === this.levels && i >= 256n)
          virtual |= 0xffff_ffff_ffff_ffffn << BigInt(12 + 9 * level);
        virtual &= 0xffff_ffff_ffff_ffffn;
        if (virtual + size <= start || virtual >= end) continue;
        const entry = this.#entry(table + i * 8n);
        if (entry === undefined || (entry & PRESENT) === 0n) continue;
        if (level > 1 && !(level <= 3 && (entry & LARGE) !== 0n)) {
          visit(entry & TABLE, level - 1, virtual);
          continue;
        }
        const physical = entry & TABLE & ~(size - 1n);
        const last = found.at(-1);
        if (
          last !== undefined &&
          last.virtual + last.length === virtual &&
          last.physical + last.length === physical
        ) {
          last.length += size;
        } else {
          found.push({ virtual, length: size, physical });
        }
        if (found.length > max) {
          throw Object.assign(new Error('too many mappings'), {
            code: 'VMI_CORRUPT',
            address: virtual,
            found: max,
          });
        }
      }
    };
    visit(this.root, this.levels, 0n);
    return BigUint64Array.from(
      found.flatMap(({ virtual, length, physical }) => [virtual, length, physical]),
    );
  }

  read(address: bigint, into: Uint8Array): number {
    let done = 0;
    while (done < into.length) {
      const at = address + BigInt(done);
      const physical = this.#windowed(at) ?? this.#translated(at);
      if (typeof physical === 'number') break;
      // One read for pages that are neighbours both ways, as the real one does.
      let length = Math.min(into.length - done, 4096 - Number(at & 0xfffn));
      while (done + length < into.length) {
        const next = this.#windowed(at + BigInt(length)) ?? this.#translated(at + BigInt(length));
        if (next !== physical + BigInt(length)) break;
        length = Math.min(into.length - done, length + 4096);
      }
      const read = this.memory.read(physical, into.subarray(done, done + length));
      done += read;
      if (read < length) break;
    }
    return done;
  }

  readU64(address: bigint): bigint {
    const bytes = Buffer.alloc(8);
    if (this.read(address, bytes) < 8) throw fault(address, 'virtual', this.root, 1);
    return bytes.readBigUInt64LE();
  }

  readonly handle = handleOf(this);

  readU32(address: bigint): number {
    const bytes = Buffer.alloc(4);
    if (this.read(address, bytes) < 4) throw fault(address, 'virtual', this.root, 1);
    return bytes.readUInt32LE();
  }

  gather(plan: Plan, bases: BigUint64Array, into: Uint8Array): void {
    gather(this, plan as unknown as FakePlan, bases, into);
  }

  lookUp(tree: Int32Array, head: bigint, index: number): bigint {
    return lookUp(this, tree, head, index);
  }

  finder(tree: Int32Array, head: bigint, plan: Plan): NativeFinder {
    const fake = plan as unknown as FakePlan;
    const bytes = new Uint8Array(fake.starts(1).at(-1)!);
    const find = (index: number) => {
      const entry = this.lookUp(tree, head, index);
      if (entry === 0n) return 0;
      if ((entry & 3n) !== 0n) return 2;
      gather(this, fake, BigUint64Array.of(entry), bytes);
      return 1;
    };
    return { row: bytes.buffer, find };
  }

  #entry(at: bigint): bigint | undefined {
    const bytes = Buffer.alloc(8);
    return this.memory.peek(at, bytes) < 8 ? undefined : bytes.readBigUInt64LE();
  }

  #windowed(address: bigint): bigint | undefined {
    for (let i = 0; i + 2 < this.windows.length; i += 3) {
      const offset = address - this.windows[i]!;
      if (offset >= 0n && offset < this.windows[i + 1]!) {
        const physical = this.windows[i + 2]! + offset;
        if (this.memory.peek(physical, new Uint8Array(1)) === 1) return physical;
      }
    }
    return undefined;
  }

  /** Physical address, or the level that was not present. */
  #translated(address: bigint): bigint | number {
    const steps = this.walk(address);
    const level = Number(steps.at(-3) ?? 0n);
    const entry = steps.at(-1) ?? 0n;
    if ((entry & PRESENT) === 0n) return level;
    if (level > 1 && !(level <= 3 && (entry & LARGE) !== 0n)) return 0;
    const size = 1n << BigInt(12 + 9 * (level - 1));
    return (entry & TABLE & ~(size - 1n)) | (address & (size - 1n));
  }
}

/**
 * What `lib/addon.ts` loads, faked: `vi.mock('…/lib/addon.js', () => ({ addon: () => fakeAddon
 * }))`.
 */
export const fakeAddon = {
  AddressSpace: FakeAddressSpace,
  Plan: FakePlan,
  ListWalker: class {
    readonly #walk: (heads: BigUint64Array, max: number) => NativeRows;
    constructor(space: FakeAddressSpace, plan: FakePlan, link: number) {
      this.#walk = (heads, max) => lists(space, plan, heads, link, max);
    }
    walk(heads: BigUint64Array, max: number): NativeRows {
      return this.#walk(heads, max);
    }
  },
  loader: () => fakeLoader,
  openMemory(): never {
    throw new Error('the fake opens nothing');
  },
};

/** A `PhysicalMemory` over fake RAM. */
export function fakePhysicalMemory(
  native: FakeMemory,
  machine?: Machine,
  options: Partial<PhysicalMemoryOptions> = {},
): PhysicalMemory {
  return new PhysicalMemory({
    native: native as unknown as Memory,
    source: 'fake',
    description: 'fake RAM',
    live: false,
    ...options,
    ...(machine === undefined ? {} : { machine }),
  });
}

/**
 * The fake seen as the native address space: a compile-time check that it keeps to the contract.
 */
export type FakeMeetsContract = FakeAddressSpace extends Omit<AddressSpace, never> ? true : never;
