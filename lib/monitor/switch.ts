import { hex } from '../errors.js';
import { escapeBytes } from '../escape.js';
import { PF_KTHREAD } from '../tasks/task-members.js';

/**
 * How a switch became known:
 * - `sampled`: memory was looked at often enough to meet it.
 * - `trapped`: QEMU's debug stub stopped the virtual machine at it.
 * - `reported`: the hypervisor told of a write to CR3.
 */
export type SwitchSource = 'sampled' | 'trapped' | 'reported';

/** A task as it was when a CPU ran it. */
export class RunningTask {
  /** Address of the `task_struct`; with {@link startTime} it names a task for good. */
  readonly address: bigint;
  /**
   * PID of the task in the initial namespace; of a thread that is not the leader, its TID. 0: an
   * idle task.
   */
  readonly pid: number;
  /** Thread group: the PID of the process. */
  readonly tgid: number;
  /** Monotonic start time, nanoseconds since boot. */
  readonly startTime: bigint;
  /**
   * Address of its own `mm_struct`; `null`: it has none, and runs on whatever its CPU has loaded.
   */
  readonly mm: bigint | null;
  /** Whether it is a kernel thread (PF_KTHREAD). */
  readonly kthread: boolean;
  /** The bytes of `comm` up to the first NUL. */
  readonly commBytes: Uint8Array;

  /** @internal */
  constructor(facts: {
    readonly address: bigint;
    readonly pid: number;
    readonly tgid: number;
    readonly startTime: bigint;
    readonly mm: bigint;
    readonly flags: number;
    readonly comm: Uint8Array;
  }) {
    this.address = facts.address;
    this.pid = facts.pid;
    this.tgid = facts.tgid;
    this.startTime = facts.startTime;
    this.mm = facts.mm === 0n ? null : facts.mm;
    this.kthread = (facts.flags & PF_KTHREAD) !== 0;
    const end = facts.comm.indexOf(0);
    this.commBytes = end < 0 ? facts.comm : facts.comm.subarray(0, end);
  }

  /** `comm` as text that is safe to print, escaped as `Task.comm` is. */
  get comm(): string {
    return escapeBytes(this.commBytes);
  }

  /** Whether it is a CPU's idle task. A process may call itself `swapper/0`; it has another PID. */
  get idle(): boolean {
    return this.pid === 0;
  }

  /** Whether both are the same task, whatever it was called or executed in between. */
  is(other: RunningTask): boolean {
    return this.address === other.address && this.startTime === other.startTime;
  }

  toJSON(): RunningTaskJson {
    return {
      pid: this.pid,
      tgid: this.tgid,
      comm: this.comm,
      kthread: this.kthread,
      idle: this.idle,
      startTime: this.startTime.toString(),
      task: hex(this.address),
      mm: this.mm === null ? null : hex(this.mm),
    };
  }
}

/** A task that ran, in the form that `JSON.stringify` gives. */
export interface RunningTaskJson {
  readonly pid: number;
  readonly tgid: number;
  readonly comm: string;
  readonly kthread: boolean;
  readonly idle: boolean;
  readonly startTime: string;
  readonly task: string;
  readonly mm: string | null;
}

/** A CPU of the guest went over to another task. */
export interface Switch {
  /** Host time at which it was known, nanoseconds on the clock of `process.hrtime.bigint()`. */
  readonly time: bigint;
  /**
   * Guest time at which the scheduler began the slice (`sched_info.last_arrival`, the clock that
   * ftrace calls `perf`), nanoseconds; `null` for idle tasks, which have none, and for kernels
   * without SCHED_INFO. It is exact however late the slice was seen.
   */
  readonly began: bigint | null;
  readonly cpu: number;
  /**
   * Host time of the last look that still saw the task before it, as `time`; `null` where there was
   * none: the switch lies between the two.
   */
  readonly seenUntil: bigint | null;
  /**
   * Page-table base that the CPU has loaded; a task without an mm borrows it. `null`: not known.
   */
  readonly cr3: bigint | null;
  readonly task: RunningTask;
  /**
   * The task that ran on this CPU before; `null` where switches in between were missed, and of a
   * CPU's first.
   */
  readonly previous: RunningTask | null;
  /**
   * Switches of this CPU between the last event of it and this one that nobody saw, by the kernel's
   * own count. 0 for the first event of a CPU; `null` for kernels that do not show their count.
   */
  readonly missed: number | null;
  /**
   * The CPU's count of switches, this one included (`rq.nr_switches`); `null` where it is not
   * shown.
   */
  readonly count: bigint | null;
  readonly by: SwitchSource;
}

/**
 * A switch in the form that `JSON.stringify` gives: times are decimal strings, addresses hex
 * strings.
 */
export function switchJson(event: Switch): SwitchJson {
  return {
    time: event.time.toString(),
    began: event.began?.toString() ?? null,
    cpu: event.cpu,
    cr3: event.cr3 === null ? null : hex(event.cr3),
    task: event.task.toJSON(),
    previous: event.previous?.toJSON() ?? null,
    missed: event.missed,
    by: event.by,
  };
}

/** A switch in the form of {@link switchJson}. */
export interface SwitchJson {
  readonly time: string;
  readonly began: string | null;
  readonly cpu: number;
  readonly cr3: string | null;
  readonly task: RunningTaskJson;
  readonly previous: RunningTaskJson | null;
  readonly missed: number | null;
  readonly by: SwitchSource;
}
