import { CorruptError, FaultError } from '../errors.js';
import { EventStream } from '../monitor/event-stream.js';
import { RunningTask, type Switch } from '../monitor/switch.js';
import type { Task } from '../tasks/task.js';
import type { Cr3Write, Cr3WriteStream } from './cr3-writes.js';

/**
 * Switches of address spaces as the hypervisor reports them: `Guest.cr3Writes`, named. Made by
 * `Guest.watchSwitches({ by: 'reported' })`; leaving a `for await` ends it.
 *
 * A write of CR3 tells which address space was loaded, and nothing else. So `task` is the
 * process that has it, of a moment after the write, and not the thread; `began`, `seenUntil`,
 * `missed` and `count` are `null`. What cannot be named is not handed out, and counted: `unnamed`.
 */
export class ReportedSwitches extends EventStream<Switch> {
  readonly #writes: Cr3WriteStream;
  readonly #toBase: (value: bigint) => bigint;
  /** What was handed out last, of each vCPU. */
  readonly #last = new Map<number, { readonly cr3: bigint; readonly task: RunningTask }>();
  #unnamed = 0;
  #kernel = 0;

  /** @internal @param toBase page-table base of a value of CR3 */
  constructor(writes: Cr3WriteStream, toBase: (value: bigint) => bigint) {
    super();
    this.#writes = writes;
    this.#toBase = toBase;
  }

  /** Writes of an address space that no process had any more when it was looked up. */
  get unnamed(): number {
    return this.#unnamed;
  }

  /** Writes of the kernel's own page table: for the idle task, or a thread of the kernel. */
  get kernel(): number {
    return this.#kernel;
  }

  /** Writes that were lost because nobody took them in time; as of now. */
  get dropped(): number {
    return this.#writes.dropped;
  }

  /** @internal */
  protected async take(): Promise<IteratorResult<Switch, undefined>> {
    for (;;) {
      const result = await this.#writes.next();
      if (result.done === true) return result;
      try {
        const value = this.#name(result.value);
        if (value !== undefined) return { done: false, value };
      } catch (error) {
        await this.end();
        throw error;
      }
    }
  }

  /** @internal */
  protected async end(): Promise<void> {
    await this.#writes.return();
  }

  #name(write: Cr3Write): Switch | undefined {
    const time = process.hrtime.bigint();
    if (write.kernel) {
      this.#kernel++;
      return undefined;
    }
    const task = taskOf(write);
    if (task === undefined) {
      this.#unnamed++;
      return undefined;
    }
    const cr3 = this.#toBase(write.value);
    const last = this.#last.get(write.vcpu);
    const running = toRunning(task);
    this.#last.set(write.vcpu, { cr3, task: running });
    // What the register held before tells whether anything lies in between.
    const follows = last !== undefined && last.cr3 === this.#toBase(write.previous);
    return {
      time,
      began: null,
      seenUntil: null,
      cpu: write.vcpu,
      cr3,
      task: running,
      previous: follows ? last.task : null,
      missed: null,
      count: null,
      by: 'reported',
    };
  }
}

/** The process; `undefined` also where the guest's lists were broken while it was looked for. */
function taskOf(write: Cr3Write): Task | undefined {
  try {
    return write.task;
  } catch (error) {
    if (error instanceof CorruptError || error instanceof FaultError) return undefined;
    throw error;
  }
}

function toRunning(task: Task): RunningTask {
  return new RunningTask({
    address: task.address,
    pid: task.pid,
    tgid: task.tgid,
    startTime: task.startTime,
    mm: task.mm ?? 0n,
    flags: task.flags,
    comm: task.commBytes,
  });
}
