import { wrap } from '../address.js';
import { CorruptError, hex, VmiError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import type { DebugStub, StubHit } from '../memory/debug-stub.js';
import { checkWhole } from '../options.js';
import { pgdToCr3 } from '../tasks/cr3.js';
import type { Task } from '../tasks/task.js';
import { EventStream } from './event-stream.js';
import { RunningTask, type Switch } from './switch.js';
import { type Places, perCpuPlaces } from './switch-layout.js';

/** What trapping needs of a guest. */
export interface TrappedGuest {
  readonly kernel: Kernel;
  readonly memory: { debugStub(): Promise<DebugStub> };
  task(pid: number): Task;
}

/** Which tasks are trapped, and how many events may wait. */
export interface TrapOptions {
  /** The threads to watch, at most as many as a processor has watchpoints: four. */
  readonly pids: readonly number[];
  /**
   * Switches that may wait to be read, 1 to 2^20; 16,384 by default. With one more the stream ends.
   */
  readonly queue?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A watched task. */
interface Trap {
  readonly task: Task;
  /** Address of its `on_cpu`. */
  readonly onCpu: bigint;
  /** The CPU it runs on; `undefined`: none. */
  cpu: number | undefined;
}

const COMM_LENGTH = 16;

/** Switches that wait for their reader, unless the options say otherwise. */
const QUEUE = 16_384;
const MAX_QUEUE = 1 << 20;

/**
 * Every switch to and from a few threads, in order and with none missed: a hardware watchpoint on
 * `task_struct.on_cpu` stops the virtual machine each time, for as long as it takes to read a few
 * words. Nothing else is trapped. The scheduler sets it before it leaves the task that goes, and
 * clears it on the stack of the one that comes (kernel/sched/core.c, `prepare_task`,
 * `finish_task`).
 *
 * From the first `next()` on the guest is let go at once after each stop, whether anybody asks for
 * the switch or not: a reader that is slow or has forgotten the stream must not hold the guest. So
 * switches wait in a queue. When that is full the watchpoints are removed and the stream ends with
 * an error, once the switches in it have been handed out. It could drop switches instead and go on,
 * but then the guest would pay for stops that nobody learns of, for as long as the reader sleeps,
 * and a stream that is there for telling every switch would not tell every one.
 *
 * `next()` throws `VMI_NO_TASK`, `VMI_BUSY`, `VMI_UNSUPPORTED` from the first call on; `VMI_BUSY`
 * when the queue was full and the guest has been let go; `VMI_ABORTED`, `VMI_CLOSED`. It is `done`
 * once the watched tasks have exited.
 */
export class TrappedSwitches extends EventStream<Switch> {
  readonly #guest: TrappedGuest;
  readonly #options: TrapOptions;
  readonly #capacity: number;
  readonly #closed: () => void;
  readonly #reader: TaskReader;
  readonly #queue: Switch[] = [];
  #stub: DebugStub | undefined;
  #traps: Trap[] = [];
  /** Takes stops, and lets go of the guest at its end. */
  #watching: Promise<void> | undefined;
  #hasEnded = false;
  #isClosed = false;
  #failure: unknown;
  #wake: (() => void) | undefined;
  #events = 0;

  /**
   * @internal
   * @param closed called once, when watching has ended
   * @throws {RangeError} no task, or more than a processor can watch; `queue`
   * @throws {VmiError} `VMI_TYPE`: this kernel has no `task_struct.on_cpu`
   */
  constructor(guest: TrappedGuest, options: TrapOptions, closed: () => void) {
    super();
    const { pids, queue = QUEUE } = options;
    if (pids.length < 1 || pids.length > 4) {
      throw new RangeError(
        `Expected 1 to 4 pids to trap, as many as a processor has watchpoints, but received ${pids.length}`,
      );
    }
    this.#guest = guest;
    this.#options = options;
    this.#capacity = checkWhole(queue, 'queue', 1, MAX_QUEUE);
    this.#closed = closed;
    this.#reader = new TaskReader(guest.kernel);
  }

  /** Switches between those handed out that were not: none ever is; the stream ends before. */
  get missed(): number {
    return 0;
  }

  /** Stops of the virtual machine so far. */
  get stops(): number {
    return this.#events;
  }

  /** Switches that wait to be read. */
  get waiting(): number {
    return this.#queue.length;
  }

  /** @internal */
  protected async take(): Promise<IteratorResult<Switch, undefined>> {
    if (this.#watching === undefined && !this.#isClosed) {
      this.#watching = this.#watch();
      // Whoever ends the stream is told; nobody need.
      this.#watching.catch(() => {});
    }
    for (;;) {
      if (this.#isClosed) break;
      const value = this.#options.signal?.aborted ? undefined : this.#queue.shift();
      if (value !== undefined) return { done: false, value };
      if (this.#hasEnded) {
        await this.end();
        if (this.#failure !== undefined) throw this.#failure;
        break;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    await this.end();
    return { done: true, value: undefined };
  }

  /** Takes stops until watching ends. Never waits for the reader. */
  async #watch(): Promise<void> {
    const { signal } = this.#options;
    const onAbort = () => this.#stub?.interrupt();
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      await this.#takeAll();
    } catch (error) {
      // Whoever closed the stream is told that it is closed, and of nothing else.
      if (!this.#isClosed) this.#failure = error;
    }
    try {
      await this.#stub?.release();
    } finally {
      signal?.removeEventListener('abort', onAbort);
      this.#hasEnded = true;
      this.#wake?.();
      this.#closed();
    }
  }

  async #takeAll(): Promise<void> {
    const { signal } = this.#options;
    const checkAborted = () => {
      if (signal?.aborted)
        throw new VmiError('VMI_ABORTED', 'watching was aborted', { cause: signal.reason });
    };
    checkAborted();
    const stub = await this.#open();
    while (!this.#isClosed && this.#traps.length > 0) {
      checkAborted();
      const hit = await stub.run();
      const event = hit === undefined ? undefined : await this.#take(stub, hit);
      if (event === undefined) continue;
      if (this.#queue.length >= this.#capacity) {
        throw new VmiError(
          'VMI_BUSY',
          `${this.#capacity} switches waited to be read when the next one came: the guest was let go, and is not watched any more (read faster, or set queue)`,
        );
      }
      this.#queue.push(event);
      this.#wake?.();
    }
  }

  async #open(): Promise<DebugStub> {
    const tasks = this.#options.pids.map((pid) => this.#guest.task(pid));
    const stub = await this.#guest.memory.debugStub();
    this.#stub = stub;
    for (const task of tasks) {
      const onCpu = this.#reader.onCpu(task.address);
      await stub.watch(onCpu, 4);
      this.#traps.push({ task, onCpu, cpu: this.#reader.cpuOf(task.address) });
    }
    return stub;
  }

  /** What a stop means. `undefined`: the task is gone, and its memory another's. */
  async #take(stub: DebugStub, hit: StubHit): Promise<Switch | undefined> {
    this.#events++;
    const trap = this.#traps.find(({ onCpu }) => onCpu === hit.address);
    if (trap === undefined) return undefined;
    const reader = this.#reader;
    const time = process.hrtime.bigint();
    if (!reader.isSame(trap.task)) {
      await stub.unwatch(trap.onCpu);
      this.#traps = this.#traps.filter((other) => other !== trap);
      return undefined;
    }
    const task = reader.read(trap.task.address);
    const isOn = reader.isOn(trap.onCpu);
    const cpu = isOn ? (reader.cpuOf(trap.task.address) ?? hit.vcpu) : (trap.cpu ?? hit.vcpu);
    trap.cpu = isOn ? cpu : undefined;
    // The CPU's own word is still that of the task which goes, or that of the one which has come.
    const other = reader.read(reader.current(cpu));
    const running = isOn ? task : other;
    return {
      time,
      seenUntil: time,
      began: running.idle ? null : reader.arrival(running.address),
      cpu,
      cr3: reader.cr3(running, cpu),
      task: running,
      previous: isOn ? other : task,
      missed: 0,
      count: reader.count(cpu),
      by: 'trapped',
    };
  }

  /** @internal @throws what letting go of the guest throws */
  protected async end(): Promise<void> {
    const wasClosed = this.#isClosed;
    this.#isClosed = true;
    this.#queue.length = 0;
    this.#stub?.interrupt();
    this.#wake?.();
    if (this.#watching !== undefined) await this.#watching;
    else if (!wasClosed) this.#closed();
  }
}

/** Reads what CPUs run, of a guest that stands still. */
export class TaskReader {
  readonly #kernel: Kernel;
  readonly #places: Places;
  readonly #onCpu: number;
  readonly #arrival: number | undefined;

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    this.#places = perCpuPlaces(kernel);
    this.#onCpu = kernel.types.offset('task_struct', 'on_cpu');
    this.#arrival = kernel.types.findOffset('task_struct', 'sched_info.last_arrival');
  }

  /** Address of a task's `on_cpu`. */
  onCpu(task: bigint): bigint {
    return wrap(task + BigInt(this.#onCpu));
  }

  isOn(onCpu: bigint): boolean {
    return this.#kernel.memory.readU32(onCpu) !== 0;
  }

  /** Where a CPU keeps its current task. */
  currentAt(cpu: number): bigint {
    const place = this.#places.current ?? this.#places.curr!;
    return wrap(place + this.#kernel.perCpuOffset(cpu));
  }

  current(cpu: number): bigint {
    return this.#kernel.memory.readU64(this.currentAt(cpu));
  }

  /** The CPU whose run queue names a task; `undefined`: none does. */
  cpuOf(task: bigint): number | undefined {
    const place = this.#places.curr ?? this.#places.current!;
    const { memory } = this.#kernel;
    return this.#kernel
      .onlineCpus()
      .find((cpu) => memory.readU64(wrap(place + this.#kernel.perCpuOffset(cpu))) === task);
  }

  count(cpu: number): bigint | null {
    const { count } = this.#places;
    if (count === undefined) return null;
    return this.#kernel.memory.readU64(wrap(count + this.#kernel.perCpuOffset(cpu)));
  }

  arrival(task: bigint): bigint | null {
    if (this.#arrival === undefined) return null;
    return this.#kernel.memory.readU64(wrap(task + BigInt(this.#arrival))) || null;
  }

  /** Whether the memory of a task is still that task's. */
  isSame(task: Task): boolean {
    const now = this.read(task.address);
    return now.pid === task.pid && now.startTime === task.startTime;
  }

  read(address: bigint): RunningTask {
    if (address % 8n !== 0n || address < 1n << 63n)
      throw new CorruptError(`a CPU's current task is at ${hex(address)}, which is none`, address);
    const { memory, types } = this.#kernel;
    const at = (member: string) => wrap(address + BigInt(types.offset('task_struct', member)));
    return new RunningTask({
      address,
      pid: memory.readU32(at('pid')),
      tgid: memory.readU32(at('tgid')),
      startTime: memory.readU64(at('start_time')),
      mm: memory.readU64(at('mm')),
      flags: memory.readU32(at('flags')),
      comm: memory.read(at('comm'), COMM_LENGTH),
    });
  }

  /** What CR3 holds while a task runs on a CPU: its own, or what the CPU has loaded. */
  cr3(task: RunningTask, cpu: number): bigint | null {
    const { memory, types } = this.#kernel;
    const { loadedMm } = this.#places;
    let mm = task.mm;
    if (mm === null && loadedMm !== undefined)
      mm = memory.readU64(wrap(loadedMm + this.#kernel.perCpuOffset(cpu)));
    // 1: in the middle of a switch.
    if (mm === null || mm <= 1n) return null;
    const pgd = memory.readU64(wrap(mm + BigInt(types.offset('mm_struct', 'pgd'))));
    return pgdToCr3(this.#kernel, pgd);
  }
}
