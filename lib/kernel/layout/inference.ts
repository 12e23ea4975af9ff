import { wrap } from '../../address.js';
import type { VirtualMemory } from '../../memory/virtual-memory.js';
import type { KernelCpus } from '../cpus.js';
import type { SymbolTable } from '../symbols/table.js';
import { GuestWords, isPointer } from './guest-words.js';
import type { MemberName } from './members.js';
import { PageDirectories } from './page-directories.js';
import type { SampledTask } from './task-sample.js';
import type { SampledThread } from './thread-sample.js';

/** Bytes of a `task_struct` that are searched: real ones end sooner, but for their FPU state. */
export const TASK_LENGTH = 8192;
/** Tasks that are searched. */
export const TASKS = 256;

/** What an inference is made from: memory, symbols, and where each CPU's variables are. */
export interface Inferable {
  readonly memory: VirtualMemory;
  readonly symbols: SymbolTable;
  readonly cpus: KernelCpus;
}

/** Why a member is where it is taken to be. */
export type Certainty =
  /** Nothing else in the structure has the values that it must have. */
  | 'proven'
  /** Two have, side by side, and the kernel's source declares this one first. */
  | 'by order'
  /** Several have, and of these the code of a function that reads the member names this one. */
  | 'by code';

/**
 * What has been found out so far of a kernel's structures, from nothing but the tasks that are
 * there. Each step adds the members that it can tell; those that it cannot are named with the
 * places that come into question, and are never guessed.
 */
export class Inference {
  readonly from: Inferable;
  readonly words: GuestWords;
  readonly directories: PageDirectories;
  readonly initTask: bigint;
  readonly offsets = new Map<MemberName, number>();
  readonly certainty = new Map<MemberName, Certainty>();
  readonly undecided = new Map<MemberName, readonly number[]>();
  /** init_task, then the others as they were made. */
  tasks: readonly SampledTask[] = [];
  threads: readonly SampledThread[] = [];
  /** Address of `init_pid_ns`. */
  pidNamespace = 0n;
  /** Bits of an index that a node of the PID tree takes. */
  chunkShift = 6;

  constructor(from: Inferable) {
    this.from = from;
    this.words = new GuestWords(from.memory);
    this.directories = new PageDirectories(this.words);
    this.initTask = from.symbols.address('init_task');
  }

  /** All tasks but init_task. */
  get others(): readonly SampledTask[] {
    return this.tasks.slice(1);
  }

  /** Takes a member to be at a place. */
  place(name: MemberName, offset: number, certainty: Certainty = 'proven'): void {
    this.offsets.set(name, offset);
    this.certainty.set(name, certainty);
  }

  /** Places a member where only one place comes into question, and names the places otherwise. */
  settle(name: MemberName, places: readonly number[]): void {
    if (places.length === 1) this.place(name, places[0]!);
    else this.undecided.set(name, places);
  }

  /**
   * Places the first of two members that differ only at times, where both lie side by side as they
   * are declared. A kernel that shuffles its structures leaves them apart, and then nothing tells.
   */
  settleFirst(name: MemberName, places: readonly number[], size = 8): void {
    if (places.length === 2 && places[1]! - places[0]! === size && !this.shuffled) {
      this.place(name, places[0]!, 'by order');
    } else this.undecided.set(name, places);
  }

  /**
   * Whether the kernel shuffled its structures (CONFIG_RANDSTRUCT): members that it declares side
   * by side lie apart. Then the order in which two are declared says nothing.
   */
  get shuffled(): boolean {
    const apart = (first: MemberName, second: MemberName, size: number) => {
      const [one, two] = [this.offset(first), this.offset(second)];
      return one !== undefined && two !== undefined && two - one !== size;
    };
    return (
      apart('task_struct.pid', 'task_struct.tgid', 4) ||
      apart('task_struct.thread_pid', 'task_struct.pid_links', 8)
    );
  }

  /** Where a member was placed. */
  offset(name: MemberName): number | undefined {
    return this.offsets.get(name);
  }

  /** Offsets in `task_struct`, multiples of `step`, at which nearly all of some tasks fit. */
  search(
    tasks: readonly SampledTask[],
    step: 4 | 8,
    fits: (task: SampledTask, offset: number) => boolean,
  ): number[] {
    const found: number[] = [];
    for (let offset = 0; offset + 8 <= TASK_LENGTH; offset += step) {
      if (nearly(tasks, (task) => fits(task, offset))) found.push(offset);
    }
    return found;
  }

  /** Offsets of pointers that are set in all tasks but init_task and differ from task to task. */
  ownPointers(): number[] {
    return this.search(this.others.slice(0, 16), 8, (task, at) => isPointer(task.u64(at))).filter(
      (at) => new Set(this.others.map((task) => task.u64(at))).size >= this.others.length * 0.9,
    );
  }

  /** Whether an address lies in one of the tasks. */
  isInTask(address: bigint): boolean {
    const length = BigInt(this.offset('task_struct.comm') ?? 0);
    const within = (task: SampledTask) => wrap(address - task.address) < length;
    return this.tasks.some(within);
  }

  /**
   * Whether an address in a task is that of another object's link to it, in bytes from its base.
   */
  distance(task: SampledTask, link: bigint | undefined): number | undefined {
    if (link === undefined) return undefined;
    const distance = wrap(link - task.address);
    return distance > 0n && distance < BigInt(TASK_LENGTH) ? Number(distance) : undefined;
  }
}

/** Whether at most one in sixteen does not fit: a guest that runs, or lies, is odd in places. */
export function nearly<T>(items: readonly T[], fits: (item: T, index: number) => boolean): boolean {
  let odd = items.length >> 4;
  for (const [index, item] of items.entries()) if (!fits(item, index) && --odd < 0) return false;
  return items.length > 0;
}

/** The value that all items have; `undefined` where they differ. */
export function common<T, V>(items: readonly T[], of: (item: T) => V | undefined): V | undefined {
  const first = items.length === 0 ? undefined : of(items[0]!);
  return first !== undefined && nearly(items, (item) => of(item) === first) ? first : undefined;
}
