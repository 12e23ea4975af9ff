/*
 * BTF, the types of a kernel as pahole writes them (Documentation/bpf/btf.rst):
 *
 *   header   magic eb9f, version, flags, its own length, then offset and length of two sections
 *   types    one after the other, numbered from 1; type 0 is void. Each is three words: offset of
 *            its name, info (bits 0-15 number of members, 24-28 kind, 31 kind_flag), and a size or
 *            the type referred to. What follows depends on the kind: 12 bytes a member (name,
 *            type, offset in bits), 8 an enumerator, 12 for an array (element, index, count) …
 *   strings  NUL-terminated, referred to by offset; offset 0 is the empty one
 *
 * A structure's members refer to types by number, so a name is all that is ever searched for.
 */
import { CorruptError, hex } from '../../errors.js';

/** `9f eb 01`: magic and version. Documentation/bpf/btf.rst, 2.1; include/uapi/linux/btf.h. */
export const BTF_MAGIC = Buffer.from([0x9f, 0xeb, 0x01]);
const HEADER_LENGTH = 24;
/** Kinds of include/uapi/linux/btf.h, and the bytes that follow the 12 of `struct btf_type`. */
export const INT = 1;
export const PTR = 2;
export const ARRAY = 3;
export const STRUCT = 4;
export const UNION = 5;
export const ENUM = 6;
export const FWD = 7;
export const TYPEDEF = 8;
export const VOLATILE = 9;
export const CONST = 10;
export const RESTRICT = 11;
export const FUNC_PROTO = 13;
export const FLOAT = 16;
export const TYPE_TAG = 18;
export const ENUM64 = 19;
//                 void int ptr arr str uni enum fwd tdf vol cst rst fun prt var sec flt tag ttag
// e64
const FIXED_EXTRA = [0, 4, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 4, 0, 0] as const;
const PER_MEMBER = [0, 0, 0, 0, 12, 12, 8, 0, 0, 0, 0, 0, 0, 8, 0, 12, 0, 0, 0, 12] as const;

const MAX_TYPES = 4_000_000;
/**
 * Longest chain of typedefs, qualifiers, pointers or arrays followed: C compilers do not make
 * longer ones.
 */
export const MAX_CHAIN = 64;
export const MAX_NAME = 512;
/** Unnamed structures within each other; a guest's types may claim to nest for ever. */
export const MAX_NESTING = 16;

/** What a BTF header says of the whole. */
export interface BtfHeader {
  readonly headerLength: number;
  readonly typesAt: number;
  readonly typesLength: number;
  readonly stringsAt: number;
  readonly stringsLength: number;
  /** Bytes from the header to the end of the last section. */
  readonly length: number;
}

/** Reads a header (24 bytes or more); `undefined` when it is none, or claims the impossible. */
export function parseBtfHeader(bytes: Buffer): BtfHeader | undefined {
  if (bytes.length < HEADER_LENGTH || !bytes.subarray(0, 3).equals(BTF_MAGIC)) return undefined;
  const headerLength = bytes.readUInt32LE(4);
  const typesLength = bytes.readUInt32LE(12);
  const stringsLength = bytes.readUInt32LE(20);
  const typesAt = headerLength + bytes.readUInt32LE(8);
  const stringsAt = headerLength + bytes.readUInt32LE(16);
  const length = Math.max(typesAt + typesLength, stringsAt + stringsLength);
  if (headerLength < HEADER_LENGTH || headerLength > 4096 || length > 0x1000_0000) return undefined;
  if (typesLength === 0 || stringsLength === 0 || typesAt % 4 !== 0) return undefined;
  return { headerLength, typesAt, typesLength, stringsAt, stringsLength, length };
}

/**
 * The sections of BTF, checked: every type lies within them. Nothing is decoded until it is asked
 * for.
 */
export class BtfSections {
  readonly source: string;
  /** Types, void not counted. */
  readonly count: number;
  readonly words: Uint32Array;
  readonly strings: Buffer;
  /** Index into the words of each type; 0 unused: type 0 is void. */
  readonly at: Uint32Array;
  /** Offset of each type's name. */
  readonly nameAt: Uint32Array;

  /**
   * @param bytes from the header on; kept, not copied, when aligned to 4
   * @throws {CorruptError} lengths that lie, or a kind this does not know
   */
  constructor(bytes: Buffer, source: string) {
    this.source = source;
    const header = parseBtfHeader(bytes);
    if (header === undefined) throw corrupt(source, 'no header');
    if (header.length > bytes.length) {
      throw corrupt(source, `the header claims ${header.length} bytes of ${bytes.length}`);
    }
    this.strings = bytes.subarray(header.stringsAt, header.stringsAt + header.stringsLength);
    if (this.strings[0] !== 0 || this.strings[this.strings.length - 1] !== 0) {
      throw corrupt(source, 'the strings do not start and end with NUL');
    }
    const length = header.typesLength >>> 2;
    const types = bytes.subarray(header.typesAt, header.typesAt + header.typesLength);
    if (types.byteOffset % 4 === 0) {
      this.words = new Uint32Array(types.buffer, types.byteOffset, length);
    } else {
      this.words = new Uint32Array(length);
      new Uint8Array(this.words.buffer).set(types.subarray(0, length * 4));
    }
    const most = Math.min(MAX_TYPES, Math.floor(length / 3)) + 1;
    this.at = new Uint32Array(most);
    this.nameAt = new Uint32Array(most);
    this.count = this.#index(length, most) - 1;
  }

  /** Notes where each type starts; returns their number plus one. */
  #index(length: number, most: number): number {
    const words = this.words;
    let id = 1;
    let at = 0;
    while (at < length) {
      const info = words[at + 1]!;
      const kind = (info >>> 24) & 0x1f;
      if (kind === 0 || kind > ENUM64)
        throw corrupt(this.source, `type ${id} has the unknown kind ${kind}`);
      const next = at + 3 + ((FIXED_EXTRA[kind]! + PER_MEMBER[kind]! * (info & 0xffff)) >>> 2);
      if (next > length || id >= most)
        throw corrupt(this.source, `type ${id} goes beyond the end of the types`);
      this.at[id] = at;
      this.nameAt[id] = words[at]!;
      id++;
      at = next;
    }
    return id;
  }

  kind(id: number): number {
    return id === 0 ? 0 : (this.words[this.at[id]! + 1]! >>> 24) & 0x1f;
  }

  name(id: number): string {
    return this.string(this.nameAt[id]!);
  }

  string(at: number): string {
    if (at === 0) return '';
    if (at >= this.strings.length)
      throw corrupt(this.source, `a name at ${hex(at)}, beyond the end of the strings`);
    const end = this.strings.indexOf(0, at);
    return this.strings.toString('latin1', at, Math.min(end, at + MAX_NAME));
  }

  check(id: number): number {
    if (id > this.count) throw corrupt(this.source, `a reference to type ${id} of ${this.count}`);
    return id;
  }

  /** The word behind `struct btf_type`'s name and info: size, or the type referred to. */
  third(id: number): number {
    return this.words[this.at[id]! + 2]!;
  }

  /** Strips typedefs and qualifiers. */
  resolve(from: number): number {
    let id = from;
    for (let hops = 0; hops < MAX_CHAIN; hops++) {
      const kind = this.kind(id);
      const passes =
        kind === TYPEDEF ||
        kind === VOLATILE ||
        kind === CONST ||
        kind === RESTRICT ||
        kind === TYPE_TAG;
      if (!passes) return id;
      id = this.check(this.third(id));
    }
    throw corrupt(this.source, `type ${from} refers to itself`);
  }

  sizeOf(from: number): number {
    let id = from;
    let factor = 1;
    for (let hops = 0; hops < MAX_CHAIN; hops++) {
      id = this.resolve(id);
      const kind = this.kind(id);
      if (kind === PTR) return factor * 8;
      if (kind !== ARRAY) {
        const sized =
          kind === INT ||
          kind === STRUCT ||
          kind === UNION ||
          kind === ENUM ||
          kind === ENUM64 ||
          kind === FLOAT;
        const size = sized ? factor * this.third(id) : 0;
        if (!Number.isSafeInteger(size)) throw corrupt(this.source, `type ${from} is too large`);
        return size;
      }
      const array = this.at[id]! + 3;
      factor *= this.words[array + 2]!;
      id = this.check(this.words[array]!);
    }
    throw corrupt(this.source, `type ${from} refers to itself`);
  }

  /** C spelling of a type. */
  spell(from: number): string {
    let id = from;
    let after = '';
    for (let hops = 0; hops < MAX_CHAIN; hops++) {
      const kind = this.kind(id);
      const name = id === 0 ? 'void' : this.name(id);
      if (kind === PTR) {
        after = ` *${after.trimStart()}`;
        id = this.check(this.third(id));
      } else if (kind === ARRAY) {
        const array = this.at[id]! + 3;
        after = `${after}[${this.words[array + 2]!}]`;
        id = this.check(this.words[array]!);
      } else if (kind === VOLATILE || kind === CONST || kind === RESTRICT || kind === TYPE_TAG) {
        id = this.check(this.third(id));
      } else {
        const keyword =
          kind === STRUCT
            ? 'struct '
            : kind === UNION
              ? 'union '
              : kind === ENUM || kind === ENUM64
                ? 'enum '
                : '';
        if (kind === FUNC_PROTO) return `function${after}`;
        if (kind === FWD)
          return `${this.words[this.at[id]! + 1]! >>> 31 ? 'union' : 'struct'} ${name}${after}`;
        return `${keyword}${name || '(unnamed)'}${after}`;
      }
    }
    throw corrupt(this.source, `type ${from} refers to itself`);
  }
}

export function corrupt(source: string, why: string): CorruptError {
  return new CorruptError(`${source}: broken BTF: ${why}`, 0n);
}
