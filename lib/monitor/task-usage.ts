import { wrap } from '../address.js';
import { CorruptError, FaultError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import { at, NamedPlan } from '../memory/plan.js';
import type { Task } from '../tasks/task.js';
import { cannotSample } from './sampled-switches.js';
import { type Places, perCpuPlaces } from './switch-layout.js';

/** A task, and what it did since the look before. */
export interface TaskUsage {
  readonly task: Task;
  /** What CR3 holds while it runs; `null`: none of its own, or one that is broken. */
  readonly cr3: bigint | null;
  /** Part of one CPU, 0 to 1, by the scheduler's own account (`se.sum_exec_runtime`). */
  readonly share: number;
  /** Switches a second away from the task (`nvcsw + nivcsw`). */
  readonly switches: number;
}

/** All tasks at one moment, with what they did since the moment before. */
export interface Usage {
  readonly tasks: readonly TaskUsage[];
  /** Seconds since the look before; 0: this is the first, and nothing is known yet. */
  readonly seconds: number;
  /** Switches a second of all CPUs; `null` for kernels that do not show their count. */
  readonly switches: number | null;
  readonly cpus: number;
}

interface Before {
  readonly runtime: bigint;
  readonly switches: bigint;
}

/** Compares each look at all tasks with the one before. */
export class UsageMeter {
  readonly #kernel: Kernel;
  readonly #list: (options: { readonly threads: boolean }) => readonly Task[];
  readonly #plan;
  readonly #places: Places;
  #before = new Map<string, Before>();
  #time: number | undefined;
  #count: bigint | undefined;

  /**
   * @throws {VmiError} `VMI_UNSUPPORTED`: an image, in which nothing runs; `VMI_TYPE`: the kernel's
   * types lack what the scheduler accounts
   */
  constructor(kernel: Kernel, list: (options: { readonly threads: boolean }) => readonly Task[]) {
    const { live, description } = kernel.memory.physical;
    if (!live) throw cannotSample(description, 'it is an image, and does not run');
    this.#kernel = kernel;
    this.#list = list;
    this.#places = perCpuPlaces(kernel);
    this.#plan = new NamedPlan(kernel.types, {
      runtime: at('task_struct', 'se.sum_exec_runtime'),
      voluntary: at('task_struct', 'nvcsw'),
      involuntary: at('task_struct', 'nivcsw'),
    });
  }

  /** @param threads every thread by itself; a process otherwise has the sum of its threads */
  look(threads: boolean): Usage {
    const all = this.#list({ threads: true });
    const rows = this.#plan.gather(
      this.#kernel.memory,
      BigUint64Array.from(all, ({ address }) => address),
    );
    const now = performance.now();
    const seconds = this.#time === undefined ? 0 : (now - this.#time) / 1_000;
    this.#time = now;
    const known = new Map<string, Before>();
    const sums = new Map<number, { task: Task; share: number; switches: number }>();
    for (const [row, task] of all.entries()) {
      const runtime = rows.longs('runtime')[row]!;
      const switches = rows.longs('voluntary')[row]! + rows.longs('involuntary')[row]!;
      const key = `${task.pid} ${task.startTime}`;
      known.set(key, { runtime, switches });
      const before = this.#before.get(key);
      const share = rate(before?.runtime, runtime, seconds) / 1e9;
      const pace = rate(before?.switches, switches, seconds);
      const group = threads ? task.pid : task.tgid;
      const sum = sums.get(group);
      if (sum === undefined) {
        sums.set(group, { task, share, switches: pace });
      } else {
        sum.share += share;
        sum.switches += pace;
        if (task.leader) sum.task = task;
      }
    }
    this.#before = known;
    return {
      tasks: [...sums.values()].map((sum) => ({ ...sum, cr3: cr3Of(sum.task) })),
      seconds,
      ...this.#cpus(seconds),
    };
  }

  #cpus(seconds: number): { cpus: number; switches: number | null } {
    const kernel = this.#kernel;
    const cpus = kernel.onlineCpus();
    const { count } = this.#places;
    if (count === undefined) return { cpus: cpus.length, switches: null };
    const total = cpus.reduce(
      (sum, cpu) => sum + kernel.memory.readU64(wrap(count + kernel.perCpuOffset(cpu))),
      0n,
    );
    const switches = rate(this.#count, total, seconds);
    this.#count = total;
    return { cpus: cpus.length, switches };
  }
}

function rate(before: bigint | undefined, now: bigint, seconds: number): number {
  if (before === undefined || seconds === 0 || now < before) return 0;
  return Number(now - before) / seconds;
}

function cr3Of(task: Task): bigint | null {
  try {
    return task.cr3;
  } catch (error) {
    if (error instanceof CorruptError || error instanceof FaultError) return null;
    throw error;
  }
}
