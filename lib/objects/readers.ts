import { escapeBytes } from '../escape.js';
import type { TypeRef } from '../kernel/types/table.js';
import { ArrayObject } from './array.js';
import { readCString } from './c-string.js';
import { EnumNames } from './enum-value.js';
import { Pointer } from './pointer.js';
import { type BitField, type ObjectSpace, type Reader, Trace } from './space.js';
import { structClass } from './struct-object.js';

/** Bytes of a flexible `char[]` that are looked at for its NUL. */
const MAX_TEXT = 4096;
/** Bytes of a `char[n]` that are read as text. */
const MAX_CHARS = 1 << 16;

const word = new Uint8Array(16);
const view = new DataView(word.buffer);
/** Where short texts are read to: a buffer of its own for each would take longer than the read. */
const chars = Buffer.alloc(64);

/** Fills the first bytes of `word`. @throws {FaultError} */
function load(space: ObjectSpace, address: bigint, length: number): void {
  const into = word.subarray(0, length);
  if (space.memory.readInto(address, into) < length) {
    // Fails where the other one ended, with the level of the page table.
    into.set(space.memory.read(address, length));
  }
}

/** The function that reads values of a type. */
export function makeReader(type: TypeRef, bits: BitField | undefined): Reader {
  if (bits !== undefined) return bitReader(type, bits);
  switch (type.kind) {
    case 'int':
      return type.encoding === 'bool' ? boolReader : intReader(type.size, type.signed);
    case 'enum': {
      const names = new EnumNames(type);
      const read = intReader(type.size, type.signed);
      return (space, address, parent, key) =>
        names.of(read(space, address, parent, key) as number | bigint);
    }
    case 'float':
      return floatReader(type.size);
    case 'struct':
    case 'union': {
      const Made = structClass(type.struct, type.name);
      return (space, address, parent, key) => new Made(space, address, new Trace(parent, key));
    }
    case 'pointer':
      return pointerReader(type);
    case 'array':
      return isText(type) ? textReader(type.count) : arrayReader(type);
    default:
      return () => undefined;
  }
}

const boolReader: Reader = (space, address) => {
  load(space, address, 1);
  return word[0] !== 0;
};

function intReader(size: number, signed: boolean): Reader {
  switch (size) {
    case 8:
      return signed
        ? (space, address) => BigInt.asIntN(64, space.memory.readU64(address))
        : (space, address) => space.memory.readU64(address);
    case 4:
      return signed
        ? (space, address) => space.memory.readU32(address) | 0
        : (space, address) => space.memory.readU32(address);
    case 2:
      return (space, address) => {
        load(space, address, 2);
        return signed ? view.getInt16(0, true) : view.getUint16(0, true);
      };
    case 1:
      return (space, address) => {
        load(space, address, 1);
        return signed ? view.getInt8(0) : word[0];
      };
    case 16:
      return (space, address) => {
        load(space, address, 16);
        const wide = (view.getBigUint64(8, true) << 64n) | view.getBigUint64(0, true);
        return signed ? BigInt.asIntN(128, wide) : wide;
      };
    default:
      // No C type has another size.
      return () => undefined;
  }
}

function floatReader(size: number): Reader {
  if (size !== 4 && size !== 8) return () => undefined;
  return (space, address) => {
    load(space, address, size);
    return size === 8 ? view.getFloat64(0, true) : view.getFloat32(0, true);
  };
}

/** The bits of a field lie within the bytes from its first bit on: 9 of them at most. */
function bitReader(type: TypeRef, { shift, size }: BitField): Reader {
  const length = Math.min(16, Math.ceil((shift + size) / 8));
  const signed = (type.kind === 'int' || type.kind === 'enum') && type.signed;
  const names = type.kind === 'enum' ? new EnumNames(type) : undefined;
  const bool = type.kind === 'int' && type.encoding === 'bool';
  return (space, address) => {
    load(space, address, length);
    word.fill(0, length, 16);
    const wide = (view.getBigUint64(8, true) << 64n) | view.getBigUint64(0, true);
    const raw = BigInt.asUintN(size, wide >> BigInt(shift));
    if (bool) return raw !== 0n;
    const value = signed ? BigInt.asIntN(size, raw) : raw;
    const answer = type.size > 4 ? value : Number(value);
    return names === undefined ? answer : names.of(answer);
  };
}

function pointerReader(type: Extract<TypeRef, { kind: 'pointer' }>): Reader {
  const { target } = type;
  // A structure that is only declared has no members to show.
  if ((target.kind === 'struct' || target.kind === 'union') && target.struct.members.length > 0) {
    let Made: ReturnType<typeof structClass> | undefined;
    return (space, address, parent, key) => {
      const value = space.memory.readU64(address);
      if (value === 0n) return null;
      Made ??= structClass(target.struct, target.name);
      return new Made(space, value, new Trace(parent, key));
    };
  }
  return (space, address, parent, key) => {
    const value = space.memory.readU64(address);
    return value === 0n ? null : new Pointer(space, type, value, new Trace(parent, key));
  };
}

/** Whether a type is an array of `char`: text. */
export function isText(type: TypeRef): boolean {
  if (type.kind !== 'array') return false;
  const { element } = type;
  return element.kind === 'int' && element.encoding === 'char' && element.size === 1;
}

function textReader(count: number): Reader {
  if (count === 0) return (space, address) => escapeBytes(readCString(space, address, MAX_TEXT));
  const most = Math.min(count, MAX_CHARS);
  if (most <= chars.length) {
    const into = chars.subarray(0, most);
    return (space, address) => {
      if (space.memory.readInto(address, into) < most) into.set(space.memory.read(address, most));
      return textOf(into);
    };
  }
  return (space, address) => textOf(space.memory.read(address, most));
}

function textOf(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return escapeBytes(end < 0 ? bytes : bytes.subarray(0, end));
}

function arrayReader(type: Extract<TypeRef, { kind: 'array' }>): Reader {
  return (space, address, parent, key) =>
    new ArrayObject(space, type, address, new Trace(parent, key));
}
