import { VmiError } from '../errors.js';
import type { TypeRef } from '../kernel/types/table.js';
import { describe } from '../options.js';
import { EnumValue } from './enum-value.js';
import type { BitField } from './space.js';

/** Most bytes of a number. */
const WIDEST = 16;

/**
 * The bytes that hold a value of a C type, as {@link Reference.write} takes it.
 * @param old the bytes that are there, for a bit-field: its neighbours stay as they are
 * @throws {TypeError} @throws {RangeError} the type does not hold such a value
 * @throws {VmiError} `VMI_TYPE`: nothing of this type can be written
 */
export function encode(
  type: TypeRef,
  bits: BitField | undefined,
  value: unknown,
  old: () => Buffer,
): Uint8Array {
  if (value instanceof Uint8Array && bits === undefined) return wholeBytes(type, value);
  if (bits !== undefined) {
    const number = toNumber(type, value, bits.size);
    const mask = ((1n << BigInt(bits.size)) - 1n) << BigInt(bits.shift);
    const bytes = old();
    const there = fromBytes(bytes);
    return toBytes((there & ~mask) | ((number << BigInt(bits.shift)) & mask), bytes.length);
  }
  switch (type.kind) {
    case 'int':
    case 'enum':
    case 'pointer':
      return toBytes(toNumber(type, value, type.size * 8), type.size);
    case 'float':
      return floatBytes(type, value);
    case 'array':
      if (typeof value === 'string') return textBytes(type, value);
      break;
    default:
  }
  const what = type.kind === 'array' ? 'elements' : 'members';
  throw new VmiError(
    'VMI_TYPE',
    `a ${type.name} is written as a Uint8Array of its ${type.size} bytes, or by its ${what}, but received ${describe(value)}`,
  );
}

/** Bytes that hold a bit-field. */
export function bitBytes({ shift, size }: BitField): number {
  return Math.min(WIDEST, Math.ceil((shift + size) / 8));
}

function wholeBytes(type: TypeRef, bytes: Uint8Array): Uint8Array {
  if (bytes.length === type.size && type.size > 0) return bytes;
  throw new RangeError(
    `Expected the ${type.size} bytes of a ${type.name} but received ${bytes.length}`,
  );
}

/** A number, or what stands for one: a constant's name, an object for a pointer to it. */
function toNumber(type: TypeRef, value: unknown, bits: number): bigint {
  const number = plainNumber(type, value);
  const signed = (type.kind === 'int' || type.kind === 'enum') && type.signed;
  const isBool = type.kind === 'int' && type.encoding === 'bool';
  const least = signed ? -(1n << BigInt(bits - 1)) : 0n;
  const most = isBool ? 1n : (1n << BigInt(signed ? bits - 1 : bits)) - 1n;
  if (number < least || number > most)
    throw new RangeError(
      `Expected a ${type.name} between ${least} and ${most} but received ${number}`,
    );
  return number;
}

function plainNumber(type: TypeRef, value: unknown): bigint {
  if (typeof value === 'bigint') return value;
  if (typeof value === 'number' && Number.isSafeInteger(value)) return BigInt(value);
  if (typeof value === 'boolean' && type.kind === 'int') return value ? 1n : 0n;
  if (type.kind === 'enum') {
    if (value instanceof EnumValue) return BigInt(value.value);
    const known = typeof value === 'string' ? type.values.get(value) : undefined;
    if (known !== undefined) return known;
  }
  if (type.kind === 'pointer') {
    if (value === null) return 0n;
    const { $address, value: held } = (typeof value === 'object' ? value : {}) as {
      readonly $address?: unknown;
      readonly value?: unknown;
    };
    if (typeof $address === 'bigint') return $address;
    if (typeof held === 'bigint') return held;
  }
  const forms = { enum: ' or the name of a constant', pointer: ', an object or null' };
  const also = type.kind === 'enum' || type.kind === 'pointer' ? forms[type.kind] : '';
  throw new TypeError(
    `Expected a ${type.name} as an integer${also} but received ${describe(value)}`,
  );
}

function floatBytes(type: TypeRef, value: unknown): Uint8Array {
  if (typeof value !== 'number' || (type.size !== 4 && type.size !== 8))
    throw new TypeError(`Expected a ${type.name} as a number but received ${describe(value)}`);
  const bytes = Buffer.alloc(type.size);
  if (type.size === 8) bytes.writeDoubleLE(value);
  else bytes.writeFloatLE(value);
  return bytes;
}

/** Text with its NUL, and zeroes after it. */
function textBytes(type: Extract<TypeRef, { kind: 'array' }>, text: string): Uint8Array {
  const { element } = type;
  if (element.kind !== 'int' || element.size !== 1)
    throw new TypeError(`Expected a Uint8Array for a ${type.name} but received ${describe(text)}`);
  const bytes = Buffer.from(text);
  if (bytes.length >= type.size)
    throw new RangeError(
      `Expected at most ${type.size - 1} bytes of text for a ${type.name} but received ${bytes.length}`,
    );
  return Buffer.concat([bytes], type.size);
}

function fromBytes(bytes: Uint8Array): bigint {
  return bytes.reduceRight((number, byte) => (number << 8n) | BigInt(byte), 0n);
}

function toBytes(number: bigint, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => Number((number >> BigInt(8 * i)) & 0xffn));
}
