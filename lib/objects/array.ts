import { inspect } from 'node:util';
import { type AddressLike, wrap } from '../address.js';
import { hex, VmiError } from '../errors.js';
import type { TypeRef } from '../kernel/types/table.js';
import { formatArray } from './format.js';
import { type ObjectSpace, type Trace, withPath } from './space.js';

export type ArrayType = Extract<TypeRef, { kind: 'array' }>;

/** Most elements that a loop over an array goes through. */
const MAX_ELEMENTS = 1 << 24;
const INDEX = /^(?:0|[1-9]\d{0,15})$/;

/**
 * An array in guest memory: `array[3]`, or a loop over all. An element is read when it is asked
 * for. A flexible array (`struct upid numbers[]`) has no length of its own: `array[3]` reads
 * whatever is there, and `take(n)` says how many there are. So is an array of one element treated,
 * which is how C wrote flexible ones before.
 */
// biome-ignore lint/suspicious/noExplicitAny: of which type, only the guest tells
export class ArrayObject<Element = any> implements Iterable<Element> {
  readonly #space: ObjectSpace;
  readonly #type: ArrayType;
  readonly #address: bigint;
  readonly #trace: Trace;
  readonly #count: number | undefined;

  readonly [index: number]: Element;

  /** @internal */
  constructor(
    space: ObjectSpace,
    type: ArrayType,
    address: bigint,
    trace: Trace,
    count = type.count === 0 ? undefined : type.count,
  ) {
    this.#space = space;
    this.#type = type;
    this.#address = address;
    this.#trace = trace;
    this.#count = count;
  }

  /** Virtual address of the first element. */
  get address(): bigint {
    return this.#address;
  }

  /** C name of the type: `struct upid[1]`. */
  get type(): string {
    return this.#type.name;
  }

  /** Elements; `undefined` for a flexible array. */
  get length(): number | undefined {
    return this.#count;
  }

  /**
   * An element, also beyond the declared end, as in C.
   * @throws {FaultError}
   */
  at(index: AddressLike): Element {
    const { element } = this.#type;
    const address = wrap(this.#address + BigInt(index) * BigInt(element.size));
    this.#space.fresh();
    try {
      const read = this.#space.reader(element);
      return read(this.#space, address, this.#trace, Number(index)) as Element;
    } catch (error) {
      throw withPath(error, this.#trace, Number(index));
    }
  }

  /**
   * The first `count` elements, as an array of that length: what a flexible array is given by its
   * owner.
   */
  take(count: number): ArrayObject<Element> {
    if (!Number.isInteger(count) || count < 0 || count > MAX_ELEMENTS) {
      throw new RangeError(
        `Expected count between 0 and ${MAX_ELEMENTS} but received ${String(count)}`,
      );
    }
    return new ArrayObject(this.#space, this.#type, this.#address, this.#trace, count);
  }

  /** A copy of its bytes. @throws {FaultError} @throws {VmiError} `VMI_TYPE`: a flexible array */
  bytes(): Buffer {
    this.#space.fresh();
    try {
      return this.#space.memory.read(this.#address, this.#known() * this.#type.element.size);
    } catch (error) {
      throw withPath(error, undefined, this.#trace.toString());
    }
  }

  /** @throws {VmiError} `VMI_TYPE`: a flexible array */
  *[Symbol.iterator](): Iterator<Element> {
    const count = this.#known();
    for (let i = 0; i < count; i++) yield this.at(i);
  }

  toJSON(): unknown {
    return { $address: hex(this.#address), type: this.type };
  }

  [inspect.custom](): string {
    return formatArray(this.#space, this.#type, this.#address, this.#count);
  }

  #known(): number {
    const count = this.#count;
    if (count === undefined || count > MAX_ELEMENTS) {
      throw new VmiError(
        'VMI_TYPE',
        `${this.#trace} is a ${this.type}: say with take() how many elements it has`,
      );
    }
    return count;
  }
}

/** Indexes beyond what has accessors; asked only for what no object of the chain has. */
Object.setPrototypeOf(
  ArrayObject.prototype,
  new Proxy(Object.prototype, {
    get(target, key, receiver: unknown) {
      if (typeof key !== 'string' || !INDEX.test(key) || !(receiver instanceof ArrayObject)) {
        return Reflect.get(target, key, receiver);
      }
      const index = Number(key);
      const { length } = receiver;
      const within = length === undefined || length === 1 || index < length;
      return within ? receiver.at(index) : undefined;
    },
  }),
);
