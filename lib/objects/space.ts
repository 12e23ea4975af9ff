import { FaultError } from '../errors.js';
import { escapeText } from '../escape.js';
import type { SymbolTable } from '../kernel/symbols/table.js';
import type { Member, TypeRef, TypeTable } from '../kernel/types/table.js';
import type { WriteOptions } from '../memory/virtual-memory.js';

/** What values read their bytes from: virtual memory, or a copy of a part of it. */
export interface ValueMemory {
  /** @throws {FaultError} not mapped */
  readU64(address: bigint): bigint;
  /** @throws {FaultError} not mapped */
  readU32(address: bigint): number;
  /** Returns the bytes read before the first address that is not mapped. */
  readInto(address: bigint, into: Uint8Array): number;
  /** A copy of `length` bytes. @throws {FaultError} not mapped */
  read(address: bigint, length: number): Buffer;
  /** @throws {VmiError} `VMI_READ_ONLY` @throws {FaultError} not mapped */
  write(address: bigint, bytes: Uint8Array, options?: WriteOptions): void;
}

/** A value's place among the bits that hold it; left out for what is no bit-field. */
export interface BitField {
  /** First bit, from the lowest bit of the byte at the address. */
  readonly shift: number;
  readonly size: number;
}

/** Reads one value of one type. `parent` and `key` say for an error how the program came here. */
export type Reader = (
  space: ObjectSpace,
  address: bigint,
  parent: Trace | undefined,
  key: string | number,
) => unknown;

/** One kernel's types over one memory: everything a value needs to read its members. */
export interface ObjectSpace {
  readonly types: TypeTable;
  readonly memory: ValueMemory;
  readonly symbols: SymbolTable;
  /** What to add to the address of a per-CPU variable. @throws {RangeError} no such CPU */
  perCpuOffset(cpu: number): bigint;
  /** Starts a new operation on the guest when the last one began too long ago. */
  fresh(): void;
  /** The function that reads values of a type, made once a type. */
  reader(type: TypeRef, bits?: BitField): Reader;
  /**
   * A type by its C name: `struct page *`, `unsigned long`, `char[16]`.
   * @throws {VmiError} `VMI_TYPE`
   */
  type(name: string): TypeRef;
  /** The same types over other memory: a copy, a process's address space. */
  over(memory: ValueMemory): ObjectSpace;
}

/** Members named in an error's path; a chain of `next.next.next…` is as long as a program likes. */
const MAX_STEPS = 12;

/** How a program came to a value, for errors: `init_task.mm.pgd`. */
export class Trace {
  readonly #parent: Trace | undefined;
  readonly #key: string | number;
  readonly #steps: number;

  constructor(parent: Trace | undefined, key: string | number) {
    const steps = parent === undefined ? 0 : parent.#steps + 1;
    // Forget the way here rather than keep every value of a long walk alive.
    this.#parent = steps >= MAX_STEPS ? new Trace(undefined, '…') : parent;
    this.#steps = steps >= MAX_STEPS ? 1 : steps;
    this.#key = key;
  }

  toString(): string {
    const before = this.#parent;
    return before === undefined ? escapeText(String(this.#key)) : before.to(this.#key);
  }

  /** The path of a member or an element of this value. */
  to(key: string | number): string {
    return typeof key === 'number' ? `${this}[${key}]` : `${this}.${escapeText(key)}`;
  }
}

/** A fault with the path of what was read; any other error as it is. */
export function withPath(error: unknown, parent: Trace | undefined, key: string | number): unknown {
  if (!(error instanceof FaultError) || error.path !== undefined) return error;
  const path = parent === undefined ? escapeText(String(key)) : parent.to(key);
  return new FaultError({ ...error, path }, { cause: error });
}

/** The bits of a bit-field within the bytes from its offset on. */
export function bitField(member: Pick<Member, 'bitOffset' | 'bitSize'>): BitField | undefined {
  if (member.bitSize === undefined) return undefined;
  return { shift: member.bitOffset % 8, size: member.bitSize };
}
