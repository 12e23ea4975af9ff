import { CorruptError, VmiError } from '../../errors.js';
import { didYouMean } from '../../suggest.js';

/** What a value is. `name` is the C spelling: `struct list_head *`, `pid_t`, `char[16]`. */
export type TypeRef =
  | { readonly kind: 'void' | 'function' | 'forward'; readonly name: string; readonly size: 0 }
  | {
      readonly kind: 'int';
      readonly name: string;
      readonly size: number;
      readonly signed: boolean;
      readonly encoding: 'int' | 'char' | 'bool';
    } // prettier-ignore
  | { readonly kind: 'float'; readonly name: string; readonly size: number }
  | {
      readonly kind: 'pointer';
      readonly name: string;
      readonly size: number;
      readonly target: TypeRef;
    }
  | {
      readonly kind: 'array';
      readonly name: string;
      readonly size: number;
      readonly count: number;
      readonly element: TypeRef;
    } // prettier-ignore
  | {
      readonly kind: 'struct' | 'union';
      readonly name: string;
      readonly size: number;
      readonly struct: StructType;
    } // prettier-ignore
  | {
      readonly kind: 'enum';
      readonly name: string;
      readonly size: number;
      readonly signed: boolean;
      readonly values: ReadonlyMap<string, bigint>;
    }; // prettier-ignore

/** A member of a structure. */
export interface Member {
  /** Empty for an unnamed structure or union, whose members belong to the outer one too. */
  readonly name: string;
  /** Bytes from the start of the structure that was asked; of a bit field, the byte its first bit is in. */
  readonly offset: number;
  /** Bits from the start of the structure that was asked. */
  readonly bitOffset: number;
  /** Bits of a bit field; absent for others. */
  readonly bitSize?: number;
  /** Bytes of the type. */
  readonly size: number;
  readonly type: TypeRef;
}

/** A structure or union of the kernel. */
export interface StructType {
  /** Without `struct`; empty when it has no name. */
  readonly name: string;
  readonly kind: 'struct' | 'union';
  readonly size: number;
  /** In order of declaration, unnamed ones included. */
  readonly members: readonly Member[];
  /** A member by path: `mm`, `signal.group_leader` within nested structures, `numbers[0].nr`. */
  findMember(path: string): Member | undefined;
  /**
   * A member by path, with its offset from the start of this structure.
   * @throws {VmiError} `VMI_TYPE`
   */
  member(path: string): Member;
}

/** Types of one kernel. */
export interface TypeTable {
  /** Where the types come from: `btf`, or a file's path. */
  readonly source: string;
  /** A structure or union by name, with or without `struct`; also a typedef of one. */
  find(name: string): StructType | undefined;
  /**
   * A structure or union by name.
   * @throws {VmiError} `VMI_TYPE`
   */
  struct(name: string): StructType;
  /** Offset in bytes of a member by path; `undefined` when the structure or the member is absent. */
  findOffset(struct: string, path: string): number | undefined;
  /**
   * Offset in bytes of a member by path.
   * @throws {VmiError} `VMI_TYPE`
   */
  offset(struct: string, path: string): number;
  /** Bytes of a type of any kind; `undefined` when it is absent. */
  findSize(name: string): number | undefined;
  /**
   * Bytes of a type of any kind.
   * @throws {VmiError} `VMI_TYPE`
   */
  size(name: string): number;
  /** Names of structures and unions. */
  names(): Iterable<string>;
}

/** Unnamed structures may nest; a guest's types may claim to nest for ever. */
const MAX_NESTING = 16;
const MAX_MEMBERS = 65_536;

/** Structure whose members are made at the first question. */
export class Struct implements StructType {
  readonly name: string;
  readonly kind: 'struct' | 'union';
  readonly size: number;
  readonly #load: () => Member[];
  #members: Member[] | undefined;
  #byName: Map<string, Member> | undefined;

  constructor(name: string, kind: 'struct' | 'union', size: number, load: () => Member[]) {
    this.name = name;
    this.kind = kind;
    this.size = size;
    this.#load = load;
  }

  get members(): readonly Member[] {
    this.#members ??= this.#load();
    return this.#members;
  }

  findMember(path: string): Member | undefined {
    const steps = parsePath(path);
    if (steps === undefined) return undefined;
    let struct: StructType = this;
    let at: Member | undefined;
    for (const step of steps) {
      if (typeof step === 'string') {
        if (at !== undefined) {
          if (at.type.kind !== 'struct' && at.type.kind !== 'union') return undefined;
          struct = at.type.struct;
        }
        const next: Member | undefined =
          struct instanceof Struct ? struct.#named().get(step) : struct.findMember(step);
        if (next === undefined) return undefined;
        at = at === undefined ? next : shifted(next, at.bitOffset);
      } else {
        if (at?.type.kind !== 'array') return undefined;
        const { element, count } = at.type;
        // count 0: a flexible array, as long as its allocation
        if (count !== 0 && step >= count) return undefined;
        const bitOffset = at.bitOffset + step * element.size * 8;
        at = {
          name: at.name,
          offset: bitOffset >>> 3,
          bitOffset,
          size: element.size,
          type: element,
        };
      }
    }
    return at;
  }

  member(path: string): Member {
    const found = this.findMember(path);
    if (found !== undefined) return found;
    const spelled = `${this.kind} ${this.name || '(unnamed)'}`;
    const first = path.split(/[.[]/, 1)[0]!;
    if (this.#named().has(first) && first !== path) {
      throw new VmiError('VMI_TYPE', `${spelled} has a member '${first}', but no '${path}'`);
    }
    throw new VmiError(
      'VMI_TYPE',
      `${spelled} has no member '${path}'${didYouMean(first, this.#named().keys())}`,
    );
  }

  /** Names of members, those of unnamed structures included. */
  memberNames(): Iterable<string> {
    return this.#named().keys();
  }

  /** Members by name, those of unnamed structures included. */
  #named(): Map<string, Member> {
    if (this.#byName === undefined) {
      const byName = new Map<string, Member>();
      this.#collect(this.members, 0, byName, 0);
      this.#byName = byName;
    }
    return this.#byName;
  }

  #collect(
    members: readonly Member[],
    bits: number,
    into: Map<string, Member>,
    depth: number,
  ): void {
    for (const member of members) {
      if (member.name !== '') {
        if (!into.has(member.name)) into.set(member.name, shifted(member, bits));
        if (into.size > MAX_MEMBERS)
          throw new CorruptError(`${this.kind} ${this.name} has too many members`, 0n);
      } else if (member.type.kind === 'struct' || member.type.kind === 'union') {
        if (depth >= MAX_NESTING)
          throw new CorruptError(`${this.kind} ${this.name} nests for ever`, 0n);
        this.#collect(member.type.struct.members, bits + member.bitOffset, into, depth + 1);
      }
    }
  }
}

function shifted(member: Member, bits: number): Member {
  if (bits === 0) return member;
  const bitOffset = member.bitOffset + bits;
  return { ...member, bitOffset, offset: Math.floor(bitOffset / 8) };
}

/** `a.b[2].c` as steps; `undefined` when it is no path. */
function parsePath(path: string): (string | number)[] | undefined {
  if (path.length > 256) return undefined;
  const steps: (string | number)[] = [];
  for (const part of path.split('.')) {
    const match = /^(\w+)((?:\[\d{1,9}\])*)$/.exec(part);
    if (match === null) return undefined;
    steps.push(match[1]!);
    for (const index of match[2]!.matchAll(/\d+/g)) steps.push(Number(index[0]));
  }
  return steps;
}

/** What every type table does the same way, on top of finding a structure and a size. */
export abstract class BaseTypes implements TypeTable {
  abstract readonly source: string;
  abstract find(name: string): StructType | undefined;
  abstract findSize(name: string): number | undefined;
  abstract names(): Iterable<string>;

  struct(name: string): StructType {
    const found = this.find(name);
    if (found === undefined) throw noType(name, this.source, this.names());
    return found;
  }

  findOffset(struct: string, path: string): number | undefined {
    return this.find(struct)?.findMember(path)?.offset;
  }

  offset(struct: string, path: string): number {
    return this.struct(struct).member(path).offset;
  }

  size(name: string): number {
    const found = this.findSize(name);
    if (found === undefined) throw noType(name, this.source, this.names());
    return found;
  }
}

/** The error for a type that is absent. */
export function noType(name: string, source: string, names: Iterable<string>): VmiError {
  return new VmiError(
    'VMI_TYPE',
    `no type '${name}' in ${source}${didYouMean(bareName(name), names)}`,
  );
}

/** A type's name without the keyword before it. */
export function bareName(name: string): string {
  return name.replace(/^(?:struct|union|enum)\s+/, '');
}

/** Answers of a type table by question, `struct.path` or `sizeof name`; `null`: absent. */
export type KnownOffsets = ReadonlyMap<string, number | null>;

/**
 * A type table that opens the real one at the first question it has no remembered answer to.
 * What was asked is kept, for the cache.
 */
export class LazyTypes extends BaseTypes {
  readonly source: string;
  readonly #known: Map<string, number | null>;
  readonly #open: () => TypeTable;
  #table: TypeTable | undefined;

  constructor(source: string, open: () => TypeTable, known: KnownOffsets = new Map()) {
    super();
    this.source = source;
    this.#open = open;
    this.#known = new Map(known);
  }

  /** Answers so far. */
  get known(): KnownOffsets {
    return this.#known;
  }

  /** The table behind it, opened if it was not. */
  get table(): TypeTable {
    this.#table ??= this.#open();
    return this.#table;
  }

  find(name: string): StructType | undefined {
    return this.table.find(name);
  }

  override findOffset(struct: string, path: string): number | undefined {
    return this.#remembered(`${struct}.${path}`, () => this.table.findOffset(struct, path));
  }

  override offset(struct: string, path: string): number {
    return this.findOffset(struct, path) ?? this.table.offset(struct, path);
  }

  findSize(name: string): number | undefined {
    return this.#remembered(`sizeof ${name}`, () => this.table.findSize(name));
  }

  override size(name: string): number {
    return this.findSize(name) ?? this.table.size(name);
  }

  names(): Iterable<string> {
    return this.table.names();
  }

  #remembered(question: string, ask: () => number | undefined): number | undefined {
    const known = this.#known.get(question);
    if (known !== undefined) return known ?? undefined;
    const answer = ask();
    // Bounded: a REPL may ask for anything.
    if (this.#known.size < 1024) this.#known.set(question, answer ?? null);
    return answer;
  }
}
