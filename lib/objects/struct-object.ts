import { inspect } from 'node:util';
import { type AddressLike, toAddress, wrap } from '../address.js';
import { CorruptError, hex, VmiError } from '../errors.js';
import type { Member, StructType, TypeRef } from '../kernel/types/table.js';
import { toCount } from '../options.js';
import { checkFormat, type FormatOptions, formatStruct } from './format.js';
import type { KernelStruct } from './kernel-types.js';
import { namedMembers, spelled } from './members.js';
import { Overlay } from './overlay.js';
import { Reference } from './reference.js';
import { bitField, type ObjectSpace, Trace, withPath } from './space.js';

/** Most bytes that a snapshot copies: the largest structure of a kernel has some 100 KiB. */
const MAX_SNAPSHOT = 1 << 20;

/**
 * Members that are no properties: JavaScript itself asks every object for these, `then` at each
 * `await`. They are reached by `$member('then')`.
 */
const RESERVED: ReadonlySet<string> = new Set([
  ...Object.getOwnPropertyNames(Object.prototype),
  'then',
  'toJSON',
]);

// Set in the class's static block: its fields are private, so that no member of a structure can
// hide them.
let spaceOf: (object: StructObject) => ObjectSpace;
let addressOf: (object: StructObject) => bigint;
let traceOf: (object: StructObject) => Trace;

/**
 * A structure or union in guest memory. Every member is a property that reads the guest when it is
 * asked for:
 *
 * | C type | JavaScript |
 * |---|---|
 * | integer of at most 4 bytes, `float` | number |
 * | integer of 8 or 16 bytes | bigint |
 * | `_Bool` | boolean |
 * | enumeration | {@link EnumValue} |
 * | `char[n]` | string up to the first NUL, what is not printable escaped |
 * | structure, union | `StructObject` |
 * | pointer to a structure | `StructObject` it points to, or `null` |
 * | other pointer | {@link Pointer}, or `null` |
 * | other array | {@link ArrayObject} |
 *
 * A member that this kernel does not have is `undefined`; one that cannot be read throws a {@link
 * FaultError} that names the way there. What is not the kernel's begins with `$`, which no member's
 * name does.
 */
export class StructObject implements KernelStruct {
  readonly #space: ObjectSpace;
  readonly #address: bigint;
  readonly #trace: Trace;

  static {
    spaceOf = (object) => object.#space;
    addressOf = (object) => object.#address;
    traceOf = (object) => object.#trace;
  }

  // biome-ignore lint/suspicious/noExplicitAny: which members and types, only the guest tells
  readonly [member: string]: any;

  /** @internal */
  constructor(space: ObjectSpace, address: bigint, trace: Trace) {
    this.#space = space;
    this.#address = address;
    this.#trace = trace;
  }

  /** Virtual address. */
  get $address(): bigint {
    return this.#address;
  }

  /** The structure: its size and members. */
  get $struct(): StructType {
    return structOf(this);
  }

  /** C name of the type: `struct task_struct`. */
  get $type(): string {
    const struct = structOf(this);
    return aliases.get(struct) ?? spelled(struct);
  }

  /** Bytes: `sizeof`. */
  get $size(): number {
    return structOf(this).size;
  }

  /** How a program came here, as errors name it: `init_task.mm`. */
  get $path(): string {
    return this.#trace.toString();
  }

  /**
   * The place of a member, by path: its address, type, bytes and value. Also reaches members whose
   * name JavaScript uses.
   * @param path `comm`, `signal.group_leader` within nested structures, `numbers[0].nr`
   * @throws {VmiError} `VMI_TYPE` with names that come close
   */
  $member(path: string): Reference {
    const member = structOf(this).member(path);
    return new Reference(this.#space, {
      address: wrap(this.#address + BigInt(member.offset)),
      type: member.type,
      bits: bitField(member),
      parent: this.#trace,
      key: path,
    });
  }

  /** Whether this kernel's type has a member of this name or path. */
  $has(path: string): boolean {
    return structOf(this).findMember(path) !== undefined;
  }

  /**
   * What is at this address as another type: `page.$cast('struct slab')`.
   * @throws {VmiError} `VMI_TYPE`
   */
  // biome-ignore lint/suspicious/noExplicitAny: as any value
  $cast(type: string): any {
    return this.#at(this.#space.type(type), this.#address, this.#trace, `(${type})`);
  }

  /**
   * The value of a type at another address of the same memory: where a number holds a pointer.
   * @throws {VmiError} `VMI_TYPE`
   */
  // biome-ignore lint/suspicious/noExplicitAny: as any value
  $object(type: string, address: bigint): any {
    return this.#at(this.#space.type(type), address, this.#trace, `(${type})`);
  }

  /**
   * Follows members by name where none of the pointers between is ever NULL in a sane kernel:
   * `task.$follow('files.fdt')`.
   * @throws {CorruptError} a pointer is NULL
   * @throws {VmiError} `VMI_TYPE`: no such member
   */
  // biome-ignore lint/suspicious/noExplicitAny: as any value
  $follow(path: string): any {
    let at: unknown = this;
    for (const name of path.split('.')) {
      const from = at as StructObject;
      at = from[name];
      if (at === null) {
        throw new CorruptError(`${traceOf(from).to(name)} is NULL`, from.$address);
      }
      if (at === undefined) from.$member(name);
    }
    return at;
  }

  /**
   * The same type `count` elements further, as `pointer + count` is in C.
   * @throws {TypeError} `count` is no integer
   */
  $add(count: number | bigint): this {
    const address = wrap(this.#address + toCount(count) * BigInt(this.$size));
    const made = this.constructor as StructClass;
    return new made(this.#space, address, new Trace(this.#trace, Number(count))) as this;
  }

  /**
   * The structure that this one is a member of: `container_of(this, type, member)`.
   * @throws {VmiError} `VMI_TYPE`: no such type or member
   */
  // biome-ignore lint/suspicious/noExplicitAny: as any value
  $containerOf(type: string, member: string): any {
    const ref = this.#space.type(type);
    if (ref.kind !== 'struct' && ref.kind !== 'union') {
      throw new VmiError('VMI_TYPE', `${ref.name} is no structure, so it contains nothing`);
    }
    const address = wrap(this.#address - BigInt(ref.struct.member(member).offset));
    return this.#at(ref, address, this.#trace, `(${type})`) as StructObject;
  }

  /**
   * What a CPU has of this per-CPU structure: `per_cpu_ptr(this, cpu)`.
   * @throws {RangeError} no such CPU
   */
  $perCpu(cpu: number): this {
    const made = this.constructor as StructClass;
    const address = wrap(this.#address + this.#space.perCpuOffset(cpu));
    return new made(this.#space, address, new Trace(this.#trace, `cpu${cpu}`)) as this;
  }

  /**
   * The same structure, copied now: members of it no longer change. Pointers lead to the guest as
   * it is.
   */
  $snapshot(): this {
    const { size } = structOf(this);
    if (size > MAX_SNAPSHOT) {
      throw new VmiError('VMI_TYPE', `${this.$type} has ${size} bytes: more than a snapshot holds`);
    }
    const bytes = this.$bytes();
    const made = this.constructor as StructClass;
    const memory = new Overlay(this.#space.memory, this.#address, bytes);
    return new made(this.#space.over(memory), this.#address, this.#trace) as this;
  }

  /** A copy of its bytes. @throws {FaultError} */
  $bytes(): Buffer {
    this.#space.fresh();
    try {
      return this.#space.memory.read(this.#address, structOf(this).size);
    } catch (error) {
      throw withPath(error, undefined, this.$path);
    }
  }

  /**
   * Members as plain data, structures within it down to `depth`: bigints as strings, addresses in
   * hex, what cannot be read as `{ error }`.
   */
  toJSON(): unknown {
    return plain(this, 2);
  }

  /**
   * Its members as lines of text, one level deep. Reads no more than it shows; throws for no guest.
   * @throws {TypeError} @throws {RangeError} an option that there is not, or has no such value
   */
  $format(options: FormatOptions = {}): string[] {
    return formatStruct(this, this.#space, checkFormat(options));
  }

  /** All members where it is shown by itself; within something else, its type and address. */
  [inspect.custom](depth: number | null): string {
    // util.inspect starts at a depth of 2 and counts down.
    if (depth !== null && depth < 2) return `${this.$type} ${hex(this.#address)}`;
    return formatStruct(this, this.#space).join('\n');
  }

  #at(type: TypeRef, address: bigint, parent: Trace, key: string): unknown {
    this.#space.fresh();
    return this.#space.reader(type)(this.#space, address, parent, key);
  }
}

/** A class with an accessor for each member; made once a type. */
type StructClass = new (space: ObjectSpace, address: bigint, trace: Trace) => StructObject;

const classes = new WeakMap<StructType, StructClass>();
const structs = new WeakMap<object, StructType>();

function structOf(object: StructObject): StructType {
  return structs.get(object.constructor)!;
}

/** C names of structures that have none but by a typedef: `pgd_t`. */
const aliases = new WeakMap<StructType, string>();

/**
 * The class of a structure's objects.
 * @param name as the type was named that led here, for a structure that has no name of its own
 * @throws {CorruptError} types that contain themselves
 */
export function structClass(struct: StructType, name = ''): StructClass {
  if (struct.name === '' && /^\w+$/.test(name) && !aliases.has(struct)) aliases.set(struct, name);
  let made = classes.get(struct);
  if (made === undefined) {
    made = class extends StructObject {};
    Object.defineProperty(made, 'name', { value: struct.name || `unnamed ${struct.kind}` });
    for (const member of namedMembers(struct)) {
      if (RESERVED.has(member.name) || member.name.startsWith('$')) continue;
      Object.defineProperty(made.prototype, member.name, accessor(member));
    }
    structs.set(made, struct);
    classes.set(struct, made);
  }
  return made;
}

/**
 * Resolves how to read a member at its first use: a structure of hundreds is made for the few that
 * are asked for.
 */
function accessor(member: Member): PropertyDescriptor {
  const { name } = member;
  const offset = BigInt(member.offset);
  let read: ReturnType<ObjectSpace['reader']> | undefined;
  return {
    enumerable: true,
    configurable: true,
    get(this: StructObject): unknown {
      const space = spaceOf(this);
      space.fresh();
      read ??= space.reader(member.type, bitField(member));
      try {
        return read(space, BigInt.asUintN(64, addressOf(this) + offset), traceOf(this), name);
      } catch (error) {
        throw withPath(error, traceOf(this), name);
      }
    },
  };
}

function plain(object: StructObject, depth: number): unknown {
  const all: [string, unknown][] = [['$address', hex(object.$address)]];
  for (const { name, type } of namedMembers(object.$struct)) {
    let value: unknown;
    try {
      value = object.$member(name).value;
      if (typeof value === 'bigint') value = String(value);
      else if (value instanceof StructObject) {
        const shown = type.kind !== 'pointer' && depth > 1;
        value = shown ? plain(value, depth - 1) : hex(value.$address);
      }
    } catch (error) {
      if (!(error instanceof VmiError)) throw error;
      value = { error: error.message };
    }
    all.push([name, value]);
  }
  // Object.fromEntries defines properties: a member named __proto__ is one like any other.
  return Object.fromEntries(all);
}

/** What has an address in guest memory: an object, a task, an address itself. */
export type Place = AddressLike | StructObject | { readonly address: bigint };

/** The address of a place. @throws {TypeError} @throws {RangeError} none */
export function placeOf(place: Place): bigint {
  if (place instanceof StructObject) return place.$address;
  return toAddress(typeof place === 'object' && place !== null ? place.address : place);
}
