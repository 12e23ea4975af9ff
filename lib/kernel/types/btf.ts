import { CorruptError, hex } from '../../errors.js';
import { Struct } from './struct.js';
import { BaseTypes, bareName, type Member, type StructType, type TypeRef } from './table.js';

/** `9f eb 01`: magic and version. Documentation/bpf/btf.rst, 2.1; include/uapi/linux/btf.h. */
export const BTF_MAGIC = Buffer.from([0x9f, 0xeb, 0x01]);
const HEADER_LENGTH = 24;
/** Kinds of include/uapi/linux/btf.h, and the bytes that follow the 12 of `struct btf_type`. */
const INT = 1;
const PTR = 2;
const ARRAY = 3;
const STRUCT = 4;
const UNION = 5;
const ENUM = 6;
const FWD = 7;
const TYPEDEF = 8;
const VOLATILE = 9;
const CONST = 10;
const RESTRICT = 11;
const FUNC_PROTO = 13;
const FLOAT = 16;
const TYPE_TAG = 18;
const ENUM64 = 19;
//                 void int ptr arr str uni enum fwd tdf vol cst rst fun prt var sec flt tag ttag e64
const FIXED_EXTRA = [0, 4, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 4, 0, 0] as const;
const PER_MEMBER = [0, 0, 0, 0, 12, 12, 8, 0, 0, 0, 0, 0, 0, 8, 0, 12, 0, 0, 0, 12] as const;

const MAX_TYPES = 4_000_000;
/** Longest chain of typedefs, qualifiers, pointers or arrays followed: C compilers do not make longer ones. */
const MAX_CHAIN = 64;
const MAX_NAME = 512;
/** Unnamed structures within each other; a guest's types may claim to nest for ever. */
const MAX_NESTING = 16;

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
 * Types of the running kernel, from its own BTF (`CONFIG_DEBUG_INFO_BTF`). One pass notes where each type is; names,
 * structures and members are decoded when asked for.
 * Source: Documentation/bpf/btf.rst, include/uapi/linux/btf.h.
 */
export class Btf extends BaseTypes {
  readonly source: string;
  /** Types, void not counted. */
  readonly count: number;
  readonly #words: Uint32Array;
  readonly #strings: Buffer;
  /** Index into the words of each type; 0 unused: type 0 is void. */
  readonly #at: Uint32Array;
  /** Offset of each type's name. */
  readonly #nameAt: Uint32Array;
  readonly #structs = new Map<number, Struct>();
  readonly #byName = new Map<string, number | undefined>();

  /**
   * @param bytes from the header on; kept, not copied, when aligned to 4
   * @throws {CorruptError} lengths that lie, or a kind this does not know
   */
  constructor(bytes: Buffer, source = 'btf') {
    super();
    this.source = source;
    const header = parseBtfHeader(bytes);
    if (header === undefined) throw corrupt(source, 'no header');
    if (header.length > bytes.length) {
      throw corrupt(source, `the header claims ${header.length} bytes of ${bytes.length}`);
    }
    this.#strings = bytes.subarray(header.stringsAt, header.stringsAt + header.stringsLength);
    if (this.#strings[0] !== 0 || this.#strings[this.#strings.length - 1] !== 0) {
      throw corrupt(source, 'the strings do not start and end with NUL');
    }
    const length = header.typesLength >>> 2;
    const types = bytes.subarray(header.typesAt, header.typesAt + header.typesLength);
    if (types.byteOffset % 4 === 0) {
      this.#words = new Uint32Array(types.buffer, types.byteOffset, length);
    } else {
      this.#words = new Uint32Array(length);
      new Uint8Array(this.#words.buffer).set(types.subarray(0, length * 4));
    }
    const most = Math.min(MAX_TYPES, Math.floor(length / 3)) + 1;
    this.#at = new Uint32Array(most);
    this.#nameAt = new Uint32Array(most);
    this.count = this.#index(length, most) - 1;
  }

  find(name: string): StructType | undefined {
    const id = this.#idOf(name, true);
    return id === undefined ? undefined : this.#struct(id);
  }

  /** Follows the path over the raw members: a structure of hundreds is not decoded for a few offsets. */
  override findOffset(struct: string, path: string): number | undefined {
    // Array elements are rare enough for the long way.
    if (!/^\w+(\.\w+)*$/.test(path)) return super.findOffset(struct, path);
    let id = this.#idOf(struct, true);
    let bits = 0;
    for (const name of path.split('.')) {
      if (id === undefined) return undefined;
      const found = this.#memberOf(id, Buffer.from(`${name}\0`, 'latin1'), 0);
      if (found === undefined) return undefined;
      bits += found.bits;
      const resolved = this.#resolve(found.type);
      const kind = this.#kind(resolved);
      id = kind === STRUCT || kind === UNION ? resolved : undefined;
    }
    return Math.floor(bits / 8);
  }

  findSize(name: string): number | undefined {
    const id = this.#idOf(name, false);
    return id === undefined ? undefined : this.#sizeOf(id);
  }

  *names(): Iterable<string> {
    for (let id = 1; id <= this.count; id++) {
      const kind = this.#kind(id);
      if ((kind === STRUCT || kind === UNION) && this.#nameAt[id] !== 0) yield this.#name(id);
    }
  }

  /** A type of any kind by name, for casts: `pid_t`, `struct page`, `enum pid_type`. */
  findType(name: string): TypeRef | undefined {
    const id = this.#idOf(name, false);
    return id === undefined ? undefined : this.#ref(id);
  }

  /** Notes where each type starts; returns their number plus one. */
  #index(length: number, most: number): number {
    const words = this.#words;
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
      this.#at[id] = at;
      this.#nameAt[id] = words[at]!;
      id++;
      at = next;
    }
    return id;
  }

  #kind(id: number): number {
    return id === 0 ? 0 : (this.#words[this.#at[id]! + 1]! >>> 24) & 0x1f;
  }

  #name(id: number): string {
    return this.#string(this.#nameAt[id]!);
  }

  #string(at: number): string {
    if (at === 0) return '';
    if (at >= this.#strings.length)
      throw corrupt(this.source, `a name at ${hex(at)}, beyond the end of the strings`);
    const end = this.#strings.indexOf(0, at);
    return this.#strings.toString('latin1', at, Math.min(end, at + MAX_NAME));
  }

  #check(id: number): number {
    if (id > this.count) throw corrupt(this.source, `a reference to type ${id} of ${this.count}`);
    return id;
  }

  /** The word behind `struct btf_type`'s name and info: size, or the type referred to. */
  #third(id: number): number {
    return this.#words[this.#at[id]! + 2]!;
  }

  /** Strips typedefs and qualifiers. */
  #resolve(from: number): number {
    let id = from;
    for (let hops = 0; hops < MAX_CHAIN; hops++) {
      const kind = this.#kind(id);
      const passes =
        kind === TYPEDEF ||
        kind === VOLATILE ||
        kind === CONST ||
        kind === RESTRICT ||
        kind === TYPE_TAG;
      if (!passes) return id;
      id = this.#check(this.#third(id));
    }
    throw corrupt(this.source, `type ${from} refers to itself`);
  }

  #idOf(name: string, structs: boolean): number | undefined {
    const key = `${structs ? 's' : 't'} ${name}`;
    if (this.#byName.has(key)) return this.#byName.get(key);
    const id = this.#search(name, structs);
    if (this.#byName.size < 4096) this.#byName.set(key, id);
    return id;
  }

  #search(name: string, structs: boolean): number | undefined {
    const keyword = /^(struct|union|enum)\s/.exec(name)?.[1];
    const bare = bareName(name);
    if (bare === '' || bare.length >= MAX_NAME) return undefined;
    const text = Buffer.from(`\0${bare}\0`, 'latin1');
    let best: { id: number; rank: number } | undefined;
    const consider = (stringAt: number) => {
      for (
        let id = this.#nameAt.indexOf(stringAt, 1);
        id > 0 && id <= this.count;
        id = this.#nameAt.indexOf(stringAt, id + 1)
      ) {
        const rank = this.#rank(id, keyword, structs);
        if (rank !== undefined && (best === undefined || rank < best.rank)) best = { id, rank };
      }
    };
    // Each string is written once (pahole, libbpf); a second one counts only where the first is no such type.
    let at = this.#strings.indexOf(text);
    while (at >= 0 && best === undefined) {
      consider(at + 1);
      at = best === undefined ? this.#strings.indexOf(text, at + 1) : -1;
    }
    if (best === undefined) {
      // A string section whose writer shares tails: the name may end a longer one.
      const tail = text.subarray(1);
      let tries = 0;
      for (
        let at = this.#strings.indexOf(tail);
        at >= 0 && tries < 256;
        at = this.#strings.indexOf(tail, at + 1)
      ) {
        if (this.#strings[at - 1] === 0) continue;
        consider(at);
        tries++;
      }
    }
    if (best === undefined) return undefined;
    return structs ? this.#resolve(best.id) : best.id;
  }

  /** How well a type answers to its name: structures with members first, then typedefs; `undefined`: not at all. */
  #rank(id: number, keyword: string | undefined, structs: boolean): number | undefined {
    const kind = this.#kind(id);
    const spelled =
      kind === STRUCT
        ? 'struct'
        : kind === UNION
          ? 'union'
          : kind === ENUM || kind === ENUM64
            ? 'enum'
            : '';
    if (keyword !== undefined && keyword !== spelled) return undefined;
    if (kind === STRUCT || kind === UNION) return this.#third(id) === 0 ? 3 : 0;
    if (kind === TYPEDEF) {
      const target = this.#kind(this.#resolve(id));
      if (structs && target !== STRUCT && target !== UNION) return undefined;
      return 1;
    }
    if (structs) return undefined;
    return spelled === 'enum' || kind === INT || kind === FLOAT ? 2 : undefined;
  }

  #sizeOf(from: number): number {
    let id = from;
    let factor = 1;
    for (let hops = 0; hops < MAX_CHAIN; hops++) {
      id = this.#resolve(id);
      const kind = this.#kind(id);
      if (kind === PTR) return factor * 8;
      if (kind !== ARRAY) {
        const sized =
          kind === INT ||
          kind === STRUCT ||
          kind === UNION ||
          kind === ENUM ||
          kind === ENUM64 ||
          kind === FLOAT;
        const size = sized ? factor * this.#third(id) : 0;
        if (!Number.isSafeInteger(size)) throw corrupt(this.source, `type ${from} is too large`);
        return size;
      }
      const array = this.#at[id]! + 3;
      factor *= this.#words[array + 2]!;
      id = this.#check(this.#words[array]!);
    }
    throw corrupt(this.source, `type ${from} refers to itself`);
  }

  #struct(id: number): Struct {
    let struct = this.#structs.get(id);
    if (struct === undefined) {
      const kind = this.#kind(id) === UNION ? 'union' : 'struct';
      struct = new Struct(this.#name(id), kind, this.#third(id), () => this.#members(id));
      this.#structs.set(id, struct);
    }
    return struct;
  }

  #members(id: number): Member[] {
    const words = this.#words;
    const at = this.#at[id]!;
    const info = words[at + 1]!;
    // kind_flag: the offset's top byte is a bit field's size. Documentation/bpf/btf.rst, 2.2.4.
    const flagged = info >>> 31 === 1;
    const members: Member[] = [];
    for (let i = 0, p = at + 3; i < (info & 0xffff); i++, p += 3) {
      const typeId = this.#check(words[p + 1]!);
      const raw = words[p + 2]!;
      const bitOffset = flagged ? raw & 0xff_ffff : raw;
      const resolved = this.#resolve(typeId);
      let bitSize = flagged ? raw >>> 24 : 0;
      let start = bitOffset;
      if (bitSize === 0 && this.#kind(resolved) === INT) {
        // Before kind_flag a bit field was an int of its own: bits and offset in the word behind it.
        const int = words[this.#at[resolved]! + 3]!;
        const bits = int & 0xff;
        if (bits !== this.#third(resolved) * 8 && bits !== 0) {
          bitSize = bits;
          start += (int >>> 16) & 0xff;
        }
      }
      const ref = this.#ref(typeId);
      members.push({
        name: this.#string(words[p]!),
        offset: start >>> 3,
        bitOffset: start,
        ...(bitSize === 0 ? {} : { bitSize }),
        size: this.#sizeOf(typeId),
        type: ref,
      });
    }
    return members;
  }

  #ref(id: number): TypeRef {
    const resolved = this.#resolve(id);
    const btf = this;
    const kind = this.#kind(resolved);
    const spelling = () => btf.#spell(id);
    switch (kind) {
      case INT: {
        const encoding = (this.#words[this.#at[resolved]! + 3]! >>> 24) & 0xf;
        return {
          kind: 'int',
          size: this.#third(resolved),
          signed: (encoding & 1) !== 0,
          // pahole leaves the bit for characters away; the name is left.
          encoding:
            (encoding & 4) !== 0
              ? 'bool'
              : (encoding & 2) !== 0 || this.#name(resolved) === 'char'
                ? 'char'
                : 'int',
          get name() {
            return spelling();
          },
        };
      }
      case PTR:
        return {
          kind: 'pointer',
          size: 8,
          get name() {
            return spelling();
          },
          get target() {
            return btf.#ref(btf.#check(btf.#third(resolved)));
          },
        };
      case ARRAY: {
        const array = this.#at[resolved]! + 3;
        return {
          kind: 'array',
          size: this.#sizeOf(resolved),
          count: this.#words[array + 2]!,
          get name() {
            return spelling();
          },
          get element() {
            return btf.#ref(btf.#check(btf.#words[array]!));
          },
        };
      }
      case STRUCT:
      case UNION:
        return {
          kind: kind === UNION ? 'union' : 'struct',
          size: this.#third(resolved),
          get name() {
            return spelling();
          },
          get struct() {
            return btf.#struct(resolved);
          },
        };
      case ENUM:
      case ENUM64:
        return {
          kind: 'enum',
          size: this.#third(resolved),
          signed: this.#words[this.#at[resolved]! + 1]! >>> 31 === 1,
          get name() {
            return spelling();
          },
          get values() {
            return btf.#enumerators(resolved);
          },
        };
      case FLOAT:
        return {
          kind: 'float',
          size: this.#third(resolved),
          get name() {
            return spelling();
          },
        };
      default: {
        const plain = kind === FUNC_PROTO ? 'function' : kind === FWD ? 'forward' : 'void';
        return {
          kind: plain,
          size: 0,
          get name() {
            return spelling();
          },
        };
      }
    }
  }

  /** A member by its name, NUL included, also within unnamed structures: its offset in bits, and its type. */
  #memberOf(id: number, name: Buffer, depth: number): { bits: number; type: number } | undefined {
    if (depth > MAX_NESTING) throw corrupt(this.source, `type ${id} nests for ever`);
    const words = this.#words;
    const at = this.#at[id]!;
    const info = words[at + 1]!;
    const flagged = info >>> 31 === 1;
    const end = at + 3 + (info & 0xffff) * 3;
    for (let p = at + 3; p < end; p += 3) {
      const bits = flagged ? words[p + 2]! & 0xff_ffff : words[p + 2]!;
      const nameAt = words[p]!;
      if (nameAt !== 0) {
        if (this.#isString(nameAt, name)) return { bits, type: this.#check(words[p + 1]!) };
        continue;
      }
      const inner = this.#resolve(this.#check(words[p + 1]!));
      const kind = this.#kind(inner);
      if (kind !== STRUCT && kind !== UNION) continue;
      const found = this.#memberOf(inner, name, depth + 1);
      if (found !== undefined) return { bits: bits + found.bits, type: found.type };
    }
    return undefined;
  }

  #isString(at: number, name: Buffer): boolean {
    const strings = this.#strings;
    for (let i = 0; i < name.length; i++) if (strings[at + i] !== name[i]) return false;
    return true;
  }

  #enumerators(id: number): Map<string, bigint> {
    const at = this.#at[id]!;
    const info = this.#words[at + 1]!;
    const wide = this.#kind(id) === ENUM64;
    // An ENUM is signed by kind_flag since 6.0; before, every one was read as signed.
    const signed = info >>> 31 === 1 || !wide;
    const values = new Map<string, bigint>();
    for (let i = 0, p = at + 3; i < (info & 0xffff); i++, p += wide ? 3 : 2) {
      const low = BigInt(this.#words[p + 1]!);
      const value = wide ? (BigInt(this.#words[p + 2]!) << 32n) | low : low;
      values.set(
        this.#string(this.#words[p]!),
        signed ? BigInt.asIntN(wide ? 64 : 32, value) : value,
      );
    }
    return values;
  }

  /** C spelling of a type. */
  #spell(from: number): string {
    let id = from;
    let after = '';
    for (let hops = 0; hops < MAX_CHAIN; hops++) {
      const kind = this.#kind(id);
      const name = id === 0 ? 'void' : this.#name(id);
      if (kind === PTR) {
        after = ` *${after.trimStart()}`;
        id = this.#check(this.#third(id));
      } else if (kind === ARRAY) {
        const array = this.#at[id]! + 3;
        after = `${after}[${this.#words[array + 2]!}]`;
        id = this.#check(this.#words[array]!);
      } else if (kind === VOLATILE || kind === CONST || kind === RESTRICT || kind === TYPE_TAG) {
        id = this.#check(this.#third(id));
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
          return `${this.#words[this.#at[id]! + 1]! >>> 31 ? 'union' : 'struct'} ${name}${after}`;
        return `${keyword}${name || '(unnamed)'}${after}`;
      }
    }
    throw corrupt(this.source, `type ${from} refers to itself`);
  }
}

function corrupt(source: string, why: string): CorruptError {
  return new CorruptError(`${source}: broken BTF: ${why}`, 0n);
}
