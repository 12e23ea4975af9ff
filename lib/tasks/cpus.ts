import { wrap } from '../address.js';
import { CorruptError, FaultError, hex, type VmiError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import { TEXT_ENTRY } from '../kernel/x86-64.js';
import { at, bytesAt, bytesFrom, from, NamedPlan } from '../memory/plan.js';
import type { TaskMembers, TaskRows } from './task-members.js';

/** What one CPU of the guest runs, read from the guest's memory. */
export interface Cpu {
  readonly cpu: number;
  /** Address of the running `task_struct`. */
  readonly current: bigint;
  /** Address of the `mm_struct` whose page table is loaded; 0 where it is not known. */
  readonly loadedMm: bigint;
  /** Virtual address of that page table; 0 where it is not known. */
  readonly loadedPgd: bigint;
  /**
   * Whether the CPU was on its way from one task or address space to the next in every look: then
   * nothing says that the task and the page table belong together.
   */
  readonly switching: boolean;
  /** Why the page table is not known although the CPU is not switching. */
  readonly error: VmiError | undefined;
}

/** The CPUs, and the row of each one's task, gathered while it ran there. */
export interface CpuLook {
  readonly cpus: readonly Cpu[];
  readonly rows: TaskRows;
}

/**
 * `cpu_tlbstate.loaded_mm` in the middle of a switch. arch/x86/include/asm/tlbflush.h,
 * LOADED_MM_SWITCHING.
 */
const LOADED_MM_SWITCHING = 1n;
/** Looks at a CPU of a running guest until what is read of it belongs together. */
const LOOKS = 16;

/** What one look at some CPUs brought, by their place in the look. */
interface Glance {
  readonly current: BigUint64Array;
  readonly loadedMm: BigUint64Array;
  readonly loadedPgd: BigUint64Array;
  readonly rows: TaskRows;
  /** Whether task, row and page table are those of one moment. */
  readonly agrees: readonly boolean[];
  /** Whether the CPU's own variables could be read. */
  readonly readable: readonly boolean[];
  /** Whether what it has loaded is a page table. */
  readonly sound: readonly boolean[];
}

/**
 * Reads what the CPUs run. A context switch writes the run queue's count of switches, its task, the
 * loaded address space and the current task, in this order (kernel/sched/core.c: __schedule,
 * context_switch; arch/x86/kernel/process_64.c: __switch_to). Here the count is read before and
 * after all else, and the queue's task last: where neither differs, no switch was in progress, and
 * the task has no other task's page table.
 */
export class CpuReader {
  readonly #members: TaskMembers;
  readonly #kernel: Kernel;
  readonly #pointer: NamedPlan<'value'>;
  readonly #currentAt: bigint;
  readonly #loadedAt: bigint;
  readonly #loaded: NamedPlan<'mm' | 'pgd' | 'textEntry'>;
  readonly #queueAt: bigint | undefined;
  readonly #queue: NamedPlan<'switches' | 'current'> | undefined;

  /** @throws {VmiError} `VMI_SYMBOL` or `VMI_TYPE` when this kernel names them in no known way */
  constructor(members: TaskMembers) {
    const { kernel } = members;
    const { symbols, types } = kernel;
    this.#members = members;
    this.#kernel = kernel;
    this.#pointer = new NamedPlan(types, { value: bytesAt(0) });
    this.#currentAt = currentTask(kernel);
    const offset = types.findOffset('tlb_state', 'loaded_mm') ?? 0;
    this.#loadedAt = symbols.address('cpu_tlbstate') + BigInt(offset);
    this.#loaded = new NamedPlan(types, {
      mm: bytesAt(0),
      pgd: from('mm', 'mm_struct', 'pgd'),
      textEntry: bytesFrom('pgd', Number(TEXT_ENTRY)),
    });
    // A profile in place of the kernel's own types may lack the run queue.
    this.#queueAt = symbols.find('runqueues');
    const known = ['nr_switches', 'curr'].every(
      (member) => types.findOffset('rq', member) !== undefined,
    );
    if (this.#queueAt !== undefined && known) {
      this.#queue = new NamedPlan(types, {
        switches: at('rq', 'nr_switches'),
        current: at('rq', 'curr'),
      });
    }
  }

  /**
   * Looks at every CPU that is online, at those of a running guest until task and page table belong
   * together.
   * @throws {FaultError} what a CPU runs cannot be read
   */
  read(): CpuLook {
    const kernel = this.#kernel;
    const { live } = kernel.memory.physical;
    const numbers = kernel.onlineCpus();
    const offsets = BigUint64Array.from(numbers, (cpu) => kernel.perCpuOffset(cpu));
    const cpus: (Cpu | undefined)[] = [];
    let rows: TaskRows | undefined;
    let open = numbers.map((_, i) => i);
    for (let look = 0; look < (live ? LOOKS : 1) && open.length > 0; look++) {
      const glance = this.#glance(BigUint64Array.from(open, (i) => offsets[i]!));
      rows ??= glance.rows;
      for (const [k, i] of open.entries()) {
        cpus[i] = toCpu(numbers[i]!, glance, k, !live);
        rows.copyRow(i, glance.rows, k);
      }
      open = open.filter((_, k) => !(glance.agrees[k] && glance.sound[k]));
    }
    return this.#withoutOffline({ numbers, offsets, cpus, rows: rows ?? this.#rowsOf([]) });
  }

  /** Leaves out CPUs that cannot be read because they were brought down meanwhile. */
  #withoutOffline(look: {
    numbers: readonly number[];
    offsets: BigUint64Array;
    cpus: readonly (Cpu | undefined)[];
    rows: TaskRows;
  }): CpuLook {
    const { numbers, offsets, cpus, rows } = look;
    const read = cpus.filter((cpu) => cpu !== undefined);
    if (read.length === numbers.length) return { cpus: read, rows };
    const online = new Set(this.#kernel.onlineCpus());
    const lost = numbers.findIndex((cpu, i) => cpus[i] === undefined && online.has(cpu));
    if (lost < 0) return { cpus: read, rows: this.#rowsOf(read) };
    throw new FaultError({
      address: wrap(this.#currentAt + offsets[lost]!),
      space: 'virtual',
      cr3: this.#kernel.root,
      requested: 8,
      transferred: 0,
      level: 0,
    });
  }

  #rowsOf(cpus: readonly Cpu[]): TaskRows {
    return this.#members.gather(BigUint64Array.from(cpus, ({ current }) => current));
  }

  /** Reads in the order that {@link CpuReader} tells of, each variable of all CPUs at once. */
  #glance(offsets: BigUint64Array): Glance {
    const { memory } = this.#kernel;
    const { pageTable } = this.#members;
    const on = (symbol: bigint) => offsets.map((offset) => wrap(symbol + offset));
    const queueAt = on(this.#queueAt ?? 0n);
    const before = this.#queue?.gather(memory, queueAt);
    const currents = this.#pointer.gather(memory, on(this.#currentAt));
    const loaded = this.#loaded.gather(memory, on(this.#loadedAt));
    const rows = this.#members.gather(currents.longs('value'));
    const loadedAgain = this.#pointer.gather(memory, on(this.#loadedAt));
    const currentsAgain = this.#pointer.gather(memory, on(this.#currentAt));
    const after = this.#queue?.gather(memory, queueAt);

    const current = currents.longs('value');
    const mm = loaded.longs('mm');
    const own = rows.longs('mm');
    const agrees = (i: number) => {
      if (mm[i]! <= LOADED_MM_SWITCHING || loadedAgain.longs('value')[i] !== mm[i]) return false;
      if (currentsAgain.longs('value')[i] !== current[i]) return false;
      // A task that executes a program has the new address space before its CPU does, and no switch
      // is counted. fs/exec.c, exec_mmap.
      if (own[i] !== 0n && own[i] !== mm[i]) return false;
      // Before the scheduler is set up, the queue has no task.
      const queued = after?.longs('current')[i] ?? 0n;
      if (before === undefined || after === undefined || queued === 0n) return true;
      return before.longs('switches')[i] === after.longs('switches')[i] && queued === current[i];
    };
    const mmFault = 1 << loaded.layout.index.mm;
    const variables = [before, currents, loadedAgain, currentsAgain, after];
    const places = [...offsets.keys()];
    return {
      current,
      loadedMm: mm,
      loadedPgd: loaded.longs('pgd'),
      rows,
      agrees: places.map(agrees),
      readable: places.map(
        (i) =>
          (loaded.faults[i]! & mmFault) === 0 &&
          variables.every((one) => one === undefined || one.faults[i] === 0),
      ),
      sound: places.map(
        (i) =>
          loaded.faults[i] === 0 &&
          pageTable.accepts(loaded.longs('pgd')[i]!, loaded.longs('textEntry')[i]!),
      ),
    };
  }
}

/**
 * @param still the guest stands still: what a CPU has loaded is known even where it is not the
 * task's
 * @returns `undefined` where the CPU's variables could not be read
 */
function toCpu(cpu: number, glance: Glance, i: number, still: boolean): Cpu | undefined {
  if (!glance.readable[i]) return undefined;
  const mm = glance.loadedMm[i]!;
  const switching = !glance.agrees[i];
  const unknown = { cpu, current: glance.current[i]!, loadedMm: 0n, loadedPgd: 0n, switching };
  if (mm <= LOADED_MM_SWITCHING || (switching && !still)) return { ...unknown, error: undefined };
  if (glance.sound[i])
    return { ...unknown, loadedMm: mm, loadedPgd: glance.loadedPgd[i]!, error: undefined };
  const error = new CorruptError(
    `CPU ${cpu} has an address space loaded (mm ${hex(mm)}) whose page table cannot be read or does not map the kernel's text`,
    mm,
  );
  return { ...unknown, error };
}

/**
 * `current_task` was moved into `pcpu_hot` in commit e57ef2ed97c1 (6.2) and out of it again after
 * 6.14.
 */
function currentTask(kernel: Kernel): bigint {
  const hot = kernel.symbols.find('pcpu_hot');
  if (hot === undefined) return kernel.symbols.address('current_task');
  return hot + BigInt(kernel.types.offset('pcpu_hot', 'current_task'));
}
