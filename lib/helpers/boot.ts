import { CorruptError } from '../errors.js';
import type { ArrayObject } from '../objects/array.js';
import type { KernelObjects } from '../objects/kernel-objects.js';
import type { Pointer } from '../objects/pointer.js';
import type { StructObject } from '../objects/struct-object.js';

/** Fixed-point 1.0 of the load averages: FSHIFT is 11. include/linux/sched/loadavg.h. */
const FIXED_1 = 2048;

/**
 * The kernel's command line: `/proc/cmdline`.
 * Source: init/main.c; `char *saved_command_line`.
 */
export function commandLine(objects: KernelObjects): string {
  const line = objects.variable('saved_command_line') as Pointer | null;
  if (line === null) throw new CorruptError('saved_command_line is NULL', 0n);
  return line.string(4096);
}

/**
 * The load averages over 1, 5 and 15 minutes: `/proc/loadavg`.
 * Source: kernel/sched/loadavg.c; `unsigned long avenrun[3]`, in 1/2048.
 */
export function loadAverage(objects: KernelObjects): [number, number, number] {
  const [one, five, fifteen] = objects.variable('avenrun') as ArrayObject &
    [bigint, bigint, bigint];
  return [Number(one) / FIXED_1, Number(five) / FIXED_1, Number(fifteen) / FIXED_1];
}

/** What one CPU has to do. */
export interface RunQueue {
  readonly cpu: number;
  /** Tasks that run or wait to. */
  readonly running: number;
  /** Switches from one task to another since boot. */
  readonly switches: bigint;
  /** `struct task_struct` that runs. */
  readonly current: StructObject;
  /** `struct rq` */
  readonly object: StructObject;
}

/**
 * The run queue of each CPU that is online.
 * Source: kernel/sched/sched.h; per-CPU `struct rq runqueues`.
 */
export function runQueues(objects: KernelObjects): RunQueue[] {
  return objects.onlineCpus().map((cpu) => {
    const object = objects.perCpu('runqueues', cpu) as StructObject;
    return {
      cpu,
      running: object.nr_running,
      switches: object.nr_switches,
      current: object.$follow('curr'),
      object,
    };
  });
}
