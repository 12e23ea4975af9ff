import { wrap } from '../address.js';
import { FaultError, hex, VmiError } from '../errors.js';
import { escapeBytes } from '../escape.js';
import type { Kernel } from '../kernel/kernel.js';
import { isXaNode, xaChunkShift, xaNodeAt } from '../kernel/types/xarray.js';
import type { WalkResult, WalkStep } from '../memory/virtual-memory.js';
import type { Cr3Source } from '../tasks/cr3.js';
import type { Task } from '../tasks/task.js';

/** One look at the guest on the way from a PID to CR3. */
export interface ExplainStep {
  /** What was read, as C writes it: `mm->pgd`. */
  readonly what: string;
  /** Where; a virtual address, `undefined` where nothing was read. */
  readonly address: bigint | undefined;
  /** The bytes there. */
  readonly bytes: Uint8Array;
  /** What they are. */
  readonly value: bigint | number | string | null;
  /** What follows from it. */
  readonly meaning: string;
  /**
   * The line of this API that does the same; `ns`, `pid`, `task`, `mm` are those of the lines
   * before.
   */
  readonly code: string;
  /** Every level of the page walk, where the step is one. */
  readonly walk?: WalkResult;
}

/** How the answer to a PID comes about. Made by `guest.explain(pid)`. */
export interface Explanation {
  readonly pid: number;
  readonly steps: readonly ExplainStep[];
  /** What CR3 holds; `null` for a task without; `undefined` when a step failed. */
  readonly cr3: bigint | null | undefined;
  readonly source: Cr3Source | undefined;
  /** Why the last step failed. */
  readonly error: VmiError | undefined;
}

/** A tree of 64 bits of index is no deeper, with 6 bits a node. */
const MAX_DEPTH = 11;

/**
 * Goes from a PID to CR3 step by step as the kernel would: PID tree, `struct pid`, `task_struct`,
 * `mm_struct`, page global directory, page walk.
 * @param find the task by the look-up that everything else uses, for what only it knows
 */
export function explain(
  kernel: Kernel,
  pid: number,
  find: (pid: number) => Task | undefined,
): Explanation {
  const steps: ExplainStep[] = [];
  const way = new Way(kernel, pid, steps);
  try {
    kernel.memory.begin();
    const task = way.task();
    const { cr3, source } = way.cr3(task, find(pid));
    return { pid, steps, cr3, source, error: undefined };
  } catch (error) {
    if (!(error instanceof VmiError)) throw error;
    return { pid, steps, cr3: undefined, source: undefined, error };
  }
}

type Said = Pick<ExplainStep, 'meaning' | 'code'>;

/** A structure of the guest: the name of its type, and where it is. */
interface Place {
  readonly struct: string;
  readonly address: bigint;
}

/** Bytes of a member, and how they are read. */
type Form = 'pointer' | 'number' | 'text';
const SIZE = { pointer: 8, number: 4, text: 16 } as const;

/** Needs offsets alone, which are remembered of a kernel: its whole types are megabytes to read. */
class Way {
  readonly #kernel: Kernel;
  readonly #pid: number;
  readonly #steps: ExplainStep[];

  constructor(kernel: Kernel, pid: number, steps: ExplainStep[]) {
    this.#kernel = kernel;
    this.#pid = pid;
    this.#steps = steps;
  }

  /** kernel/pid.c: find_pid_ns, pid_task. */
  task(): Place {
    const { symbols, types } = this.#kernel;
    const namespace = { struct: 'pid_namespace', address: symbols.address('init_pid_ns') };
    this.#add('init_pid_ns', undefined, namespace.address, {
      meaning: 'the PID namespace that PIDs are counted in, by its symbol',
      code: "const ns = guest.variable('init_pid_ns')",
    });
    const pid = { struct: 'pid', address: this.#entry(namespace) };
    const first = this.#pointer(pid, 'tasks[0].first', 'pid->tasks[PIDTYPE_PID].first', {
      meaning: 'the task_struct.pid_links[PIDTYPE_PID] of the task with this PID',
      code: "const task = pid.tasks[0].first.$containerOf('struct task_struct', 'pid_links')",
    });
    if (first === 0n) throw noTask(this.#pid, 'its struct pid names a group or session only');
    const links = BigInt(types.offset('task_struct', 'pid_links'));
    const task = { struct: 'task_struct', address: wrap(first - links) };
    const found = this.#member(task, 'pid', 'task->pid', 'number', {
      meaning: `the task_struct at ${hex(task.address)} is the one asked for`,
      code: 'task.pid',
    }).readInt32LE();
    if (found !== this.#pid) {
      throw new VmiError('VMI_CORRUPT', `the task found for PID ${this.#pid} has the PID ${found}`);
    }
    this.#member(task, 'comm', 'task->comm', 'text', {
      meaning: 'what the task calls itself',
      code: 'task.comm',
    });
    return task;
  }

  /** The entry of the PID tree. lib/xarray.c, xas_load. */
  #entry(namespace: Place): bigint {
    const pid = this.#pid;
    const { types } = this.#kernel;
    const code = `const pid = guest.object('struct pid', [...idr(ns.idr)].find(({ index }) => index === ${pid}n).pointer)`;
    let entry = this.#pointer(namespace, 'idr.idr_rt.xa_head', 'ns->idr.idr_rt.xa_head', {
      meaning: 'the root of the PID tree, an XArray',
      code: 'ns.idr.idr_rt.xa_head',
    });
    const count = 1 << xaChunkShift(types);
    for (let depth = 0; isXaNode(entry); depth++) {
      if (depth > MAX_DEPTH) throw new VmiError('VMI_CORRUPT', 'the PID tree never ends');
      const node = { struct: 'xa_node', address: wrap(xaNodeAt(entry)) };
      const shift = this.#read(node, 'shift', 1).bytes[0]!;
      // What a whole tree of this height cannot index is not in it.
      const beyond = depth === 0 && Math.floor(pid / 2 ** shift) >= count;
      if (beyond) throw noTask(pid, 'the PID tree ends below it');
      const index = Math.floor(pid / 2 ** shift) % count;
      const { address, bytes } = this.#read(node, 'slots', 8, index * 8);
      entry = bytes.readBigUInt64LE();
      const next = isXaNode(entry);
      this.#add(`node->slots[${index}]`, bytes, entry, {
        address,
        meaning: next
          ? `the node below, by bits ${shift} and up of the PID`
          : 'the struct pid of this number',
        code: next ? '// idr() goes down the tree' : code,
      });
    }
    if (entry === 0n) throw noTask(pid, 'its place in the PID tree is empty');
    return entry;
  }

  cr3(task: Place, known: Task | undefined) {
    const mm = this.#pointer(task, 'mm', 'task->mm', {
      meaning: 'the address space of the task; NULL for a kernel thread and a task that exited',
      code: 'const mm = task.mm',
    });
    if (mm !== 0n) return { cr3: this.#translated(mm), source: 'mm' as const };
    const active = this.#pointer(task, 'active_mm', 'task->active_mm', {
      meaning: 'the address space it borrows while it is on a CPU; NULL off the CPU',
      code: 'const mm = task.active_mm',
    });
    // Which of the rules for a task without an address space holds, all of the listing decides.
    const source = known?.cr3Source ?? 'none';
    const other = known?.cr3 ?? null;
    if (source === 'active_mm' && active !== 0n) return { cr3: this.#translated(active), source };
    this.#add('no address space of its own', undefined, other, {
      meaning: why(source),
      code: `guest.task(${this.#pid}).cr3Source`,
    });
    return { cr3: other, source };
  }

  #translated(mm: bigint): bigint {
    const place = { struct: 'mm_struct', address: mm };
    const pgd = this.#pointer(place, 'pgd', 'mm->pgd', {
      meaning: 'where the kernel sees the page global directory',
      code: 'const pgd = mm.pgd.$address',
    });
    if (pgd === 0n) throw new VmiError('VMI_CORRUPT', 'mm->pgd is NULL');
    const walk = this.#kernel.memory.walk(pgd);
    this.#add('virt_to_phys(pgd)', undefined, walk.physical ?? null, {
      address: pgd,
      meaning: "its physical address, by the kernel's own page table: what CR3 holds",
      code: 'guest.kernel.memory.translate(pgd)',
      walk,
    });
    if (walk.physical === undefined) throw notMapped(walk);
    return walk.physical;
  }

  #pointer(place: Place, path: string, what: string, said: Said): bigint {
    return this.#member(place, path, what, 'pointer', said).readBigUInt64LE();
  }

  /** Reads a member and notes it. */
  #member(place: Place, path: string, what: string, form: Form, said: Said): Buffer {
    const { address, bytes } = this.#read(place, path, SIZE[form]);
    const end = bytes.indexOf(0);
    const value =
      form === 'pointer'
        ? bytes.readBigUInt64LE()
        : form === 'number'
          ? bytes.readInt32LE()
          : escapeBytes(end < 0 ? bytes : bytes.subarray(0, end));
    this.#add(what, bytes, value, { address, ...said });
    return bytes;
  }

  /** @throws {FaultError} that names the member */
  #read(place: Place, path: string, length: number, skip = 0): { address: bigint; bytes: Buffer } {
    const { memory, types } = this.#kernel;
    const address = wrap(place.address + BigInt(types.offset(place.struct, path) + skip));
    try {
      return { address, bytes: memory.read(address, length) };
    } catch (error) {
      if (!(error instanceof FaultError)) throw error;
      throw new FaultError({ ...error, path: `struct ${place.struct}.${path}` }, { cause: error });
    }
  }

  #add(
    what: string,
    bytes: Uint8Array | undefined,
    value: ExplainStep['value'],
    rest: Pick<ExplainStep, 'meaning' | 'code'> & {
      readonly address?: bigint;
      readonly walk?: WalkResult;
    },
  ): void {
    this.#steps.push({
      what,
      bytes: bytes ?? new Uint8Array(),
      value,
      ...rest,
      address: rest.address,
    });
  }
}

function why(source: Cr3Source): string {
  switch (source) {
    case 'loaded_mm':
      return 'its CPU has another address space loaded, which is what CR3 holds: cpu_tlbstate.loaded_mm';
    case 'thread':
      return 'it has exited, but threads of its process live: this is theirs';
    case 'exited':
      return 'it has exited and will not run again: it has no CR3';
    default:
      return 'it is a kernel thread off the CPU: it will run on whatever is loaded when it wakes';
  }
}

function noTask(pid: number, because: string): VmiError {
  return new VmiError('VMI_NO_TASK', `there is no task with PID ${pid}: ${because}`);
}

function notMapped(walk: WalkResult): FaultError {
  const last: WalkStep | undefined = walk.steps.at(-1);
  const levels = ['ram', 'pt', 'pd', 'pdpt', 'pml4', 'pml5'];
  return new FaultError({
    address: walk.address,
    space: 'virtual',
    cr3: walk.root,
    requested: 8,
    transferred: 0,
    level: last === undefined || last.present ? 0 : levels.indexOf(last.level),
  });
}
