import { wrap } from '../address.js';
import { CorruptError, FaultError, hex } from '../errors.js';
import { memberOffset } from '../memory/plan.js';
import { faultBits, type TaskMembers, type TaskRows } from './task-members.js';
import type { TaskReaders } from './task-readers.js';
import { walkThreads } from './threads.js';

/** A place where the lists of a copied memory do not fit together. */
export interface Misfit {
  /** Virtual address of the structure. */
  readonly address: bigint;
  readonly why: string;
}

/** Misfits that are kept; a copy that is all misfits says so with these. */
const MAX_MISFITS = 1_000;
const NEXT = 0n;
const PREVIOUS = 8n;
/** Faults of members without which a row says nothing that could be checked. */
const CHECKED_FAULTS = faultBits('pid', 'tgid', 'startTime', 'threadPid');

/** What could be shown of the tasks of a memory whose lists do not close. */
export interface Salvage {
  readonly rows: TaskRows;
  readonly misfits: readonly Misfit[];
}

/** A view of the tasks that is not whole. */
export type TornView = 'list' | 'threads' | 'pids' | 'cpu';

/** The tasks that each list of such a memory leads to, and which of the lists are not whole. */
export interface SalvagedViews {
  readonly list: readonly bigint[];
  readonly pids: readonly bigint[];
  readonly threads: readonly bigint[];
  readonly torn: readonly TornView[];
  readonly misfits: readonly Misfit[];
}

/**
 * Finds the tasks of an image that was copied while its guest ran, or that was cut short: its pages
 * are of different moments, so a list breaks where a task came or went meanwhile. The list of
 * processes is followed forward and backward from `init_task` as far as it goes, and the PID tree
 * as far as it is one. What they lead to counts where it proves to be a task: its `struct pid` has
 * its number, and names it as the task of that number. All else is a misfit.
 */
export function salvage(readers: TaskReaders, threads: boolean): Salvage {
  const finder = new Salvager(readers);
  return finder.find(threads);
}

/** The same for each view by itself; `others` gives what CPUs run. */
export function salvageViews(
  readers: TaskReaders,
  others: (misfit: (error: unknown, address: bigint) => void) => readonly bigint[],
): SalvagedViews {
  return new Salvager(readers).views(others);
}

class Salvager {
  readonly #readers: TaskReaders;
  readonly #members: TaskMembers;
  readonly #misfits: Misfit[] = [];
  readonly #link: bigint;

  constructor(readers: TaskReaders) {
    const { types } = readers.kernel;
    this.#readers = readers;
    this.#members = readers.members;
    this.#link = BigInt(memberOffset(types, 'task_struct', 'tasks'));
  }

  find(threads: boolean): Salvage {
    const tasks = this.#proven(new Set([...this.#list(), ...this.#pids()]));
    const leaders = tasks.filter(({ leader }) => leader).map(({ address }) => address);
    const wanted = threads
      ? this.#withThreads(
          leaders,
          tasks.map(({ address }) => address),
        )
      : leaders;
    const rows = this.#members.gather(BigUint64Array.from(wanted));
    return { rows, misfits: this.#misfits };
  }

  views(
    others: (misfit: (error: unknown, address: bigint) => void) => readonly bigint[],
  ): SalvagedViews {
    const torn: TornView[] = [];
    const looked = <T>(view: TornView, look: () => T): T => {
      const before = this.#misfits.length;
      const found = look();
      if (this.#misfits.length > before || before === MAX_MISFITS) torn.push(view);
      return found;
    };
    const list = looked('list', () => this.#proven(this.#list()));
    const pids = looked('pids', () => this.#proven(this.#pids()));
    const more = looked('cpu', () => others((error, address) => this.#failed(error, address)));
    const known = new Set([...list, ...pids].map(({ address }) => address));
    for (const { address } of this.#proven(more, true)) known.add(address);
    const threads = looked('threads', () => this.#threadsOf([...known]));
    const addresses = (all: readonly { address: bigint }[]) => all.map(({ address }) => address);
    return { list: addresses(list), pids: addresses(pids), threads, torn, misfits: this.#misfits };
  }

  /** Tasks of the list of processes, from both ends. */
  #list(): Set<bigint> {
    const found = new Set<bigint>();
    for (const direction of [NEXT, PREVIOUS]) {
      for (const node of this.#follow(direction)) found.add(wrap(node - this.#link));
    }
    return found;
  }

  #pids(): bigint[] {
    return this.#readers.pidTree.all((error) => this.#failed(error, this.#members.processHead));
  }

  /** Nodes of the list of processes, as far as it can be read in one direction. */
  #follow(direction: bigint): bigint[] {
    const { memory } = this.#readers.kernel;
    const head = this.#members.processHead;
    const back = direction === NEXT ? PREVIOUS : NEXT;
    const seen = new Set<bigint>();
    try {
      for (let at = head; seen.size <= this.#members.maxTasks; ) {
        const next = memory.readU64(wrap(at + direction));
        const from =
          next === head || seen.has(next) ? undefined : memory.readU64(wrap(next + back));
        if (next === head) break;
        if (from === undefined) {
          this.#add(next, 'the list of processes leads to it twice');
          break;
        }
        if (from !== at)
          this.#add(next, `its neighbour in the list of processes is ${hex(from)}, not ${hex(at)}`);
        seen.add(next);
        at = next;
      }
    } catch (error) {
      this.#failed(error, head);
    }
    return [...seen];
  }

  /**
   * The tasks among some addresses, ascending by PID.
   * @param quiet whether what is none is no misfit: a CPU's idle task has no PID
   */
  #proven(
    addresses: Iterable<bigint>,
    quiet = false,
  ): { address: bigint; pid: number; leader: boolean }[] {
    const all = BigUint64Array.from(addresses);
    const rows = this.#members.gather(all);
    const pids = rows.words('pid');
    const tasks: { address: bigint; pid: number; leader: boolean }[] = [];
    for (const [row, address] of all.entries()) {
      const why =
        (rows.faults[row]! & CHECKED_FAULTS) !== 0
          ? 'it cannot be read'
          : this.#disproof(address, pids[row]!, rows.longs('threadPid')[row]!);
      if (why !== undefined && !quiet) this.#add(address, why);
      if (why === undefined)
        tasks.push({ address, pid: pids[row]!, leader: pids[row] === rows.words('tgid')[row] });
    }
    return tasks.sort((a, b) => a.pid - b.pid);
  }

  /** Why an address is no task with this PID; `undefined`: it is. */
  #disproof(task: bigint, pid: number, threadPid: bigint): string | undefined {
    const { kernel } = this.#readers;
    const { types, memory } = kernel;
    const at = (member: string) => BigInt(memberOffset(types, 'pid', member));
    try {
      const number = memory.readU32(
        wrap(threadPid + at('numbers') + BigInt(memberOffset(types, 'upid', 'nr'))),
      );
      if (number !== pid) return `it has the PID ${pid}, and its struct pid ${number}`;
      const first = memory.readU64(wrap(threadPid + at('tasks')));
      const links = BigInt(memberOffset(types, 'task_struct', 'pid_links'));
      if (first === wrap(task + links)) return undefined;
      return `the struct pid of PID ${pid} names another task`;
    } catch (error) {
      if (error instanceof FaultError) return `the struct pid of PID ${pid} cannot be read`;
      throw error;
    }
  }

  /** Every task, and the threads of each process that its own list leads to. */
  #withThreads(leaders: readonly bigint[], tasks: readonly bigint[]): bigint[] {
    const found = new Set<bigint>([...tasks, ...this.#threadsOf(leaders)]);
    return this.#proven(found).map(({ address }) => address);
  }

  /** The threads of the processes that some tasks belong to. */
  #threadsOf(tasks: readonly bigint[]): bigint[] {
    const found = new Set<bigint>();
    const rows = this.#members.gather(BigUint64Array.from(tasks));
    const seen = new Set<bigint>();
    for (const [row, address] of tasks.entries()) {
      const signal = rows.longs('signal')[row]!;
      if (seen.has(signal)) continue;
      seen.add(signal);
      try {
        const threads = walkThreads(this.#members, {
          tasks: BigUint64Array.of(address),
          signals: rows.longs('signal').slice(row, row + 1),
          tgids: rows.words('tgid').slice(row, row + 1),
        });
        for (const { address: thread } of this.#proven(threads.rows.bases)) found.add(thread);
      } catch (error) {
        this.#failed(error, address);
      }
    }
    return [...found];
  }

  #failed(error: unknown, address: bigint): void {
    if (error instanceof CorruptError) this.#add(error.address, error.message);
    else if (error instanceof FaultError) this.#add(address, error.message);
    else throw error;
  }

  #add(address: bigint, why: string): void {
    if (this.#misfits.length >= MAX_MISFITS) return;
    if (!this.#misfits.some((known) => known.address === address && known.why === why))
      this.#misfits.push({ address, why });
  }
}
