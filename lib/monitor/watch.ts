import type { Kernel } from '../kernel/kernel.js';
import type { PhysicalMemory } from '../memory/physical-memory.js';
import {
  checkFlag,
  checkList,
  checkOptions,
  checkSignal,
  checkWhole,
  type OptionNames,
} from '../options.js';
import type { ReportOptions } from './reported-switches.js';
import {
  cannotSample,
  checkSampling,
  type SampleOptions,
  SwitchSampler,
} from './sampled-switches.js';
import { type StreamOptions, SwitchStream } from './switch-stream.js';
import { TaskWatch, type TaskWatchGuest, type TaskWatchOptions } from './task-watch.js';
import { type TrapOptions, type TrappedGuest, TrappedSwitches } from './trapped-switches.js';

/** A guest as watching needs it. */
export interface WatchedGuest {
  readonly kernel: Kernel;
  readonly memory: PhysicalMemory;
}

/** Which switches are told. */
export interface WatchOptions extends SampleOptions, StreamOptions {}

/** Milliseconds between two listings of tasks, at most. */
const MAX_INTERVAL = 60_000;
/** Highest PID that a 32-bit pid_t can hold. */
const MAX_PID = 0x7fff_ffff;

const WATCH: OptionNames<WatchOptions> = {
  rate: true,
  cpus: true,
  queue: true,
  pids: true,
  signal: true,
};
const TRAP: OptionNames<TrapOptions> = { pids: true, queue: true, signal: true };
const REPORT: OptionNames<ReportOptions> = { pids: true, queue: true, signal: true };
const TASKS: OptionNames<TaskWatchOptions> = { interval: true, threads: true, signal: true };

/**
 * Begins to watch a guest's switches.
 * @param closed called once, when the stream has ended
 */
export function watchSwitches(
  guest: WatchedGuest,
  options: WatchOptions,
  closed: () => void,
): SwitchStream {
  checkOptions(options, WATCH);
  checkSignal(options.signal);
  checkPids(options.pids);
  checkSampling(options);
  return new SwitchStream(startSampling(guest, options), options, closed);
}

/**
 * Every switch of a few threads.
 * @param closed called once, when the stream has ended
 * @throws as {@link TrappedSwitches}
 */
export function trapSwitches(
  guest: TrappedGuest,
  options: TrapOptions,
  closed: () => void,
): TrappedSwitches {
  checkOptions(options, TRAP);
  checkSignal(options.signal);
  if (options.pids === undefined)
    throw new TypeError('Expected pids as an array but received undefined');
  checkPids(options.pids);
  return new TrappedSwitches(guest, options, closed);
}

/** What is asked of reported switches, checked. @throws {TypeError} @throws {RangeError} */
export function checkReportOptions(options: ReportOptions): ReportOptions {
  checkOptions(options, REPORT);
  checkSignal(options.signal);
  checkPids(options.pids);
  return options;
}

/**
 * Begins to watch a guest's tasks; with a sampler where it can be sampled.
 * @param closed called once, when the stream has ended
 * @throws {TypeError} @throws {RangeError} an option
 */
export function watchTasks(
  guest: WatchedGuest & Pick<TaskWatchGuest, 'tasks'>,
  options: TaskWatchOptions,
  closed: () => void,
): TaskWatch {
  checkOptions(options, TASKS);
  checkSignal(options.signal);
  checkFlag(options.threads, 'threads');
  if (options.interval !== undefined) checkWhole(options.interval, 'interval', 1, MAX_INTERVAL);
  const { memory } = guest;
  if (!memory.live) throw cannotSample(memory.description, 'it is an image, and does not run');
  const sampler = memory.source === 'qemu' ? startSampling(guest, {}) : undefined;
  return new TaskWatch(guest, options, sampler, closed);
}

/**
 * Starts a sampler on a guest.
 * @throws {VmiError} `VMI_UNSUPPORTED`: it is an image, or its memory is read through libvmi
 */
export function startSampling(guest: WatchedGuest, options: SampleOptions): SwitchSampler {
  const { memory, kernel } = guest;
  if (!memory.live) throw cannotSample(memory.description, 'it is an image, and does not run');
  if (memory.source === 'libvmi') {
    throw cannotSample(
      memory.description,
      "a read through libvmi takes longer than most slices; where capabilities.events is true, by: 'reported' tells of every switch of address spaces",
    );
  }
  return new SwitchSampler(
    { kernel, startSampler: (native) => memory.startSampler(native) },
    options,
  );
}

function checkPids(pids: readonly number[] | undefined): void {
  checkList(pids, 'pids', (pid, name) => checkWhole(pid, name, 0, MAX_PID));
}
