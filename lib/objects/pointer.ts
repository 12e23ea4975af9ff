import { inspect } from 'node:util';
import { wrap } from '../address.js';
import { hex, VmiError } from '../errors.js';
import { escapeBytes } from '../escape.js';
import type { TypeRef } from '../kernel/types/table.js';
import { toCount } from '../options.js';
import { readCString } from './c-string.js';
import { symbolAt } from './place-text.js';
import { type ObjectSpace, Trace, withPath } from './space.js';

export type PointerType = Extract<TypeRef, { kind: 'pointer' }>;

/**
 * A pointer to anything but a structure: to a function, a number, a pointer, to no type at all.
 * Never NULL.
 */
// biome-ignore lint/suspicious/noExplicitAny: of which type, only the guest tells
export class Pointer<Target = any> {
  readonly #space: ObjectSpace;
  readonly #type: PointerType;
  readonly #trace: Trace;
  /** The address it holds. */
  readonly value: bigint;

  /** @internal */
  constructor(space: ObjectSpace, type: PointerType, value: bigint, trace: Trace) {
    this.#space = space;
    this.#type = type;
    this.#trace = trace;
    this.value = value;
  }

  /** C name of its type: `char *`. */
  get type(): string {
    return this.#type.name;
  }

  /**
   * The kernel symbol it points to, as `name` or `name+0x10`; `undefined` outside the kernel's
   * image.
   */
  get symbol(): string | undefined {
    return symbolAt(this.#space.symbols, this.value);
  }

  /**
   * What it points to, or the element `index` of what it points to.
   * @throws {FaultError}
   * @throws {VmiError} `VMI_TYPE`: it points to no type that has a size
   */
  at(index: number | bigint = 0): Target {
    const { target } = this.#type;
    if (target.size === 0 && target.kind !== 'struct' && target.kind !== 'union') {
      throw new VmiError('VMI_TYPE', `what a ${this.type} points to has no size: cast it first`);
    }
    const address = wrap(this.value + toCount(index, 'index') * BigInt(target.size));
    this.#space.fresh();
    try {
      const read = this.#space.reader(target);
      return read(this.#space, address, this.#trace, Number(index)) as Target;
    } catch (error) {
      throw withPath(error, this.#trace, Number(index));
    }
  }

  /** The pointer `count` elements further. */
  add(count: number | bigint): Pointer<Target> {
    const size = BigInt(Math.max(1, this.#type.target.size));
    const value = wrap(this.value + toCount(count) * size);
    return new Pointer(this.#space, this.#type, value, this.#trace);
  }

  /**
   * The same address as a pointer to another type: `pointer.cast('struct page')` is the structure
   * there.
   * @throws {VmiError} `VMI_TYPE`
   */
  // biome-ignore lint/suspicious/noExplicitAny: as any value
  cast(type: string): any {
    this.#space.fresh();
    return this.#space.reader(this.#space.type(type))(
      this.#space,
      this.value,
      this.#trace,
      `(${type})`,
    );
  }

  /**
   * What a CPU has of the per-CPU variable it points to: `per_cpu_ptr`.
   * @throws {RangeError} no such CPU
   */
  perCpu(cpu: number): Pointer<Target> {
    const value = wrap(this.value + this.#space.perCpuOffset(cpu));
    return new Pointer(this.#space, this.#type, value, new Trace(this.#trace, `cpu${cpu}`));
  }

  /** A copy of `length` bytes there. @throws {FaultError} */
  bytes(length: number): Buffer {
    this.#space.fresh();
    try {
      return this.#space.memory.read(this.value, length);
    } catch (error) {
      throw withPath(error, undefined, this.#trace.toString());
    }
  }

  /**
   * The NUL-terminated string there, what is not printable escaped; without a NUL in `max` bytes,
   * so many.
   * @throws {FaultError} not mapped before its end
   */
  string(max = 4096): string {
    this.#space.fresh();
    try {
      return escapeBytes(readCString(this.#space, this.value, max));
    } catch (error) {
      throw withPath(error, undefined, this.#trace.toString());
    }
  }

  valueOf(): bigint {
    return this.value;
  }

  toString(): string {
    return hex(this.value);
  }

  toJSON(): string {
    return hex(this.value);
  }

  [inspect.custom](): string {
    const symbol = this.symbol;
    return `(${this.type}) ${hex(this.value)}${symbol === undefined ? '' : ` <${symbol}>`}`;
  }
}
