import { VmiError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import { bytesAt, memberOffset, NamedPlan } from '../memory/plan.js';
import type { TaskRows } from './task-members.js';

/** Deepest PID namespace. include/linux/pid_namespace.h, MAX_PID_NS_LEVEL. */
const MAX_LEVEL = 32;
/** `struct upid` has 16 bytes; so many for each level are what one column of a plan can hold. */
const MAX_UPID = 124;
/** Times that a `struct pid` of a running guest is read until it can be read. */
const LOOKS = 4;

/**
 * PIDs of tasks in every namespace they are in: `struct pid.numbers`, one `struct upid` a level.
 */
export class NamespacePids {
  readonly #kernel: Kernel;
  readonly #numbers: number;
  readonly #upidSize: number;
  readonly #nr: number;
  readonly #plans: (NamedPlan<'numbers'> | undefined)[] = [];

  /** @throws {VmiError} `VMI_TYPE` */
  constructor(kernel: Kernel) {
    const { types } = kernel;
    this.#kernel = kernel;
    this.#numbers = memberOffset(types, 'pid', 'numbers');
    this.#upidSize = types.size('upid');
    this.#nr = memberOffset(types, 'upid', 'nr');
    // Read out of whole `struct upid`s here, not by native code that checks for itself.
    if (this.#nr + 4 > this.#upidSize || this.#upidSize > MAX_UPID) {
      throw new VmiError(
        'VMI_TYPE',
        `the kernel's types have a struct upid of ${this.#upidSize} bytes with nr at ${this.#nr}: they are damaged; give a profile instead`,
      );
    }
  }

  /**
   * @param nested rows of tasks below the initial namespace
   * @returns the PIDs by row, the outermost first; and the rows of which they cannot be told
   */
  read(
    rows: TaskRows,
    nested: readonly number[],
  ): { pids: Map<number, readonly number[]>; unreadable: number[] } {
    const levels = rows.words('level');
    const pids = new Map<number, readonly number[]>();
    const unreadable: number[] = [];
    for (const level of new Set(nested.map((row) => levels[row]!))) {
      const group = nested.filter((row) => levels[row] === level);
      if (level > MAX_LEVEL) unreadable.push(...group);
      else this.#readLevel(rows, level, group, { pids, unreadable });
    }
    return { pids, unreadable };
  }

  #readLevel(
    rows: TaskRows,
    level: number,
    group: readonly number[],
    into: { pids: Map<number, readonly number[]>; unreadable: number[] },
  ): void {
    const { memory } = this.#kernel;
    const threadPid = rows.longs('threadPid');
    const bases = BigUint64Array.from(group, (row) => threadPid[row]!);
    const plan = this.#plan(level);
    let found = plan.gather(memory, bases);
    for (let look = 1; look < LOOKS && memory.physical.live; look++) {
      if (!found.faulty) break;
      found = plan.gather(memory, bases);
    }
    const view = found.view('numbers');
    for (const [i, row] of group.entries()) {
      if (found.faults[i] !== 0) {
        into.unreadable.push(row);
        continue;
      }
      const numbers: number[] = [];
      for (let n = 0; n <= level; n++) {
        numbers.push(view.getInt32(this.#upidSize * ((level + 1) * i + n) + this.#nr, true));
      }
      into.pids.set(row, numbers);
    }
  }

  /** Reads `numbers[0 … level]` as one column. */
  #plan(level: number): NamedPlan<'numbers'> {
    let plan = this.#plans[level];
    if (plan === undefined) {
      const size = this.#upidSize * (level + 1);
      plan = new NamedPlan(this.#kernel.types, {
        numbers: bytesAt(this.#numbers, size),
      });
      this.#plans[level] = plan;
    }
    return plan;
  }
}
