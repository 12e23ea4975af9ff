import { wrap } from '../address.js';
import { CorruptError, hex } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import { isXaNode, XA_NODE, xaChunkShift, xaNodeAt } from '../kernel/types/xarray.js';
import { TEXT_ENTRY } from '../kernel/x86-64.js';
import {
  around,
  at,
  bytesFrom,
  type Finder,
  from,
  memberOffset,
  NamedPlan,
} from '../memory/plan.js';
import { PF_KTHREAD, type TaskMembers } from './task-members.js';

/** include/linux/xarray.h: XA_RETRY_ENTRY. */
const RETRY_ENTRY = (256n << 2n) | BigInt(XA_NODE.tag);
/** Times a tree that changes under the look-up is started again. */
const MAX_RETRIES = 16;
/** Times that a `struct pid` of a running guest is read until it can be read. */
const LOOKS = 3;

/** xa_is_internal, and the tags of values: none of it is a pointer. */
function isTagged(entry: bigint): boolean {
  return (entry & BigInt(XA_NODE.tagMask)) !== 0n;
}

/** The columns from a `struct pid` by its first task to that task's page table. */
type AnswerColumn = 'first' | 'pid' | 'flags' | 'mm' | 'activeMm' | 'pgd' | 'textEntry';

/**
 * The kernel's own PID look-up: `init_pid_ns.idr` → `struct pid` → `tasks[PIDTYPE_PID]`
 * (kernel/pid.c, find_pid_ns and pid_task). Finds leaders and threads alike.
 */
export class PidTree {
  readonly #members: TaskMembers;
  readonly #kernel: Kernel;
  /** As `AddressSpace.lookUp` takes it. types/addon.d.ts. */
  readonly #tree: Int32Array;
  readonly #head: bigint;
  readonly #shift: bigint;
  readonly #slots: bigint;
  /** Bits of an index that one `xa_node` takes: 6, or 4 with CONFIG_BASE_SMALL. */
  readonly #chunkShift: number;
  readonly #pidLinks: bigint;
  readonly #pidTasks: bigint;
  readonly #firstTask: NamedPlan<'first'>;
  readonly #answerPlan: NamedPlan<AnswerColumn>;
  #answers: Answers | undefined;

  /** @throws {VmiError} `VMI_TYPE`, `VMI_SYMBOL` */
  constructor(members: TaskMembers) {
    const { kernel } = members;
    const { types } = kernel;
    this.#members = members;
    this.#kernel = kernel;
    const shift = memberOffset(types, 'xa_node', 'shift');
    const slots = memberOffset(types, 'xa_node', 'slots');
    this.#chunkShift = xaChunkShift(types);
    this.#tree = Int32Array.of(
      XA_NODE.tag,
      XA_NODE.tagMask,
      XA_NODE.maxInternal,
      shift,
      slots,
      this.#chunkShift,
      XA_NODE.maxShift,
    );
    this.#shift = BigInt(shift);
    this.#slots = BigInt(slots);
    const head =
      memberOffset(types, 'pid_namespace', 'idr') +
      memberOffset(types, 'idr', 'idr_rt') +
      memberOffset(types, 'xarray', 'xa_head');
    this.#head = wrap(kernel.symbols.address('init_pid_ns') + BigInt(head));
    this.#pidLinks = BigInt(memberOffset(types, 'task_struct', 'pid_links'));
    this.#pidTasks = BigInt(memberOffset(types, 'pid', 'tasks'));
    this.#firstTask = new NamedPlan(types, { first: at('pid', 'tasks') });
    const ofTask = (member: string, size?: number) =>
      around('first', 'task_struct', 'pid_links', member, size);
    this.#answerPlan = new NamedPlan<AnswerColumn>(types, {
      first: at('pid', 'tasks'),
      pid: ofTask('pid', 4),
      flags: ofTask('flags', 4),
      mm: ofTask('mm'),
      activeMm: ofTask('active_mm'),
      pgd: from('mm', 'mm_struct', 'pgd'),
      textEntry: bytesFrom('pgd', Number(TEXT_ENTRY)),
    });
  }

  /**
   * The task of a PID or TID.
   * @returns address of the `task_struct`, `undefined` when no task has this PID
   * @throws {CorruptError} the tree is none
   */
  find(pid: number): bigint | undefined {
    const structPid = this.#structPid(pid);
    if (structPid === undefined) return undefined;
    // A struct pid that outlives its task (it still names a session or a group) has no task here.
    // That the task found is the one asked for, the task's own pid tells.
    const first = this.#kernel.memory.readU64(wrap(structPid + this.#pidTasks));
    return first === 0n ? undefined : wrap(first - this.#pidLinks);
  }

  #structPid(pid: number): bigint | undefined {
    for (let attempt = 0; attempt < MAX_RETRIES; attempt++) {
      const entry = this.#kernel.memory.lookUp(this.#tree, this.#head, pid);
      if (entry === 0n) return undefined;
      if (!isTagged(entry)) return entry;
      if (entry !== RETRY_ENTRY)
        throw new CorruptError(`the PID tree holds ${hex(entry)} for PID ${pid}`, this.#head);
    }
    throw new CorruptError(`the PID tree kept changing while PID ${pid} was looked up`, this.#head);
  }

  /**
   * The task of every PID in the tree, in the order of the tree.
   * @param broken told of each part of the tree that is none, which is then passed over
   * @throws {CorruptError} the tree is none, or holds more than the guest can
   */
  all(broken?: (error: unknown) => void): bigint[] {
    const pids = BigUint64Array.from(this.#entries(broken));
    const { memory } = this.#kernel;
    let rows = this.#firstTask.gather(memory, pids);
    for (let look = 1; look < LOOKS && memory.physical.live; look++) {
      if (!rows.faulty) break;
      rows = this.#firstTask.gather(memory, pids);
    }
    const tasks: bigint[] = [];
    for (const [i, first] of rows.longs('first').entries()) {
      if (rows.faults[i] !== 0) {
        const error = new CorruptError(
          `the struct pid at ${hex(pids[i]!)} cannot be read`,
          pids[i]!,
          i,
        );
        if (broken === undefined) throw error;
        broken(error);
      } else if (first !== 0n) tasks.push(wrap(first - this.#pidLinks));
    }
    return tasks;
  }

  /** Every `struct pid` in the tree. */
  #entries(broken?: (error: unknown) => void): bigint[] {
    const { memory } = this.#kernel;
    const { maxTasks } = this.#members;
    const pids: bigint[] = [];
    // No node has two parents. Without this, a few nodes that lead to each other make a tree
    // without end.
    const seen = new Set<bigint>();
    const visit = (entry: bigint, above: number): void => {
      if (!isXaNode(entry)) {
        if (entry !== 0n && !isTagged(entry)) pids.push(entry);
        return;
      }
      const node = xaNodeAt(entry);
      const shift = memory.readU32(wrap(node + this.#shift)) & 0xff;
      if (shift >= above || shift % this.#chunkShift !== 0) {
        const why = `a node of the PID tree has the shift ${shift} below ${above}`;
        throw new CorruptError(why, node, pids.length);
      }
      if (seen.has(node))
        throw new CorruptError('the PID tree leads to a node twice', node, pids.length);
      seen.add(node);
      const slots = memory.read(wrap(node + this.#slots), 8 << this.#chunkShift);
      for (let at = 0; at < slots.length; at += 8) tryVisit(slots.readBigUInt64LE(at), shift);
      if (pids.length > maxTasks) {
        const why = `the PID tree holds more than ${maxTasks} entries`;
        throw new CorruptError(why, node, pids.length);
      }
    };
    const tryVisit = (entry: bigint, above: number): void => {
      if (broken === undefined) {
        visit(entry, above);
        return;
      }
      try {
        visit(entry, above);
      } catch (error) {
        broken(error);
      }
    };
    tryVisit(memory.readU64(this.#head), XA_NODE.maxShift + this.#chunkShift);
    return pids;
  }

  /**
   * PGD of the task with this PID or TID, checked. An operation of its own.
   * @returns `null` for a kernel thread that has borrowed no address space, `undefined` where it
   * takes more to tell, and where there is no such task
   * @throws {CorruptError | FaultError} the PID tree is none
   */
  pgd(pid: number): bigint | null | undefined {
    this.#answers ??= new Answers(
      this.#answerPlan.finder(this.#kernel.memory, this.#tree, this.#head),
    );
    const { finder, words, longs, at } = this.#answers;
    if (!finder.find(pid) || words[FAULTS] !== 0 || words[at.pid] !== pid) return undefined;
    if ((words[at.mm]! | words[at.mm + 1]!) === 0) {
      const borrows = (words[at.activeMm]! | words[at.activeMm + 1]!) !== 0;
      return borrows || (words[at.flags]! & PF_KTHREAD) === 0 ? undefined : null;
    }
    const { pageTable } = this.#members;
    const entry = at.textEntry;
    const isSound = pageTable.passes(words[at.pgd]!, words[entry]!, words[entry + 1]!);
    return isSound ? longs[at.pgd / 2] : undefined;
  }
}

/** Where the row's mask of faults is in {@link Answers.words}. */
const FAULTS = 0;

/**
 * The row of an answer, as words and as longs. To make a view of a column costs more than the
 * look-up does, and to use a view for each column costs a sixtieth of it.
 */
class Answers {
  readonly finder: Finder<AnswerColumn>;
  readonly words: Uint32Array;
  readonly longs: BigUint64Array;
  /** The word that each column begins with. */
  readonly at: Readonly<Record<AnswerColumn, number>>;

  constructor(finder: Finder<AnswerColumn>) {
    const { buffer, layout } = finder.row;
    this.finder = finder;
    this.words = new Uint32Array(buffer);
    this.longs = new BigUint64Array(buffer);
    const starts = layout.starts(1);
    const at = layout.names.map((name, k) => [name, starts[k]! / 4]);
    this.at = Object.fromEntries(at) as Record<AnswerColumn, number>;
  }
}
