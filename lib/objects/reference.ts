import { inspect } from 'node:util';
import { hex } from '../errors.js';
import type { TypeRef } from '../kernel/types/table.js';
import type { WriteOptions } from '../memory/virtual-memory.js';
import { bitBytes, encode } from './encode.js';
import { type BitField, type ObjectSpace, type Trace, withPath } from './space.js';

interface Where {
  readonly address: bigint;
  readonly type: TypeRef;
  readonly bits: BitField | undefined;
  readonly parent: Trace | undefined;
  readonly key: string | number;
}

/**
 * The place of a value in guest memory: `&object->member`. Nothing is read until it is asked for.
 */
export class Reference {
  readonly #space: ObjectSpace;
  readonly #where: Where;

  /** @internal */
  constructor(space: ObjectSpace, where: Where) {
    this.#space = space;
    this.#where = where;
  }

  /** Virtual address; of a bit-field, of the byte its first bit is in. */
  get address(): bigint {
    return this.#where.address;
  }

  /** C name of the type. */
  get type(): string {
    return this.#where.type.name;
  }

  /** Bytes of the type. */
  get size(): number {
    return this.#where.type.size;
  }

  /** How the program came here. */
  get path(): string {
    const { parent, key } = this.#where;
    return parent === undefined ? String(key) : parent.to(key);
  }

  /** What is there now, in the form of a member. @throws {FaultError} */
  // biome-ignore lint/suspicious/noExplicitAny: of which type, only the guest tells
  get value(): any {
    const { address, type, bits, parent, key } = this.#where;
    this.#space.fresh();
    try {
      return this.#space.reader(type, bits)(this.#space, address, parent, key);
    } catch (error) {
      throw withPath(error, parent, key);
    }
  }

  /** A copy of its bytes. @throws {FaultError} */
  bytes(): Buffer {
    const { address, type, parent, key } = this.#where;
    this.#space.fresh();
    try {
      return this.#space.memory.read(address, type.size);
    } catch (error) {
      throw withPath(error, parent, key);
    }
  }

  /**
   * Writes a value: a number, bigint or boolean; a constant's name for an enumeration; an address,
   * an object or `null` for a pointer; text for a `char[n]`; for anything the bytes of all of it.
   * Of a bit-field its neighbours are read, and written as they were: pause the guest for that.
   * @throws {TypeError} @throws {RangeError} the type does not hold such a value
   * @throws {VmiError} `VMI_READ_ONLY`: attached without `write`, or a page that the guest maps
   *   read-only; `VMI_TYPE`
   * @throws {FaultError} not mapped
   * @example
   * guest.object('task_struct', guest.task(871)).$member('comm').write('renamed');
   */
  // biome-ignore lint/suspicious/noExplicitAny: of which type, only the guest tells
  write(value: any, options: WriteOptions = {}): void {
    const { address, type, bits, parent, key } = this.#where;
    const { memory } = this.#space;
    this.#space.fresh();
    try {
      const old = () => memory.read(address, bitBytes(bits!));
      memory.write(address, encode(type, bits, value, old), options);
    } catch (error) {
      throw withPath(error, parent, key);
    }
  }

  [inspect.custom](): string {
    return `Reference ${this.path} { ${this.type} at ${hex(this.address)} }`;
  }
}
