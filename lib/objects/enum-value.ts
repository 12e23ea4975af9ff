import { inspect } from 'node:util';
import { escapeText } from '../escape.js';
import type { TypeRef } from '../kernel/types/table.js';

export type EnumType = Extract<TypeRef, { kind: 'enum' }>;

/**
 * A value of an enumeration. Equal values of one type are the same object, where the value has a
 * name.
 */
export class EnumValue {
  /** The constant's name; `undefined` when the type has none of this value. */
  readonly name: string | undefined;
  readonly value: number | bigint;
  readonly #type: EnumType;

  /** @internal */
  constructor(type: EnumType, name: string | undefined, value: number | bigint) {
    this.#type = type;
    this.name = name;
    this.value = value;
  }

  /** C name of the enumeration. */
  get type(): string {
    return this.#type.name;
  }

  /** The value, so that `<`, `==` and arithmetic work. */
  valueOf(): number | bigint {
    return this.value;
  }

  /** Its name, or its value where it has none. */
  toString(): string {
    return this.name === undefined ? String(this.value) : escapeText(this.name);
  }

  toJSON(): string {
    return this.toString();
  }

  [inspect.custom](): string {
    return this.name === undefined ? `(${this.type}) ${this.value}` : this.toString();
  }
}

/** Names of one enumeration's values, found by value. */
export class EnumNames {
  readonly #type: EnumType;
  readonly #values = new Map<number | bigint, EnumValue>();

  constructor(type: EnumType) {
    this.#type = type;
    for (const [name, wide] of type.values) {
      const value = type.size > 4 ? wide : Number(wide);
      // Of several names of one value the first, as debuggers do.
      if (!this.#values.has(value)) this.#values.set(value, new EnumValue(type, name, value));
    }
  }

  of(value: number | bigint): EnumValue {
    return this.#values.get(value) ?? new EnumValue(this.#type, undefined, value);
  }
}
