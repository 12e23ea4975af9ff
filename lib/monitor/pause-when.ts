import { VmiError } from '../errors.js';
import type { DebugStub, StubRegisters } from '../memory/debug-stub.js';
import { checkOptions, checkSignal, type OptionNames } from '../options.js';
import type { RunningTask } from './switch.js';
import { TaskReader, type TrappedGuest } from './trapped-switches.js';

/** Which thread is waited for. */
export interface PauseWhenOptions {
  /** The thread: a PID, or a TID. */
  readonly pid: number;
  readonly signal?: AbortSignal | undefined;
}

const NAMES: OptionNames<PauseWhenOptions> = { pid: true, signal: true };

/** A guest that stands still because a task came to run. */
export interface RunningAt {
  readonly cpu: number;
  readonly task: RunningTask;
  /**
   * Registers of its vCPU: `cr3` is the task's page table, the rest is the kernel's end of the
   * switch to it.
   */
  readonly registers: StubRegisters;
}

/**
 * Stops a guest at the moment a task is on a CPU, and leaves it stopped. A task that runs already
 * is taken where it is; otherwise its `on_cpu` tells of the CPU that is about to run it, and that
 * CPU's current task of the end of the switch.
 * @throws {VmiError} `VMI_NO_TASK`; `VMI_ABORTED`; as `DebugStub`. The guest runs then
 */
export async function stopWhenRunning(
  guest: TrappedGuest,
  options: PauseWhenOptions,
): Promise<RunningAt> {
  checkOptions(options, NAMES);
  const { pid, signal } = options;
  checkSignal(signal);
  const task = guest.task(pid);
  const reader = new TaskReader(guest.kernel);
  const checkAborted = () => {
    if (signal?.aborted)
      throw new VmiError('VMI_ABORTED', 'waiting was aborted', { cause: signal.reason });
  };
  checkAborted();
  const stub = await guest.memory.debugStub();
  const onAbort = () => stub.interrupt();
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    const onCpu = reader.onCpu(task.address);
    await stub.watch(onCpu, 4);
    let cpu = runningOn(reader, task.address, guest.kernel.onlineCpus());
    while (cpu === undefined) {
      checkAborted();
      await stub.run();
      checkAborted();
      if (!reader.isSame(task)) {
        throw new VmiError('VMI_NO_TASK', `task ${pid} has exited, and did not run before that`);
      }
      if (reader.isOn(onCpu)) cpu = await untilCurrent(stub, reader, task.address, checkAborted);
    }
    const found = { cpu, task: reader.read(task.address), registers: await stub.registers(cpu) };
    await stub.release({ stopped: true });
    return found;
  } catch (error) {
    await stub.release();
    throw error;
  } finally {
    signal?.removeEventListener('abort', onAbort);
  }
}

/** Lets a switch to a task that is under way come to its end. */
async function untilCurrent(
  stub: DebugStub,
  reader: TaskReader,
  task: bigint,
  checkAborted: () => void,
): Promise<number | undefined> {
  const cpu = reader.cpuOf(task);
  if (cpu === undefined) return undefined;
  const place = reader.currentAt(cpu);
  await stub.watch(place, 8);
  try {
    while (reader.current(cpu) !== task) {
      await stub.run();
      checkAborted();
      // It went on past the end of the switch and off the CPU again.
      if (reader.cpuOf(task) !== cpu) return undefined;
    }
    return cpu;
  } finally {
    await stub.unwatch(place);
  }
}

function runningOn(reader: TaskReader, task: bigint, cpus: readonly number[]): number | undefined {
  return cpus.find((cpu) => reader.current(cpu) === task);
}
