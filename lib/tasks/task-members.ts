import type { NativeFinder, Plan } from '../../types/addon.js';
import { addon } from '../addon.js';
import { MAX_ADDRESS, PAGE_MASK, PHYSICAL_MASK, wrap } from '../address.js';
import { VmiError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import { xaChunkShift } from '../kernel/types/xarray.js';
import { COLUMNS, COMM_LENGTH, type Column, rowsLength, TaskRows } from './rows.js';

/** `task_struct.flags`: a kernel thread. include/linux/sched.h, PF_KTHREAD. */
export const PF_KTHREAD = 0x0020_0000;
/** Deepest PID namespace. include/linux/pid_namespace.h, MAX_PID_NS_LEVEL. */
export const MAX_PID_NS_LEVEL = 32;
/** Most tasks a kernel can have. include/linux/threads.h, PID_MAX_LIMIT. */
export const MAX_TASKS = 4_194_304;
/**
 * Byte offset, in a top-level table, of the entry that maps the kernel's text at 0xffffffff80000000: entry 511 of
 * the PML4 and of the PML5 alike. Documentation/arch/x86/x86_64/mm.rst.
 */
const TEXT_ENTRY = 511 * 8;
/** `struct upid` has 16 bytes; so many for each of {@link MAX_PID_NS_LEVEL} levels and the first is what a column of a plan can hold. */
const MAX_UPID = 124;

/** `struct xarray` for `AddressSpace.lookUp`, but for the offsets. include/linux/xarray.h: xa_is_node, xa_to_node. */
export const XA_NODE = {
  tag: 2,
  tagMask: 3,
  maxInternal: 4096,
  maxShift: 60,
} as const;
/** Lowest address of the kernel's half. Documentation/arch/x86/x86_64/mm.rst. */
const KERNEL_HALF = 1n << 63n;
/** Rows that are sooner looked at, all of them, than handed over. */
const FEW = 16;
const EVERY_ROW = Uint32Array.from({ length: FEW }, (_, row) => row);
/** What {@link NativeFinder.find} returns where it has filled the row. */
const FOUND_ROW = 1;

/** Farthest member that native calls take; real ones are within some KiB. */
const MAX_OFFSET = 1 << 20;

/** @throws {VmiError} `VMI_TYPE` */
function checked(type: string, member: string, offset: number): number {
  if (offset <= MAX_OFFSET) return offset;
  throw new VmiError(
    'VMI_TYPE',
    `the kernel's types have ${type}.${member} at ${offset}: they are damaged; give a profile instead`,
  );
}

/** What {@link TaskLayout.lists} found. */
export interface FoundRows {
  readonly rows: TaskRows;
  /** Rows that came from each head. */
  readonly counts: Uint32Array;
  /** Times a list changed under the walk and was followed again. */
  readonly retries: number;
}

interface ColumnSpec {
  readonly from: Column | undefined;
  readonly offset: number;
  readonly size: number;
}

/**
 * Which members of which structures make a task row on this kernel, compiled for the native gather.
 * Members are looked up by name in the guest's own types; the first name that exists is taken.
 */
export class TaskLayout {
  readonly plan: Plan;
  /** Offset of `task_struct.tasks`, the links of the list of processes. */
  readonly tasks: number;
  /** Offset of `task_struct.thread_node`, the links of a process's list of threads. */
  readonly threadNode: number;
  /** Offset of `signal_struct.thread_head`. */
  readonly threadHead: number;
  /** Offset of `task_struct.pid_links`, and of `struct pid.tasks`. */
  readonly pidLinks: number;
  readonly pidTasks: number;
  /** `struct upid`: its size, and the offset of `nr`. */
  readonly upidSize: number;
  readonly upidNr: number;
  /** Offset of `struct pid.numbers`. */
  readonly pidNumbers: number;
  /** `struct pid_namespace`: offset of the head of the PID tree; `struct xa_node`: its members. */
  readonly xaHead: number;
  readonly xaShift: number;
  readonly xaSlots: number;
  /** Bits of an index that one `xa_node` takes: 6, or 4 with CONFIG_BASE_SMALL. */
  readonly xaChunkShift: number;
  /** The PID tree as `AddressSpace.lookUp` takes it, and the address of its root. */
  readonly pidTree: Int32Array;
  readonly pidTreeHead: bigint;
  /** Most tasks and threads that this guest can hold. */
  readonly maxTasks: number;
  #firstTaskPlan: Plan | undefined;
  readonly #signal: number;
  #threadLinksPlan: Plan | undefined;
  readonly #answerPlan: Plan;
  #answers: Answers | undefined;
  readonly #entryWords: Uint32Array;
  readonly #numbersPlans: (Plan | undefined)[] = [];
  #unexpected = new Uint32Array(0);
  /** The kernel's own top-level entry for its text; every true page table has the same one. */
  readonly textEntry: bigint;
  readonly #sizes: readonly number[];
  readonly #spacePlan: Plan;

  constructor(kernel: Kernel) {
    const { types } = kernel;
    const offset = (type: string, member: string) =>
      checked(type, member, types.offset(type, member));
    const task = (member: string) => offset('task_struct', member);
    // task_struct.state became __state, and 4 bytes, in commit 2f064a59a11f (5.14).
    const modernState = types.findOffset('task_struct', '__state');
    const specs: Record<Column, ColumnSpec> = {
      pid: { from: undefined, offset: task('pid'), size: 4 },
      tgid: { from: undefined, offset: task('tgid'), size: 4 },
      flags: { from: undefined, offset: task('flags'), size: 4 },
      state: {
        from: undefined,
        offset: modernState === undefined ? task('state') : task('__state'),
        size: 4,
      },
      exitState: { from: undefined, offset: task('exit_state'), size: 4 },
      startTime: { from: undefined, offset: task('start_time'), size: 8 },
      comm: { from: undefined, offset: task('comm'), size: COMM_LENGTH },
      mm: { from: undefined, offset: task('mm'), size: 8 },
      activeMm: { from: undefined, offset: task('active_mm'), size: 8 },
      parent: { from: undefined, offset: task('real_parent'), size: 8 },
      signal: { from: undefined, offset: task('signal'), size: 8 },
      cred: { from: undefined, offset: task('real_cred'), size: 8 },
      threadPid: { from: undefined, offset: task('thread_pid'), size: 8 },
      pgd: { from: 'mm', offset: offset('mm_struct', 'pgd'), size: 8 },
      textEntry: { from: 'pgd', offset: TEXT_ENTRY, size: 8 },
      ppid: { from: 'parent', offset: task('tgid'), size: 4 },
      uid: { from: 'cred', offset: offset('cred', 'uid'), size: 4 },
      level: { from: 'threadPid', offset: offset('pid', 'level'), size: 4 },
    };
    this.textEntry = kernel.memory.physical.readU64(kernel.cr3 + BigInt(TEXT_ENTRY));
    const { Plan } = addon();
    this.plan = new Plan(
      Int32Array.from(
        COLUMNS.flatMap((name) => {
          const { from, offset, size } = specs[name];
          return [from === undefined ? -1 : COLUMNS.indexOf(from), offset, size];
        }),
      ),
      this.#expectations(kernel),
    );
    const pgd = offset('mm_struct', 'pgd');
    this.#spacePlan = new Plan(Int32Array.of(-1, pgd, 8, 0, TEXT_ENTRY, 8));
    this.#sizes = COLUMNS.map((name) => specs[name].size);
    this.tasks = task('tasks');
    this.threadNode = task('thread_node');
    this.threadHead = offset('signal_struct', 'thread_head');
    this.#signal = task('signal');
    this.pidLinks = task('pid_links');
    this.pidTasks = offset('pid', 'tasks');
    this.pidNumbers = offset('pid', 'numbers');
    this.upidSize = types.size('upid');
    this.upidNr = offset('upid', 'nr');
    // Read out of columns of whole `struct upid`s here, not by native code that checks for itself.
    if (this.upidNr + 4 > this.upidSize || this.upidSize > MAX_UPID) {
      throw new VmiError(
        'VMI_TYPE',
        `the kernel's types have a struct upid of ${this.upidSize} bytes with nr at ${this.upidNr}: they are damaged; give a profile instead`,
      );
    }
    this.xaHead =
      offset('pid_namespace', 'idr') + offset('idr', 'idr_rt') + offset('xarray', 'xa_head');
    this.xaShift = offset('xa_node', 'shift');
    this.xaSlots = offset('xa_node', 'slots');
    this.xaChunkShift = xaChunkShift(types);
    const { tag, tagMask, maxInternal, maxShift } = XA_NODE;
    this.pidTree = Int32Array.of(
      tag,
      tagMask,
      maxInternal,
      this.xaShift,
      this.xaSlots,
      this.xaChunkShift,
      maxShift,
    );
    this.pidTreeHead = wrap(kernel.symbols.address('init_pid_ns') + BigInt(this.xaHead));
    // From a `struct pid` by its first task to that task's page table.
    const member = (name: string) => task(name) - this.pidLinks;
    this.#answerPlan = new Plan(
      Int32Array.of(
        ...[-1, this.pidTasks, 8],
        ...[0, member('pid'), 4],
        ...[0, member('flags'), 4],
        ...[0, member('mm'), 8],
        ...[0, member('active_mm'), 8],
        ...[3, pgd, 8],
        ...[5, TEXT_ENTRY, 8],
      ),
    );
    this.#entryWords = new Uint32Array(BigUint64Array.of(this.textEntry & PHYSICAL_MASK).buffer);
    // A task_struct takes this much RAM, so RAM bounds how many there can be.
    const taskSize = types.size('task_struct');
    if (taskSize === 0) {
      throw new VmiError(
        'VMI_TYPE',
        "the kernel's types have a task_struct of 0 bytes: they are damaged; give a profile instead",
      );
    }
    const fit = kernel.memory.physical.size / BigInt(taskSize);
    this.maxTasks = fit < BigInt(MAX_TASKS) ? Number(fit) : MAX_TASKS;
  }

  /** Bytes that the rows of so many tasks take. */
  roomLength(count: number): number {
    return rowsLength(count, this.#sizes);
  }

  /** Room for the rows of so many tasks. */
  room(count: number): ArrayBuffer {
    // Not cleared, as what native code makes would be.
    return Buffer.allocUnsafeSlow(this.roomLength(count)).buffer as ArrayBuffer;
  }

  /**
   * The rows of the tasks that lists hold.
   * @param room where they go if they fit
   */
  lists(kernel: Kernel, heads: BigUint64Array, link: number, room?: ArrayBuffer): FoundRows {
    const into = room === undefined ? undefined : new Uint8Array(room);
    const found = kernel.memory.lists(this.plan, heads, link, this.maxTasks, into);
    const { buffer = room!, count, capacity, counts, retries } = found;
    return { rows: new TaskRows(buffer, count, this.#sizes, capacity), counts, retries };
  }

  /**
   * What nearly every row has, so that native code names those that do not: an address space of its own (a page-aligned PGD in the
   * direct map, whose entry for the kernel's text is the kernel's own), a parent, credentials, and no PID but the one.
   */
  #expectations(kernel: Kernel): BigUint64Array {
    const pointer = [MAX_ADDRESS, KERNEL_HALF, MAX_ADDRESS] as const;
    const last = kernel.pageOffset + kernel.memory.physical.end - 1n;
    const inDirectMap =
      kernel.p2m === undefined
        ? [MAX_ADDRESS, kernel.pageOffset, last < MAX_ADDRESS ? last : MAX_ADDRESS]
        : pointer;
    const entry = this.textEntry & PHYSICAL_MASK;
    const expected: [Column, ...bigint[]][] = [
      // A task without an mm has a PGD of 0.
      ['pgd', ...inDirectMap],
      ['pgd', PAGE_MASK, 0n, 0n],
      ['textEntry', PHYSICAL_MASK, entry, entry],
      ['parent', ...pointer],
      ['cred', ...pointer],
      ['level', MAX_ADDRESS, 0n, 0n],
    ];
    return BigUint64Array.from(
      expected.flatMap(([column, ...numbers]) => [BigInt(COLUMNS.indexOf(column)), ...numbers]),
    );
  }

  /**
   * Rows that take more than their own columns to settle, or have something that cannot be read; ascending. All others have an
   * address space of their own, at the physical address `pgd - pageOffset` unless the guest is a PV guest of Xen.
   */
  unexpected(rows: TaskRows): Uint32Array {
    const { count, capacity, buffer } = rows;
    if (count < FEW) return EVERY_ROW.slice(0, count);
    if (this.#unexpected.length < count) this.#unexpected = new Uint32Array(count + (count >> 2));
    const found = this.plan.unexpected(new Uint8Array(buffer), capacity, count, this.#unexpected);
    return this.#unexpected.slice(0, found);
  }

  /**
   * PGD of each `mm_struct`, checked: page-aligned, readable, and its entry for the kernel's text is the kernel's own.
   * @returns 0 where it is none
   */
  pgds(kernel: Kernel, mms: BigUint64Array): BigUint64Array {
    const count = mms.length;
    const start = ((4 * count + 7) & ~7) + 8 * count;
    const bytes = new Uint8Array(start + 16 * count);
    kernel.memory.gather(this.#spacePlan, mms, bytes);
    const faults = new Uint32Array(bytes.buffer, 0, count);
    const pgds = new BigUint64Array(bytes.buffer, start, count);
    const entries = new BigUint64Array(bytes.buffer, start + 8 * count, count);
    return pgds.map((pgd, i) => {
      const same = ((entries[i]! ^ this.textEntry) & PHYSICAL_MASK) === 0n;
      return faults[i] === 0 && (pgd & PAGE_MASK) === 0n && same ? pgd : 0n;
    });
  }

  /** The plan that reads `struct upid numbers[0 … level]` of a `struct pid` as one column. */
  numbersPlan(level: number): Plan {
    let plan = this.#numbersPlans[level];
    if (plan === undefined) {
      plan = new (addon().Plan)(Int32Array.of(-1, this.pidNumbers, this.upidSize * (level + 1)));
      this.#numbersPlans[level] = plan;
    }
    return plan;
  }

  /** Whether each task is all that the list of threads of its `signal_struct` holds; no where it cannot be read. */
  areAlone(kernel: Kernel, tasks: BigUint64Array, signals: BigUint64Array): boolean[] {
    const count = tasks.length;
    const start = ((4 * count + 7) & ~7) + 8 * count;
    const bytes = new Uint8Array(start + 40 * count);
    this.#threadLinksPlan ??= new (addon().Plan)(
      Int32Array.of(-1, this.#signal, 8, 0, this.threadHead, 16, -1, this.threadNode, 16),
    );
    kernel.memory.gather(this.#threadLinksPlan, tasks, bytes);
    const faults = new Uint32Array(bytes.buffer, 0, count);
    const longs = new BigUint64Array(bytes.buffer, start);
    const alone: boolean[] = [];
    for (let i = 0; i < count; i++) {
      const head = wrap(signals[i]! + BigInt(this.threadHead));
      const node = wrap(tasks[i]! + BigInt(this.threadNode));
      // `next` and `prev` of the head, then of the node.
      const toNode = count + 2 * i;
      const toHead = 3 * count + 2 * i;
      alone.push(
        faults[i] === 0 &&
          longs[i] === signals[i] &&
          longs[toNode] === node &&
          longs[toNode + 1] === node &&
          longs[toHead] === head &&
          longs[toHead + 1] === head,
      );
    }
    return alone;
  }

  /** `tasks[PIDTYPE_PID].first` of each `struct pid`; 0 where it is NULL or cannot be read. */
  firstTasks(kernel: Kernel, pids: BigUint64Array): BigUint64Array {
    const count = pids.length;
    const start = ((4 * count + 7) & ~7) + 8 * count;
    const bytes = new Uint8Array(start + 8 * count);
    this.#firstTaskPlan ??= new (addon().Plan)(Int32Array.of(-1, this.pidTasks, 8));
    kernel.memory.gather(this.#firstTaskPlan, pids, bytes);
    return new BigUint64Array(bytes.buffer, start, count);
  }

  /** Gathers rows for given `task_struct` addresses. */
  gather(kernel: Kernel, bases: BigUint64Array): TaskRows {
    const bytes = new Uint8Array(rowsLength(bases.length, this.#sizes));
    kernel.memory.gather(this.plan, bases, bytes);
    return new TaskRows(bytes.buffer, bases.length, this.#sizes);
  }

  /**
   * PGD of the task with this PID or TID, checked as by {@link pgds}. An operation of its own.
   * @returns `null` for a kernel thread that has borrowed no address space, `undefined` where it takes more to tell, and where there
   * is no such task
   * @throws {CorruptError | FaultError} the PID tree is none
   */
  pgdOfPid(kernel: Kernel, pid: number): bigint | null | undefined {
    this.#answers ??= new Answers(
      kernel.memory.finder(this.pidTree, this.pidTreeHead, this.#answerPlan),
    );
    const { find, words, longs } = this.#answers;
    if (find(pid) !== FOUND_ROW) return undefined;
    const entry = this.#entryWords;
    // Row: 0 faults, 2 base, 4 first task, 6 pid, 8 flags, 10 mm, 12 active_mm, 14 pgd, 16 text entry.
    if (words[0] !== 0 || words[6] !== pid) return undefined;
    if ((words[10]! | words[11]!) === 0) {
      const none = (words[12]! | words[13]!) === 0 && (words[8]! & PF_KTHREAD) !== 0;
      return none ? null : undefined;
    }
    const same =
      ((words[16]! ^ entry[0]!) & 0xffff_f000) === 0 &&
      ((words[17]! ^ entry[1]!) & 0x000f_ffff) === 0;
    return same && (words[14]! & 0xfff) === 0 ? longs[7]! : undefined;
  }
}

/** The row of an answer, as words and as longs. */
class Answers {
  readonly find: (index: number) => number;
  readonly words: Uint32Array;
  readonly longs: BigUint64Array;

  constructor({ find, row }: NativeFinder) {
    this.find = find;
    this.words = new Uint32Array(row);
    this.longs = new BigUint64Array(row);
  }
}
