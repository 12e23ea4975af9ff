import type { NativeFinder, Plan } from '../../types/addon.js';
import { VmiError } from '../errors.js';
import { makePlan } from './native-plan.js';
import { RowLayout, Rows } from './rows.js';
import type { VirtualMemory } from './virtual-memory.js';

/** Farthest member that native calls take; real ones are within some KiB. */
const MAX_OFFSET = 1 << 20;

/** Where members of structures are. What knows the guest's types gives it. */
export interface Offsets {
  /** @throws {VmiError} `VMI_TYPE`: no such structure or member */
  offset(struct: string, member: string): number;
}

/**
 * What a column holds: some bytes at an offset from the row's base, or from a pointer in an earlier
 * column.
 */
export interface ColumnSpec<C extends string> {
  /** The column with the pointer; the row's base when left out. */
  readonly from?: C;
  readonly offset: (offsets: Offsets) => number;
  /** Bytes. */
  readonly size: number;
}

/** The columns of a plan by name, in the order in which native lays them out. */
export type ColumnSpecs<C extends string> = Readonly<Record<C, ColumnSpec<NoInfer<C>>>>;

/** A member of the structure at the row's base. `size`: bytes, a pointer's by default. */
export function at(struct: string, member: string, size = 8): ColumnSpec<never> {
  return { offset: (offsets) => memberOffset(offsets, struct, member), size };
}

/** A member of the structure that an earlier column points to. */
export function from<C extends string>(
  column: C,
  struct: string,
  member: string,
  size = 8,
): ColumnSpec<C> {
  return { from: column, offset: (offsets) => memberOffset(offsets, struct, member), size };
}

/** Bytes at a fixed offset from the row's base. */
export function bytesAt(offset: number, size = 8): ColumnSpec<never> {
  return { offset: () => offset, size };
}

/** Bytes at a fixed offset from where an earlier column points. */
export function bytesFrom<C extends string>(column: C, offset: number, size = 8): ColumnSpec<C> {
  return { from: column, offset: () => offset, size };
}

/**
 * A member of the structure whose member `link` an earlier column points to: the kernel's
 * `container_of`.
 */
export function around<C extends string>(
  column: C,
  struct: string,
  link: string,
  member: string,
  size = 8,
): ColumnSpec<C> {
  const offset = (offsets: Offsets) =>
    memberOffset(offsets, struct, member) - memberOffset(offsets, struct, link);
  return { from: column, offset, size };
}

/**
 * @throws {VmiError} `VMI_TYPE`: there is no such member, or it is farther than any structure is
 * long
 */
export function memberOffset(offsets: Offsets, struct: string, member: string): number {
  const offset = offsets.offset(struct, member);
  if (offset <= MAX_OFFSET) return offset;
  throw new VmiError(
    'VMI_TYPE',
    `the kernel's types have ${struct}.${member} at ${offset}: they are damaged; give a profile instead`,
  );
}

/** What nearly every row holds in a column: `min <= (value & mask) <= max`, unsigned. */
export interface Expectation<C extends string> {
  readonly column: C;
  readonly mask: bigint;
  readonly min: bigint;
  readonly max: bigint;
}

/** What lists led to. */
export interface FoundRows<C extends string> {
  readonly rows: Rows<C>;
  /** Rows that came from each head. */
  readonly counts: Uint32Array;
  /** Times a list changed under the walk and was followed again. */
  readonly retries: number;
}

/** Rows that are sooner looked at, all of them, than handed over. */
const FEW = 16;
const EVERY_ROW = Uint32Array.from({ length: FEW }, (_, row) => row);

/**
 * Which columns make a row, compiled for native code: it follows pointers in batches, and knows no
 * structure by name. Columns are in the order of `specs`; one that another hangs on comes before
 * it.
 */
export class NamedPlan<C extends string> {
  readonly layout: RowLayout<C>;
  /** For the calls of an address space. */
  readonly native: Plan;
  #unexpected = new Uint32Array(0);

  /**
   * @param specs `{ mm: at('task_struct', 'mm'), pgd: from('mm', 'mm_struct', 'pgd') }`
   * @throws {VmiError} `VMI_TYPE`: the types lack a member, or have it where none can be
   */
  constructor(offsets: Offsets, specs: ColumnSpecs<C>, expected: readonly Expectation<C>[] = []) {
    const names = Object.keys(specs) as C[];
    this.layout = new RowLayout(
      names,
      names.map((name) => specs[name].size),
    );
    const { index } = this.layout;
    const triples = names.flatMap((name) => {
      const { from: column, offset, size } = specs[name];
      return [column === undefined ? -1 : index[column], offset(offsets), size];
    });
    const quadruples = expected.flatMap(({ column, mask, min, max }) => [
      BigInt(index[column]),
      mask,
      min,
      max,
    ]);
    this.native = makePlan(Int32Array.from(triples), BigUint64Array.from(quadruples));
  }

  /**
   * A buffer for so many rows. Its contents mean nothing: to clear it would cost more than to fill
   * it.
   */
  buffer(count: number): ArrayBuffer {
    return Buffer.allocUnsafeSlow(this.layout.length(count)).buffer as ArrayBuffer;
  }

  /** Gathers a row at each base. */
  gather(memory: VirtualMemory, bases: BigUint64Array): Rows<C> {
    const bytes = new Uint8Array(this.layout.length(bases.length));
    memory.gather(this.native, bases, bytes);
    return new Rows(this.layout, bytes.buffer, bases.length);
  }

  /**
   * Rows that have a fault or do not hold what is expected, ascending. Below {@link FEW}, all:
   * checking each costs less than a native call.
   */
  unexpected(rows: Rows<C>): Uint32Array {
    const { count, capacity, buffer } = rows;
    if (count < FEW) return EVERY_ROW.slice(0, count);
    if (this.#unexpected.length < count) this.#unexpected = new Uint32Array(count + (count >> 2));
    const bytes = new Uint8Array(buffer);
    const found = this.native.unexpected(bytes, capacity, count, this.#unexpected);
    return this.#unexpected.slice(0, found);
  }

  /** A look-up in a radix tree that gathers this plan at what it finds, in one native call. */
  finder(memory: VirtualMemory, tree: Int32Array, head: bigint): Finder<C> {
    return new Finder(this.layout, memory.finder(tree, head, this.native));
  }
}

/** What {@link Finder.find} returns where it has filled the row. */
const FOUND_ROW = 1;

/** Looks up one index at a time; the row is overwritten by the next look. */
export class Finder<C extends string> {
  readonly row: Rows<C>;
  readonly #find: (index: number) => number;

  /** @internal */
  constructor(layout: RowLayout<C>, native: NativeFinder) {
    this.row = new Rows(layout, native.row, 1);
    this.#find = native.find;
  }

  /**
   * Looks an index up and fills {@link row}: an operation of its own.
   * @returns whether the row was filled: there is such an entry, and it is a pointer
   */
  find(index: number): boolean {
    return this.#find(index) === FOUND_ROW;
  }
}
