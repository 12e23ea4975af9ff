import { VmiError } from '../../errors.js';
import { KernelCpus } from '../cpus.js';
import { NoTypes } from '../types/none.js';
import { Struct } from '../types/struct.js';
import { BaseTypes, bareName, type Member, type StructType, type TypeRef } from '../types/table.js';
import { COMM_LENGTH } from '../x86-64.js';
import { inferLayout } from './infer.js';
import type { Inferable, Inference } from './inference.js';
import type { MemberName } from './members.js';

/** `struct upid`: a number, and the namespace that it is one in. include/linux/pid.h. */
const UPID_SIZE = 16;
/** Bytes of members that are no pointer. */
const SIZES: Readonly<Partial<Record<MemberName, number>>> = {
  'task_struct.tasks': 16,
  'task_struct.comm': COMM_LENGTH,
  'task_struct.pid': 4,
  'task_struct.tgid': 4,
  'task_struct.flags': 4,
  'task_struct.__state': 4,
  'task_struct.exit_state': 4,
  'task_struct.thread_node': 16,
  'task_struct.pid_links': 64,
  'signal_struct.thread_head': 16,
  'cred.uid': 4,
  'pid.level': 4,
  'pid.numbers': UPID_SIZE,
  'pid.tasks': 32,
  'upid.nr': 4,
  'xa_node.shift': 1,
  'cpuinfo_x86.x86_capability': 80,
};

/**
 * Types of a kernel without BTF: the members by which tasks are read, where the guest's own tasks
 * show them to be. Nothing else is known; sizes of structures are not.
 */
export class InferredTypes extends BaseTypes {
  readonly source = 'inferred';
  readonly inference: Inference;
  readonly #structs: ReadonlyMap<string, StructType>;

  /** @throws {VmiError} `VMI_ATTACH`: the guest's tasks are not found */
  constructor(from: Omit<Inferable, 'cpus'>) {
    super();
    const { memory, symbols } = from;
    const cpus = new KernelCpus({ memory, symbols, types: new NoTypes() });
    this.inference = inferLayout({ memory, symbols, cpus });
    if (this.inference.tasks.length === 0) {
      throw new VmiError(
        'VMI_ATTACH',
        'the kernel has no BTF (CONFIG_DEBUG_INFO_BTF), and no list of tasks is found by which ' +
          'their layout could be inferred: give a profile with types',
      );
    }
    this.#structs = structsOf(this.inference);
  }

  /** Whether several places come into question for a member, or none does as things are now. */
  isUndecided(name: string): boolean {
    return this.inference.undecided.has(name as MemberName);
  }

  find(name: string): StructType | undefined {
    return this.#structs.get(bareName(name));
  }

  findSize(name: string): number | undefined {
    return bareName(name) === 'upid' && this.find('upid') !== undefined ? UPID_SIZE : undefined;
  }

  names(): Iterable<string> {
    return this.#structs.keys();
  }

  override offset(struct: string, path: string): number {
    const found = this.findOffset(struct, path);
    if (found !== undefined) return found;
    const name = `${bareName(struct)}.${path}`;
    const places = this.inference.undecided.get(name as MemberName);
    const why =
      places === undefined
        ? 'only the members by which tasks are read are inferred'
        : places.length === 0
          ? 'nothing in the guest has the values that it must have'
          : `it may be at ${places.slice(0, 8).join(', ')}`;
    throw new VmiError(
      'VMI_TYPE',
      `the kernel has no BTF, and where ${name} is could not be inferred: ${why}; ` +
        'give a profile with types (a Volatility 3 symbol file)',
    );
  }
}

function structsOf(inference: Inference): Map<string, StructType> {
  const members = new Map<string, Member[]>();
  for (const [name, offset] of inference.offsets) {
    const [struct, member] = name.split('.') as [string, string];
    const type = typeOf(name, inference);
    const all = members.get(struct) ?? [];
    all.push({ name: member, offset, bitOffset: offset * 8, size: type.size, type });
    members.set(struct, all);
  }
  const structs = new Map<string, StructType>();
  for (const [name, all] of members) {
    all.sort((a, b) => a.offset - b.offset);
    structs.set(name, new Struct(name, 'struct', 0, () => all));
  }
  return structs;
}

function typeOf(name: MemberName, { chunkShift }: Inference): TypeRef {
  const pointer = plain('void *', 8);
  if (name === 'xa_node.slots') {
    const count = 1 << chunkShift;
    return { kind: 'array', name: `void *[${count}]`, size: 8 * count, count, element: pointer };
  }
  const size = SIZES[name];
  return size === undefined ? pointer : plain(`unsigned char[${size}]`, size);
}

function plain(name: string, size: number): TypeRef {
  return { kind: 'int', name, size, signed: false, encoding: 'int' };
}
