import type { VirtualMemory } from '../../memory/virtual-memory.js';
import type { KernelCpus } from '../cpus.js';
import type { SymbolTable } from '../symbols/table.js';
import type { TypeTable } from '../types/table.js';
import { GuestWords } from './guest-words.js';
import { type MemberName, type Offsets, offsetsOf, TASK_MEMBERS } from './members.js';
import { PageDirectories } from './page-directories.js';
import { type SampledTask, sampleTasks } from './task-sample.js';

/** Tasks that a check looks at: half of them the oldest, half the newest. */
const SAMPLE = 24;
/** The same for what few tasks show. */
const MANY = 1024;
/** No structure that is read is larger: what lies beyond is no offset of a member. */
const MAX_OFFSET = 1 << 16;

/** `task_struct.flags`. include/linux/sched.h. */
export const PF_EXITING = 0x4;
export const PF_KTHREAD = 0x0020_0000;

/** The kernel whose layout is checked. */
export interface Checked {
  readonly memory: VirtualMemory;
  readonly symbols: SymbolTable;
  readonly types: TypeTable;
  readonly cpus: KernelCpus;
}

/** Why some members cannot be where they are said to be. */
export interface Doubt {
  readonly members: readonly MemberName[];
  readonly why: string;
}

/** Offsets, and the tasks of the guest that they are held against. */
export class LayoutCase {
  readonly words: GuestWords;
  readonly checked: Checked;
  readonly offsets: Offsets;
  /** init_task, then the oldest tasks, then the newest. */
  readonly tasks: readonly SampledTask[];
  /**
   * Whether what the tasks do not decide counts as wrong. Nobody vouches for a file that a user
   * gives; a kernel does for its own BTF.
   */
  readonly strict: boolean;
  readonly directories: PageDirectories;
  #many: readonly SampledTask[] | undefined;

  constructor(checked: Checked, strict: boolean, offsets = offsetsOf(checked.types)) {
    const { memory } = checked;
    this.checked = checked;
    this.strict = strict;
    this.words = new GuestWords(memory);
    this.offsets = offsets;
    this.directories = new PageDirectories(this.words);
    this.tasks = this.#sample(SAMPLE);
  }

  /** Many more tasks, for what few of them show. */
  get many(): readonly SampledTask[] {
    this.#many ??= this.#sample(MANY);
    return this.#many;
  }

  /** Where a member is said to be; `undefined` where the types do not know it. */
  offset(name: MemberName): number | undefined {
    return this.offsets.get(name);
  }

  /** Offsets of several members, if all are known. */
  all<T extends readonly MemberName[]>(...names: T): { [K in keyof T]: number } | undefined {
    const found = names.map((name) => this.offsets.get(name));
    return found.includes(undefined) ? undefined : (found as { [K in keyof T]: number });
  }

  /** All sampled tasks but init_task. */
  get others(): readonly SampledTask[] {
    return this.tasks.slice(1);
  }

  #sample(max: number): SampledTask[] {
    const initTask = this.checked.symbols.address('init_task');
    const link = this.offset('task_struct.tasks') ?? 0;
    return sampleTasks(this.words, initTask, link, { length: this.#taskLength(), max });
  }

  /**
   * Bytes of a `task_struct` up to the end of the last member; members that are too far have none.
   */
  #taskLength(): number {
    const ends = TASK_MEMBERS.map((name) => (this.offsets.get(name) ?? 0) + 32);
    return Math.max(...ends.filter((end) => end <= MAX_OFFSET));
  }
}

/** Whether at most a quarter of those that say something say no. A guest may be odd in places. */
export function mostly<T>(
  items: readonly T[],
  check: (item: T, index: number) => boolean | undefined,
): boolean {
  let yes = 0;
  let no = 0;
  for (const [index, item] of items.entries()) {
    const answer = check(item, index);
    if (answer === true) yes++;
    else if (answer === false) no++;
  }
  return no * 4 <= yes + no;
}

/** The doubt that members are where they are said to be: `task_struct.pid at 2420: why`. */
export function doubt(of: LayoutCase, why: string, ...members: readonly MemberName[]): Doubt {
  const places = members.map((name) => `${name} at ${of.offset(name)}`);
  return { members, why: `${places.join(', ')}: ${why}` };
}

/** Members that are too far from the start of their structure to be read. */
export function farMembers(of: LayoutCase): Doubt | undefined {
  for (const [name, offset] of of.offsets) {
    if (offset < 0 || offset + 32 > MAX_OFFSET) return doubt(of, 'no structure is so large', name);
  }
  return undefined;
}
