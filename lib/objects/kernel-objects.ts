import { type AddressLike, PAGE_SIZE, toAddress, wrap } from '../address.js';
import { CorruptError, hex, VmiError } from '../errors.js';
import type { SymbolTable } from '../kernel/symbols/table.js';
import type { TypeRef, TypeTable } from '../kernel/types/table.js';
import { VirtualMemory } from '../memory/virtual-memory.js';
import { checkName, checkText } from '../options.js';
import { makeReader } from './readers.js';
import { Reference } from './reference.js';
import type { BitField, ObjectSpace, Reader, ValueMemory } from './space.js';
import { type Place, placeOf, type StructObject } from './struct-object.js';
import { parseTypeName } from './type-name.js';
import { KNOWN_VARIABLES } from './variables.js';

/** What of a kernel its objects stand on. */
export interface KernelFacts {
  readonly memory: VirtualMemory;
  readonly symbols: SymbolTable;
  readonly types: TypeTable;
  perCpuOffset(cpu: number): bigint;
  /** Numbers of the CPUs that are online now, ascending. */
  onlineCpus(): number[];
}

/**
 * Milliseconds after which a read begins a new operation: translations and pages that a source
 * keeps are that old at most.
 */
const MAX_AGE = 1;
/** Types by name that are kept. */
const MAX_NAMES = 1024;

/** Values of one kernel by their C types: variables, structures at addresses, per-CPU data. */
export class KernelObjects {
  readonly #kernel: KernelFacts;
  readonly #space: ObjectSpace;

  constructor(kernel: KernelFacts) {
    this.#kernel = kernel;
    this.#space = new Space(kernel, kernel.memory, new Types(kernel.types));
  }

  get types(): TypeTable {
    return this.#kernel.types;
  }

  get symbols(): SymbolTable {
    return this.#kernel.symbols;
  }

  /** The kernel's memory, through its own page table. */
  get memory(): VirtualMemory {
    return this.#kernel.memory;
  }

  /**
   * The value of a C type at an address: a {@link StructObject} for a structure, a number for an
   * `int`, and so on.
   * @param type `struct task_struct`, `task_struct`, `u64`, `char[16]`, `struct file *`
   * @throws {VmiError} `VMI_TYPE`
   * @throws {FaultError} of a type that is read at once, as a number is
   */
  // biome-ignore lint/suspicious/noExplicitAny: of which type, only the guest tells
  object(type: string, address: Place): any {
    const ref = this.#space.type(type);
    this.#space.fresh();
    return this.#space.reader(ref)(this.#space, placeOf(address), undefined, type);
  }

  /**
   * The place of a value of a C type: to write it, or to read it more than once.
   * @throws {VmiError} `VMI_TYPE`
   * @example
   * guest.objects.reference('int', guest.symbol('panic_timeout')).write(5);
   */
  reference(type: string, address: Place): Reference {
    return referenceIn(this.#space, type, placeOf(address));
  }

  /**
   * A kernel variable by name.
   * @param type its C type, where neither the kernel's types nor {@link KNOWN_VARIABLES} tell
   * @throws {VmiError} `VMI_SYMBOL`; `VMI_TYPE`: nobody says which type it has
   */
  // biome-ignore lint/suspicious/noExplicitAny: of which type, only the guest tells
  variable(name: string, type?: string): any {
    checkText(type, 'type');
    const address = this.#kernel.symbols.address(checkName(name));
    const ref = this.#typeOf(name, type);
    this.#space.fresh();
    return this.#space.reader(ref)(this.#space, address, undefined, name);
  }

  /** Whether this kernel has such a symbol. */
  has(name: string): boolean {
    return this.#kernel.symbols.find(name) !== undefined;
  }

  /**
   * What a CPU has of a per-CPU variable.
   * @throws {VmiError} as {@link variable}
   * @throws {RangeError} no such CPU
   */
  // biome-ignore lint/suspicious/noExplicitAny: of which type, only the guest tells
  perCpu(name: string, cpu: number, type?: string): any {
    checkText(type, 'type');
    const base = this.#kernel.symbols.address(checkName(name));
    const address = wrap(base + this.#kernel.perCpuOffset(cpu));
    const ref = this.#typeOf(name, type);
    this.#space.fresh();
    return this.#space.reader(ref)(this.#space, address, undefined, `cpu${cpu}:${name}`);
  }

  /**
   * What to add to the address of a per-CPU variable, modulo 2^64.
   * @throws {RangeError} no such CPU
   */
  perCpuOffset(cpu: number): bigint {
    return this.#kernel.perCpuOffset(cpu);
  }

  /** Numbers of the CPUs that are online now, ascending. */
  onlineCpus(): number[] {
    return this.#kernel.onlineCpus();
  }

  /** Bytes of a C type. @throws {VmiError} `VMI_TYPE` */
  sizeof(type: string): number {
    return this.#space.type(type).size;
  }

  /** Bytes from the start of a structure to a member, by path. @throws {VmiError} `VMI_TYPE` */
  offsetof(type: string, path: string): number {
    return this.types.offset(type, path);
  }

  /** Value of an enumeration's constant. @throws {VmiError} `VMI_TYPE` */
  constant(name: string): bigint {
    const value = this.types.findConstant(name);
    if (value === undefined) {
      throw new VmiError('VMI_TYPE', `no enumeration of ${this.types.source} has a '${name}'`);
    }
    return value;
  }

  /** The structure whose `member` is at an address. @throws {VmiError} `VMI_TYPE` */
  containerOf(place: Place, type: string, member: string): StructObject {
    const address = wrap(placeOf(place) - BigInt(this.types.offset(type, member)));
    return this.object(type, address) as StructObject;
  }

  /**
   * The same types over the user memory of an address space, through its own page table.
   * @param mm a `struct mm_struct`
   */
  inProcess(mm: StructObject): UserObjects {
    const { memory } = this.#kernel;
    const pgd = mm.$follow('pgd') as StructObject;
    const root = memory.translate(pgd.$address);
    if (root % BigInt(PAGE_SIZE) !== 0n) {
      throw new CorruptError(`${mm.$path}.pgd is ${hex(pgd.$address)}, no page`, mm.$address);
    }
    return new UserObjects(new VirtualMemory(memory.physical, root, memory.levels), this.#space);
  }

  #typeOf(name: string, given: string | undefined): TypeRef {
    const found = given === undefined ? this.types.findVariable(name) : undefined;
    if (found !== undefined) return found;
    const known = given ?? KNOWN_VARIABLES.get(name);
    if (known !== undefined) return this.#space.type(known);
    throw new VmiError(
      'VMI_TYPE',
      `the kernel's own types do not say which type '${name}' has: give it, as in variable('${name}', 'struct list_head')`,
    );
  }
}

const known = new WeakMap<KernelFacts, KernelObjects>();

/**
 * The values of a kernel; the same ones each time, so that what was learnt of its types is kept.
 */
export function objectsOf(kernel: KernelFacts): KernelObjects {
  let objects = known.get(kernel);
  if (objects === undefined) {
    objects = new KernelObjects(kernel);
    known.set(kernel, objects);
  }
  return objects;
}

/** Values in one process's user memory. */
export class UserObjects {
  readonly memory: VirtualMemory;
  readonly #space: ObjectSpace;

  /** @internal */
  constructor(memory: VirtualMemory, kernel: ObjectSpace) {
    this.memory = memory;
    this.#space = kernel.over(memory);
  }

  /** As {@link KernelObjects.object}. */
  // biome-ignore lint/suspicious/noExplicitAny: of which type, only the guest tells
  object(type: string, address: AddressLike): any {
    const ref = this.#space.type(type);
    this.#space.fresh();
    return this.#space.reader(ref)(this.#space, toAddress(address), undefined, type);
  }

  /** As {@link KernelObjects.reference}. */
  reference(type: string, address: AddressLike): Reference {
    return referenceIn(this.#space, type, toAddress(address));
  }
}

function referenceIn(space: ObjectSpace, name: string, address: bigint): Reference {
  const type = space.type(name);
  return new Reference(space, { address, type, bits: undefined, parent: undefined, key: name });
}

/** Types by C name, and the readers made of them. */
class Types {
  readonly table: TypeTable;
  readonly #byName = new Map<string, TypeRef>();
  readonly #readers = new WeakMap<TypeRef, Reader>();

  constructor(table: TypeTable) {
    this.table = table;
  }

  type(name: string): TypeRef {
    let found = this.#byName.get(name);
    if (found === undefined) {
      found = parseTypeName(this.table, name);
      if (this.#byName.size < MAX_NAMES) this.#byName.set(name, found);
    }
    return found;
  }

  reader(type: TypeRef, bits?: BitField): Reader {
    if (bits !== undefined) return makeReader(type, bits);
    let made = this.#readers.get(type);
    if (made === undefined) {
      made = makeReader(type, undefined);
      this.#readers.set(type, made);
    }
    return made;
  }
}

class Space implements ObjectSpace {
  readonly memory: ValueMemory;
  readonly symbols: SymbolTable;
  readonly types: TypeTable;
  readonly #kernel: KernelFacts;
  readonly #types: Types;
  #began = -Infinity;

  constructor(kernel: KernelFacts, memory: ValueMemory, types: Types) {
    this.#kernel = kernel;
    this.memory = memory;
    this.symbols = kernel.symbols;
    this.types = types.table;
    this.#types = types;
  }

  fresh(): void {
    const now = performance.now();
    if (now - this.#began < MAX_AGE) return;
    this.#began = now;
    const { memory } = this;
    if ('begin' in memory) (memory as VirtualMemory).begin();
    else this.#kernel.memory.begin();
  }

  perCpuOffset(cpu: number): bigint {
    return this.#kernel.perCpuOffset(cpu);
  }

  type(name: string): TypeRef {
    return this.#types.type(name);
  }

  reader(type: TypeRef, bits?: BitField): Reader {
    return this.#types.reader(type, bits);
  }

  over(memory: ValueMemory): ObjectSpace {
    return new Space(this.#kernel, memory, this.#types);
  }
}
