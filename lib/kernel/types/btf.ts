import { constantType, variableType } from './btf-names.js';
import {
  ARRAY,
  BtfSections,
  corrupt,
  ENUM,
  ENUM64,
  FLOAT,
  FUNC_PROTO,
  FWD,
  INT,
  MAX_NAME,
  MAX_NESTING,
  PTR,
  STRUCT,
  TYPEDEF,
  UNION,
} from './btf-sections.js';
import { Struct } from './struct.js';
import { BaseTypes, bareName, type Member, type StructType, type TypeRef } from './table.js';

/**
 * Types of the running kernel, from its own BTF (`CONFIG_DEBUG_INFO_BTF`). One pass notes where
 * each type is; names, structures and members are decoded when asked for. Source:
 * Documentation/bpf/btf.rst, include/uapi/linux/btf.h.
 */
export class Btf extends BaseTypes {
  readonly source: string;
  /** Types, void not counted. */
  readonly count: number;
  readonly #raw: BtfSections;
  readonly #structs = new Map<number, Struct>();
  readonly #byName = new Map<string, number | undefined>();

  /**
   * @param bytes from the header on; kept, not copied, when aligned to 4
   * @throws {CorruptError} lengths that lie, or a kind this does not know
   */
  constructor(bytes: Buffer, source = 'btf') {
    super();
    this.source = source;
    this.#raw = new BtfSections(bytes, source);
    this.count = this.#raw.count;
  }

  find(name: string): StructType | undefined {
    const id = this.#idOf(name, true);
    return id === undefined ? undefined : this.#struct(id);
  }

  /**
   * Follows the path over the raw members: a structure of hundreds is not decoded for a few
   * offsets.
   */
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
      const resolved = this.#raw.resolve(found.type);
      const kind = this.#raw.kind(resolved);
      id = kind === STRUCT || kind === UNION ? resolved : undefined;
    }
    return Math.floor(bits / 8);
  }

  findSize(name: string): number | undefined {
    const id = this.#idOf(name, false);
    return id === undefined ? undefined : this.#raw.sizeOf(id);
  }

  *names(): Iterable<string> {
    for (let id = 1; id <= this.count; id++) {
      const kind = this.#raw.kind(id);
      if ((kind === STRUCT || kind === UNION) && this.#raw.nameAt[id] !== 0)
        yield this.#raw.name(id);
    }
  }

  override findType(name: string): TypeRef | undefined {
    const id = this.#idOf(name, false);
    return id === undefined ? undefined : this.#ref(id);
  }

  override findVariable(name: string): TypeRef | undefined {
    const id = variableType(this.#raw, name);
    return id === undefined ? undefined : this.#ref(this.#raw.check(id));
  }

  override findConstant(name: string): bigint | undefined {
    const id = constantType(this.#raw, name);
    return id === undefined ? undefined : this.#enumerators(id).get(name);
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
        let id = this.#raw.nameAt.indexOf(stringAt, 1);
        id > 0 && id <= this.count;
        id = this.#raw.nameAt.indexOf(stringAt, id + 1)
      ) {
        const rank = this.#rank(id, keyword, structs);
        if (rank !== undefined && (best === undefined || rank < best.rank)) best = { id, rank };
      }
    };
    // Each string is written once (pahole, libbpf); a second one counts only where the first is no
    // such type.
    let at = this.#raw.strings.indexOf(text);
    while (at >= 0 && best === undefined) {
      consider(at + 1);
      at = best === undefined ? this.#raw.strings.indexOf(text, at + 1) : -1;
    }
    if (best === undefined) {
      // A string section whose writer shares tails: the name may end a longer one.
      const tail = text.subarray(1);
      let tries = 0;
      for (
        let at = this.#raw.strings.indexOf(tail);
        at >= 0 && tries < 256;
        at = this.#raw.strings.indexOf(tail, at + 1)
      ) {
        if (this.#raw.strings[at - 1] === 0) continue;
        consider(at);
        tries++;
      }
    }
    if (best === undefined) return undefined;
    return structs ? this.#raw.resolve(best.id) : best.id;
  }

  /**
   * How well a type answers to its name: structures with members first, then typedefs; `undefined`:
   * not at all.
   */
  #rank(id: number, keyword: string | undefined, structs: boolean): number | undefined {
    const kind = this.#raw.kind(id);
    const spelled =
      kind === STRUCT
        ? 'struct'
        : kind === UNION
          ? 'union'
          : kind === ENUM || kind === ENUM64
            ? 'enum'
            : '';
    if (keyword !== undefined && keyword !== spelled) return undefined;
    if (kind === STRUCT || kind === UNION) return this.#raw.third(id) === 0 ? 3 : 0;
    if (kind === TYPEDEF) {
      const target = this.#raw.kind(this.#raw.resolve(id));
      if (structs && target !== STRUCT && target !== UNION) return undefined;
      return 1;
    }
    if (structs) return undefined;
    return spelled === 'enum' || kind === INT || kind === FLOAT ? 2 : undefined;
  }

  #struct(id: number): Struct {
    let struct = this.#structs.get(id);
    if (struct === undefined) {
      const kind = this.#raw.kind(id) === UNION ? 'union' : 'struct';
      struct = new Struct(this.#raw.name(id), kind, this.#raw.third(id), () => this.#members(id));
      this.#structs.set(id, struct);
    }
    return struct;
  }

  #members(id: number): Member[] {
    const words = this.#raw.words;
    const at = this.#raw.at[id]!;
    const info = words[at + 1]!;
    // kind_flag: the offset's top byte is a bit field's size. Documentation/bpf/btf.rst, 2.2.4.
    const flagged = info >>> 31 === 1;
    const members: Member[] = [];
    for (let i = 0, p = at + 3; i < (info & 0xffff); i++, p += 3) {
      const typeId = this.#raw.check(words[p + 1]!);
      const raw = words[p + 2]!;
      const bitOffset = flagged ? raw & 0xff_ffff : raw;
      const resolved = this.#raw.resolve(typeId);
      let bitSize = flagged ? raw >>> 24 : 0;
      let start = bitOffset;
      if (bitSize === 0 && this.#raw.kind(resolved) === INT) {
        // Before kind_flag a bit field was an int of its own: bits and offset in the word behind
        // it.
        const int = words[this.#raw.at[resolved]! + 3]!;
        const bits = int & 0xff;
        if (bits !== this.#raw.third(resolved) * 8 && bits !== 0) {
          bitSize = bits;
          start += (int >>> 16) & 0xff;
        }
      }
      const ref = this.#ref(typeId);
      members.push({
        name: this.#raw.string(words[p]!),
        offset: start >>> 3,
        bitOffset: start,
        ...(bitSize === 0 ? {} : { bitSize }),
        size: this.#raw.sizeOf(typeId),
        type: ref,
      });
    }
    return members;
  }

  #ref(id: number): TypeRef {
    const raw = this.#raw;
    const resolved = raw.resolve(id);
    const kind = raw.kind(resolved);
    switch (kind) {
      case INT:
        return this.#intRef(id, resolved);
      case PTR:
        return this.#pointerRef(id, resolved);
      case ARRAY:
        return this.#arrayRef(id, resolved);
      case STRUCT:
      case UNION:
        return this.#structRef(id, resolved);
      case ENUM:
      case ENUM64:
        return this.#enumRef(id, resolved);
      case FLOAT:
        return named(raw, id, { kind: 'float' as const, size: raw.third(resolved) });
      default: {
        const plain = kind === FUNC_PROTO ? 'function' : kind === FWD ? 'forward' : 'void';
        return named(raw, id, { kind: plain, size: 0 as const });
      }
    }
  }

  #intRef(id: number, resolved: number): TypeRef {
    const raw = this.#raw;
    const flags = (raw.words[raw.at[resolved]! + 3]! >>> 24) & 0xf;
    // pahole leaves the bit for characters away; the name is left.
    const isChar = (flags & 2) !== 0 || raw.name(resolved) === 'char';
    const encoding = (flags & 4) !== 0 ? 'bool' : isChar ? 'char' : 'int';
    const size = raw.third(resolved);
    return named(raw, id, { kind: 'int' as const, size, signed: (flags & 1) !== 0, encoding });
  }

  #pointerRef(id: number, resolved: number): TypeRef {
    const target = () => this.#ref(this.#raw.check(this.#raw.third(resolved)));
    return named(this.#raw, id, {
      kind: 'pointer' as const,
      size: 8,
      get target() {
        return target();
      },
    });
  }

  #arrayRef(id: number, resolved: number): TypeRef {
    const raw = this.#raw;
    const array = raw.at[resolved]! + 3;
    const element = () => this.#ref(raw.check(raw.words[array]!));
    return named(raw, id, {
      kind: 'array' as const,
      size: raw.sizeOf(resolved),
      count: raw.words[array + 2]!,
      get element() {
        return element();
      },
    });
  }

  #structRef(id: number, resolved: number): TypeRef {
    const struct = () => this.#struct(resolved);
    return named(this.#raw, id, {
      kind: this.#raw.kind(resolved) === UNION ? ('union' as const) : ('struct' as const),
      size: this.#raw.third(resolved),
      get struct() {
        return struct();
      },
    });
  }

  #enumRef(id: number, resolved: number): TypeRef {
    const raw = this.#raw;
    const values = () => this.#enumerators(resolved);
    return named(raw, id, {
      kind: 'enum' as const,
      size: raw.third(resolved),
      signed: raw.words[raw.at[resolved]! + 1]! >>> 31 === 1,
      get values() {
        return values();
      },
    });
  }

  /**
   * A member by its name, NUL included, also within unnamed structures: its offset in bits, and its
   * type.
   */
  #memberOf(id: number, name: Buffer, depth: number): { bits: number; type: number } | undefined {
    if (depth > MAX_NESTING) throw corrupt(this.source, `type ${id} nests for ever`);
    const words = this.#raw.words;
    const at = this.#raw.at[id]!;
    const info = words[at + 1]!;
    const flagged = info >>> 31 === 1;
    const end = at + 3 + (info & 0xffff) * 3;
    for (let p = at + 3; p < end; p += 3) {
      const bits = flagged ? words[p + 2]! & 0xff_ffff : words[p + 2]!;
      const nameAt = words[p]!;
      if (nameAt !== 0) {
        if (this.#isString(nameAt, name)) return { bits, type: this.#raw.check(words[p + 1]!) };
        continue;
      }
      const inner = this.#raw.resolve(this.#raw.check(words[p + 1]!));
      const kind = this.#raw.kind(inner);
      if (kind !== STRUCT && kind !== UNION) continue;
      const found = this.#memberOf(inner, name, depth + 1);
      if (found !== undefined) return { bits: bits + found.bits, type: found.type };
    }
    return undefined;
  }

  #isString(at: number, name: Buffer): boolean {
    const strings = this.#raw.strings;
    for (let i = 0; i < name.length; i++) if (strings[at + i] !== name[i]) return false;
    return true;
  }

  #enumerators(id: number): Map<string, bigint> {
    const at = this.#raw.at[id]!;
    const info = this.#raw.words[at + 1]!;
    const wide = this.#raw.kind(id) === ENUM64;
    // An ENUM is signed by kind_flag since 6.0; before, every one was read as signed.
    const signed = info >>> 31 === 1 || !wide;
    const values = new Map<string, bigint>();
    for (let i = 0, p = at + 3; i < (info & 0xffff); i++, p += wide ? 3 : 2) {
      const low = BigInt(this.#raw.words[p + 1]!);
      const value = wide ? (BigInt(this.#raw.words[p + 2]!) << 32n) | low : low;
      values.set(
        this.#raw.string(this.#raw.words[p]!),
        signed ? BigInt.asIntN(wide ? 64 : 32, value) : value,
      );
    }
    return values;
  }
}

/**
 * Adds the C spelling to what is known of a type. It is made when it is asked for, as what a type
 * refers to is: types refer to each other without end.
 */
function named<T extends object>(raw: BtfSections, id: number, ref: T): T & { name: string } {
  return Object.defineProperty(ref, 'name', {
    enumerable: true,
    get: () => raw.spell(id),
  }) as T & { name: string };
}
