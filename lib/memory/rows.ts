/** Bytes up to the next multiple of 8. */
function align8(bytes: number): number {
  return (bytes + 7) & ~7;
}

/**
 * How rows of named columns lie in one buffer: a mask of faults a row (4 bytes), the row's base
 * (8), then column by column, each part starting at a multiple of 8. native/core/gather/plan.h,
 * RowLayout.
 */
export class RowLayout<C extends string> {
  readonly names: readonly C[];
  /** Bytes of each column. */
  readonly sizes: readonly number[];
  /** Number of each column. */
  readonly index: Readonly<Record<C, number>>;
  #capacity = -1;
  #starts: readonly number[] = [];

  constructor(names: readonly C[], sizes: readonly number[]) {
    this.names = names;
    this.sizes = sizes;
    this.index = Object.fromEntries(names.map((name, k) => [name, k])) as Record<C, number>;
  }

  /** Where the bases of rows begin in a buffer for `capacity` rows. */
  basesAt(capacity: number): number {
    return align8(4 * capacity);
  }

  /** Where each column begins in a buffer for `capacity` rows. */
  starts(capacity: number): readonly number[] {
    // Most plans are gathered for as many rows each time.
    if (capacity === this.#capacity) return this.#starts;
    let at = this.basesAt(capacity) + 8 * capacity;
    this.#starts = this.sizes.map((size) => {
      const start = at;
      at = align8(start + size * capacity);
      return start;
    });
    this.#capacity = capacity;
    return this.#starts;
  }

  /** Bytes that a buffer for `capacity` rows takes. */
  length(capacity: number): number {
    return this.sizes.reduce(
      (bytes, size) => bytes + align8(size * capacity),
      this.basesAt(capacity) + 8 * capacity,
    );
  }
}

/**
 * Rows that native filled, seen by the names of their columns: views over one buffer, made when
 * first used. What is read of a pointer that is NULL is zero; what could not be read is zero too,
 * and has its bit in {@link faults}.
 */
export class Rows<C extends string> {
  readonly layout: RowLayout<C>;
  readonly count: number;
  /** Rows that the buffer is laid out for. */
  readonly capacity: number;
  readonly buffer: ArrayBuffer;
  readonly #starts: readonly number[];
  readonly #words: (Uint32Array | undefined)[] = [];
  readonly #longs: (BigUint64Array | undefined)[] = [];
  #faults: Uint32Array | undefined;
  #bases: BigUint64Array | undefined;

  /** @throws {RangeError} the buffer is too short for so many rows */
  constructor(layout: RowLayout<C>, buffer: ArrayBuffer, count: number, capacity = count) {
    this.layout = layout;
    this.buffer = buffer;
    this.count = count;
    this.capacity = capacity;
    this.#starts = layout.starts(capacity);
    const last = this.#starts.length - 1;
    const end = (this.#starts[last] ?? 0) + (layout.sizes[last] ?? 0) * capacity;
    if (end > buffer.byteLength) {
      throw new RangeError(`Expected ${end} bytes of rows but received ${buffer.byteLength}`);
    }
  }

  /**
   * Mask of what could not be read, a row: bit `k` for column `k`.
   */
  get faults(): Uint32Array {
    this.#faults ??= new Uint32Array(this.buffer, 0, this.count);
    return this.#faults;
  }

  /** Whether there is a row of which something could not be read. */
  get faulty(): boolean {
    // A function called for each of thousands of rows takes longer than what it tells is worth.
    const { faults } = this;
    for (let row = 0; row < faults.length; row++) if (faults[row] !== 0) return true;
    return false;
  }

  /** The address that each row was gathered at. */
  get bases(): BigUint64Array {
    this.#bases ??= new BigUint64Array(this.buffer, this.layout.basesAt(this.capacity), this.count);
    return this.#bases;
  }

  /**
   * A column as 32-bit words: one a row for four-byte columns, two for eight-byte ones, low half
   * first (so that no bigint is made to compare pointers).
   */
  words(column: C): Uint32Array {
    const k = this.layout.index[column];
    let view = this.#words[k];
    if (view === undefined) {
      const length = (this.layout.sizes[k]! >> 2) * this.count;
      view = new Uint32Array(this.buffer, this.#starts[k]!, length);
      this.#words[k] = view;
    }
    return view;
  }

  /** An eight-byte column. */
  longs(column: C): BigUint64Array {
    const k = this.layout.index[column];
    let view = this.#longs[k];
    if (view === undefined) {
      view = new BigUint64Array(this.buffer, this.#starts[k]!, this.count);
      this.#longs[k] = view;
    }
    return view;
  }

  /** A column of any size, row after row. */
  view(column: C): DataView {
    const k = this.layout.index[column];
    return new DataView(this.buffer, this.#starts[k]!, this.layout.sizes[k]! * this.count);
  }

  /** The bytes of one row in one column. */
  bytes(column: C, row: number): Uint8Array {
    const k = this.layout.index[column];
    const size = this.layout.sizes[k]!;
    return new Uint8Array(this.buffer, this.#starts[k]! + size * row, size);
  }

  /** Overwrites row `row` with row `from` of other rows of the same layout. */
  copyRow(row: number, other: Rows<C>, from: number): void {
    this.faults[row] = other.faults[from]!;
    this.bases[row] = other.bases[from]!;
    for (const name of this.layout.names) this.bytes(name, row).set(other.bytes(name, from));
  }
}
