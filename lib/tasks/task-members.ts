import { MAX_ADDRESS, PAGE_MASK, PHYSICAL_MASK } from '../address.js';
import { VmiError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import { COMM_LENGTH, TEXT_ENTRY } from '../kernel/x86-64.js';
import { ListWalker } from '../memory/list-walker.js';
import {
  at,
  bytesFrom,
  type ColumnSpecs,
  type Expectation,
  from,
  memberOffset,
  NamedPlan,
} from '../memory/plan.js';
import type { Rows } from '../memory/rows.js';
import { PageTableTest } from './page-table.js';

/** `task_struct.flags`: a kernel thread. include/linux/sched.h, PF_KTHREAD. */
export const PF_KTHREAD = 0x0020_0000;
/** Most tasks a kernel can have. include/linux/threads.h, PID_MAX_LIMIT. */
const MAX_TASKS = 4_194_304;
/** Bytes of any `task_struct` at least, where its size is not known. */
const LEAST_TASK = 1024;
/** Lowest address with the top bit set: no pointer of the kernel is below. */
const TOP_HALF = 1n << 63n;
/** Times that rows of a running guest which could not be read are read again. */
const LOOKS = 3;

/**
 * Columns of a task row: what is kept of `task_struct`, and of what it points to. Pointers and
 * nanoseconds have eight bytes, the rest is as the kernel declares it.
 */
const COLUMNS = {
  pid: at('task_struct', 'pid', 4),
  tgid: at('task_struct', 'tgid', 4),
  flags: at('task_struct', 'flags', 4),
  // `state` became `__state`, and 4 bytes, in commit 2f064a59a11f (5.14).
  state: at('task_struct', '__state', 4),
  exitState: at('task_struct', 'exit_state', 4),
  startTime: at('task_struct', 'start_time'),
  comm: at('task_struct', 'comm', COMM_LENGTH),
  mm: at('task_struct', 'mm'),
  activeMm: at('task_struct', 'active_mm'),
  parent: at('task_struct', 'real_parent'),
  signal: at('task_struct', 'signal'),
  cred: at('task_struct', 'real_cred'),
  threadPid: at('task_struct', 'thread_pid'),
  pgd: from('mm', 'mm_struct', 'pgd'),
  textEntry: bytesFrom('pgd', Number(TEXT_ENTRY)),
  ppid: from('parent', 'task_struct', 'tgid', 4),
  uid: from('cred', 'cred', 'uid', 4),
  level: from('threadPid', 'pid', 'level', 4),
} as const;
export type TaskColumn = keyof typeof COLUMNS;
export type TaskRows = Rows<TaskColumn>;

const NAMES = Object.keys(COLUMNS) as TaskColumn[];

/** Bits of columns in a row's mask of faults, which are the same for every kernel. */
export function faultBits(...columns: readonly TaskColumn[]): number {
  return columns.reduce((mask, column) => mask | (1 << NAMES.indexOf(column)), 0);
}

/** Faults after which nobody can tell two tasks at one address apart. */
export const IDENTITY_FAULTS = faultBits('pid', 'startTime');
/**
 * Faults after which a row means nothing: an mm read as zero would be a task without one.
 */
export const ESSENTIAL_FAULTS = IDENTITY_FAULTS | faultBits('flags', 'mm', 'activeMm');

/**
 * Which members of which structures make a task row on this kernel. Members are looked up by name
 * in the guest's own types.
 */
export class TaskMembers {
  readonly kernel: Kernel;
  readonly pageTable: PageTableTest;
  readonly plan: NamedPlan<TaskColumn>;
  /** Walks the list of processes, `init_task.tasks`. */
  readonly processes: ListWalker<TaskColumn>;
  /** Walks lists of threads, `signal_struct.thread_head`. */
  readonly threads: ListWalker<TaskColumn>;
  /** Address of the head of the list of processes. */
  readonly processHead: bigint;
  /** Offsets of `task_struct.thread_node` and `signal_struct.thread_head`. */
  readonly threadNode: number;
  readonly threadHead: number;
  /** Most tasks and threads that this guest can hold. */
  readonly maxTasks: number;

  /** @throws {VmiError} `VMI_TYPE`: this kernel's types lack what a task row needs */
  constructor(kernel: Kernel) {
    const { types, memory } = kernel;
    this.kernel = kernel;
    this.pageTable = new PageTableTest(kernel);
    const modern = types.findOffset('task_struct', '__state') !== undefined;
    const columns: ColumnSpecs<TaskColumn> = modern
      ? COLUMNS
      : { ...COLUMNS, state: at('task_struct', 'state', 4) };
    this.plan = new NamedPlan(types, columns, expectations(kernel, this.pageTable));
    // A task_struct takes this much RAM, so RAM bounds how many there can be.
    const size = types.findSize('task_struct') ?? LEAST_TASK;
    if (size === 0) {
      throw new VmiError(
        'VMI_TYPE',
        "the kernel's types have a task_struct of 0 bytes: they are damaged; give a profile instead",
      );
    }
    const fit = memory.physical.size / BigInt(size);
    this.maxTasks = fit < BigInt(MAX_TASKS) ? Number(fit) : MAX_TASKS;
    const tasks = memberOffset(types, 'task_struct', 'tasks');
    this.processHead = kernel.symbols.address('init_task') + BigInt(tasks);
    this.threadNode = memberOffset(types, 'task_struct', 'thread_node');
    this.threadHead = memberOffset(types, 'signal_struct', 'thread_head');
    this.processes = new ListWalker(memory, this.plan, tasks, this.maxTasks);
    this.threads = new ListWalker(memory, this.plan, this.threadNode, this.maxTasks);
  }

  /** Gathers the rows of given `task_struct` addresses, once. */
  gather(tasks: BigUint64Array): TaskRows {
    return this.plan.gather(this.kernel.memory, tasks);
  }

  /** The same; of a running guest, rows that could not be read are read again. */
  gatherPatiently(tasks: BigUint64Array): TaskRows {
    const rows = this.gather(tasks);
    const { live } = this.kernel.memory.physical;
    for (let look = 1; look < LOOKS && live; look++) {
      const bad = [...rows.faults.keys()].filter((row) => rows.faults[row] !== 0);
      if (bad.length === 0) break;
      const again = this.gather(BigUint64Array.from(bad, (row) => tasks[row]!));
      for (const [i, row] of bad.entries()) rows.copyRow(row, again, i);
    }
    return rows;
  }
}

/**
 * What nearly every row has, so that native code names those that do not: an address space of its
 * own (a page-aligned PGD in the direct map, whose entry for the kernel's text is the kernel's
 * own), a parent, credentials, and no PID but the one.
 */
function expectations(kernel: Kernel, { entry }: PageTableTest): Expectation<TaskColumn>[] {
  const pointer = { mask: MAX_ADDRESS, min: TOP_HALF, max: MAX_ADDRESS };
  const last = kernel.pageOffset + kernel.memory.physical.end - 1n;
  const inDirectMap = {
    mask: MAX_ADDRESS,
    min: kernel.pageOffset,
    max: last < MAX_ADDRESS ? last : MAX_ADDRESS,
  };
  return [
    // A task without an mm has a PGD of 0.
    { column: 'pgd', ...(kernel.p2m === undefined ? inDirectMap : pointer) },
    { column: 'pgd', mask: PAGE_MASK, min: 0n, max: 0n },
    { column: 'textEntry', mask: PHYSICAL_MASK, min: entry, max: entry },
    { column: 'parent', ...pointer },
    { column: 'cred', ...pointer },
    { column: 'level', mask: MAX_ADDRESS, min: 0n, max: 0n },
  ];
}
