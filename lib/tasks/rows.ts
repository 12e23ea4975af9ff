/** Bytes of `task_struct.comm`. include/linux/sched.h, TASK_COMM_LEN. */
export const COMM_LENGTH = 16;

/** Columns of a task row. Eight-byte columns hold pointers or nanoseconds, the rest is as the kernel declares it. */
export const COLUMNS = [
  'pid',
  'tgid',
  'flags',
  'state',
  'exitState',
  'startTime',
  'comm',
  'mm',
  'activeMm',
  'parent',
  'signal',
  'cred',
  'threadPid',
  'pgd',
  'textEntry',
  'ppid',
  'uid',
  'level',
] as const;
export type Column = (typeof COLUMNS)[number];

const INDEX = Object.fromEntries(COLUMNS.map((name, k) => [name, k])) as Record<Column, number>;

/** Bit of a column in a row's fault mask. */
export const FAULT = Object.fromEntries(COLUMNS.map((name, k) => [name, 1 << k])) as Record<
  Column,
  number
>;

/** Bytes that `count` rows of columns of these sizes take, as native lays them out. */
export function rowsLength(count: number, sizes: readonly number[]): number {
  return sizes.reduce((bytes, size) => bytes + align8(size * count), align8(4 * count) + 8 * count);
}

/** The gathered columns of some tasks: views over one buffer that native filled, made when first used. */
export class TaskRows {
  readonly count: number;
  /** Rows that the buffer is laid out for. */
  readonly capacity: number;
  readonly buffer: ArrayBuffer;
  readonly #sizes: readonly number[];
  readonly #starts: number[] = [];
  readonly #words: (Uint32Array | undefined)[] = [];
  readonly #longs: (BigUint64Array | undefined)[] = [];
  #faults: Uint32Array | undefined;
  #bases: BigUint64Array | undefined;

  constructor(buffer: ArrayBuffer, count: number, sizes: readonly number[], capacity = count) {
    this.buffer = buffer;
    this.count = count;
    this.capacity = capacity;
    this.#sizes = sizes;
    let at = align8(4 * capacity) + 8 * capacity;
    let end = at;
    for (const size of sizes) {
      this.#starts.push(at);
      end = at + size * capacity;
      at = align8(end);
    }
    if (end > buffer.byteLength) {
      throw new RangeError(`Expected ${end} bytes of rows but received ${buffer.byteLength}`);
    }
  }

  /** Fault mask of each row: bit `k` for the column `COLUMNS[k]`. */
  get faults(): Uint32Array {
    this.#faults ??= new Uint32Array(this.buffer, 0, this.count);
    return this.#faults;
  }

  /** Address of each `task_struct`. */
  get bases(): BigUint64Array {
    this.#bases ??= new BigUint64Array(this.buffer, align8(4 * this.capacity), this.count);
    return this.#bases;
  }

  /**
   * A column as 32-bit words: one a row for four-byte columns, two for eight-byte ones, low half first (so that
   * no bigint is made to compare pointers).
   */
  words(column: Column): Uint32Array {
    const k = INDEX[column];
    let view = this.#words[k];
    if (view === undefined) {
      view = new Uint32Array(this.buffer, this.#starts[k]!, (this.#sizes[k]! >> 2) * this.count);
      this.#words[k] = view;
    }
    return view;
  }

  /** An eight-byte column. */
  longs(column: Column): BigUint64Array {
    const k = INDEX[column];
    let view = this.#longs[k];
    if (view === undefined) {
      view = new BigUint64Array(this.buffer, this.#starts[k]!, this.count);
      this.#longs[k] = view;
    }
    return view;
  }

  /** The 16 bytes of `comm` of one row. */
  comm(row: number): Uint8Array {
    return new Uint8Array(this.buffer, this.#starts[INDEX.comm]! + COMM_LENGTH * row, COMM_LENGTH);
  }

  /** Overwrites row `row` with row `from` of other rows of the same layout. */
  copyRow(row: number, other: TaskRows, from: number): void {
    this.faults[row] = other.faults[from]!;
    this.bases[row] = other.bases[from]!;
    const to = new Uint8Array(this.buffer);
    for (const [k, size] of this.#sizes.entries()) {
      const source = new Uint8Array(other.buffer, other.#starts[k]! + size * from, size);
      to.set(source, this.#starts[k]! + size * row);
    }
  }
}

function align8(bytes: number): number {
  return (bytes + 7) & ~7;
}
