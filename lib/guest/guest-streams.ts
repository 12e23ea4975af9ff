import type { AddressLike } from '../address.js';
import type { Kernel } from '../kernel/kernel.js';
import type { Cr3WriteOptions } from '../memory/cr3-writes.js';
import type { PhysicalMemory } from '../memory/physical-memory.js';
import { Cr3Index, type Cr3IndexOptions } from '../monitor/cr3-index.js';
import { type PauseWhenOptions, type RunningAt, stopWhenRunning } from '../monitor/pause-when.js';
import { ReportedSwitches, type ReportOptions } from '../monitor/reported-switches.js';
import type { SwitchSource } from '../monitor/switch.js';
import type { SwitchStream } from '../monitor/switch-stream.js';
import type { TaskWatch, TaskWatchOptions } from '../monitor/task-watch.js';
import type { TrapOptions, TrappedSwitches } from '../monitor/trapped-switches.js';
import {
  checkReportOptions,
  trapSwitches,
  type WatchOptions,
  watchSwitches,
  watchTasks,
} from '../monitor/watch.js';
import { checkObject, describe } from '../options.js';
import { cr3Base } from '../tasks/cr3.js';
import type { Task } from '../tasks/task.js';
import type { Cr3WriteStream } from './cr3-writes.js';
import type { Pause } from './pause.js';

/** What goes on until somebody ends it. */
export interface Ending {
  return(): Promise<unknown>;
}

/**
 * The side of a guest that is watched: streams of what happens in it, ended with it at the latest.
 */
export abstract class GuestStreams {
  readonly #streams = new Set<Ending>();

  abstract get kernel(): Kernel;
  abstract get memory(): PhysicalMemory;
  abstract task(pid: number): Task;
  abstract findTask(pid: number): Task | undefined;
  abstract tasks(options?: { readonly threads?: boolean }): readonly Task[];
  abstract pause(): Promise<Pause>;
  abstract cr3Writes(options?: Cr3WriteOptions): Cr3WriteStream;
  abstract cr3Base(cr3: AddressLike): bigint;

  /**
   * What each CPU runs, from now on: every switch that a thread which looks at memory meets, and
   * exactly how many it did not. The guest is not trapped and does not notice. Leaving the loop
   * ends it, and so does `close()`.
   *
   * With `by: 'trapped'` the same as {@link trapSwitches}; with `by: 'reported'` every switch of
   * address spaces that the hypervisor reports, through {@link Guest.cr3Writes}: it takes libvmi on
   * Xen, and the guest traps at each write of CR3. Threads of one process are not told apart then,
   * nor kernel threads from an idle CPU.
   * @throws {VmiError} `VMI_UNSUPPORTED`: the source is an image, libvmi, or has no linear memory;
   * of `by: 'reported'`: it reports no writes to CR3
   * @throws {RangeError} an option that is out of range
   * @example
   * for await (const { cpu, task, kernel, missed } of guest.watchSwitches({ by: 'reported' }))
   *   console.log(cpu, task?.comm ?? (kernel ? 'kernel' : 'gone'), missed ?? '?');
   */
  watchSwitches(options: TrapOptions & { readonly by: 'trapped' }): TrappedSwitches;
  watchSwitches(options: ReportOptions & { readonly by: 'reported' }): ReportedSwitches;
  watchSwitches(options?: WatchOptions & { readonly by?: 'sampled' }): SwitchStream;
  watchSwitches(
    given: WatchOptions & { readonly by?: SwitchSource } = {},
  ): SwitchStream | TrappedSwitches | ReportedSwitches {
    const { by = 'sampled', ...options } = checkObject(given);
    if (by === 'trapped') {
      const { pids = [], ...rest } = options;
      return this.trapSwitches({ pids, ...rest });
    }
    if (by === 'reported') return this.#reportedSwitches(options);
    if (by !== 'sampled') {
      throw new RangeError(
        `Expected by as 'sampled', 'trapped' or 'reported' but received ${describe(by)}`,
      );
    }
    return this.stream((closed) => watchSwitches(this, options, closed));
  }

  /**
   * Every switch to and from up to four threads: QEMU's debug stub stops the guest at each for as
   * long as it takes to read a few words. However it ends, as by SIGKILL, the guest runs on; so it
   * does while nobody reads, and once `queue` switches wait the stream ends with `VMI_BUSY`.
   * @throws {VmiError} by the first `next()`: `VMI_NO_TASK`; `VMI_BUSY`: the guest is stopped, or
   * another debugger's stub is on; `VMI_UNSUPPORTED`: the source has no such stub
   */
  trapSwitches(options: TrapOptions): TrappedSwitches {
    return this.stream((closed) => trapSwitches(this, options, closed));
  }

  #reportedSwitches(options: ReportOptions): ReportedSwitches {
    const { pids, ...rest } = checkReportOptions(options);
    const writes = this.cr3Writes(rest);
    return new ReportedSwitches(writes, (value) => cr3Base(value, this.kernel.pti), { pids });
  }

  /**
   * Births, execs and exits of tasks, from now on; `lost` counts those that lived unseen.
   * @throws {RangeError} `interval`
   */
  watchTasks(options: TaskWatchOptions = {}): TaskWatch {
    return this.stream((closed) => watchTasks(this, options, closed));
  }

  /**
   * Waits until a task is on a CPU; the guest stands still there until `pause` is disposed of.
   * @throws {VmiError} `VMI_NO_TASK`, `VMI_ABORTED`, and as {@link trapSwitches}
   */
  async pauseWhen(options: PauseWhenOptions): Promise<RunningAt & { readonly pause: Pause }> {
    const found = await stopWhenRunning(this, options);
    // It stands still already; this is who resumes it.
    return { ...found, pause: await this.pause() };
  }

  /**
   * Names CR3 values of a log, also by tasks that have exited since: from now on it keeps who has
   * had each. Closing the guest ends it.
   * @throws {RangeError} `interval`, `keep`
   * @example
   * await using index = guest.cr3Index({ interval: 10 });
   * // … later:
   * index.name(0x3acec005n).owners; // [{ pid: 412, comm: 'make', gone: true, … }]
   */
  cr3Index(options: Cr3IndexOptions = {}): Cr3Index {
    return this.stream((closed) => new Cr3Index(this, options, closed));
  }

  /** @internal Makes a stream that {@link endStreams} ends if nobody has. */
  protected stream<T extends Ending>(make: (closed: () => void) => T): T {
    const stream = make(() => this.#streams.delete(stream));
    this.#streams.add(stream);
    return stream;
  }

  /**
   * Ends every stream of this guest that is open, as leaving its loop does: what waits for the next
   * switch, task or write goes on after its loop. The guest stays attached.
   */
  async interrupt(): Promise<void> {
    await this.endStreams();
  }

  /** @internal */
  protected async endStreams(): Promise<void> {
    for (const stream of this.#streams) await stream.return();
  }
}
