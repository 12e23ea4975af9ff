import { VmiError } from '../../errors.js';
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
    }
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
    }
  | {
      readonly kind: 'struct' | 'union';
      readonly name: string;
      readonly size: number;
      readonly struct: StructType;
    }
  | {
      readonly kind: 'enum';
      readonly name: string;
      readonly size: number;
      readonly signed: boolean;
      readonly values: ReadonlyMap<string, bigint>;
    };

/** A member of a structure. */
export interface Member {
  /** Empty for an unnamed structure or union, whose members belong to the outer one too. */
  readonly name: string;
  /**
   * Bytes from the start of the structure that was asked; of a bit field, the byte its first bit is
   * in.
   */
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
  /**
   * Offset in bytes of a member by path; `undefined` when the structure or the member is absent.
   */
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
  /**
   * A type of any kind by name: `pid_t`, `struct page`, `enum pid_type`. No pointers, no arrays.
   */
  findType(name: string): TypeRef | undefined;
  /** Type of a variable, where the types tell: BTF does for per-CPU variables only. */
  findVariable(name: string): TypeRef | undefined;
  /** Value of an enumeration's constant by its name: `PIDTYPE_PID`. */
  findConstant(name: string): bigint | undefined;
  /** Names of structures and unions. */
  names(): Iterable<string>;
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

  findType(name: string): TypeRef | undefined {
    const struct = this.find(name);
    if (struct === undefined) return undefined;
    return { kind: struct.kind, name: `${struct.kind} ${struct.name}`, size: struct.size, struct };
  }

  findVariable(_name: string): TypeRef | undefined {
    return undefined;
  }

  findConstant(_name: string): bigint | undefined {
    return undefined;
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
