import { CorruptError, FaultError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import type { RawCr3Write, RawCr3Writes } from '../memory/cr3-writes.js';
import { cr3Base } from '../tasks/cr3.js';
import type { Task } from '../tasks/task.js';
import type { TaskList } from '../tasks/task-list.js';
import type { Tasks } from '../tasks/tasks.js';

/** What {@link Cr3Names} asks of a guest. */
export interface NamedGuest {
  /** Every process. */
  processes(): Iterable<Task>;
  find(pid: number): Task | undefined;
  /** Every task and thread on an address space. */
  sharing(value: bigint): TaskList;
  /** Page-table base of a value that CR3 can hold. */
  base(value: bigint): bigint;
  /** Base of the kernel's own page table. */
  readonly kernel: bigint;
}

interface Named {
  readonly task: Task;
  /** When it was known to be so, as `performance.now()`. */
  checked: number;
}

/** Times that a walk is tried which a guest that runs on has broken. */
const WALKS = 3;

/**
 * Which process an address space is, kept from write to write: at hundreds of writes a second
 * nobody can walk all tasks for each. It never says what was true before a write was taken and may
 * not be now: what it knows is looked up again by PID, and only where that differs, or where it
 * knows nothing yet, are all processes walked. One walk answers for every write that was taken
 * before it.
 */
export class Cr3Names {
  readonly #guest: NamedGuest;
  #index = new Map<bigint, Named>();
  #walked = Number.NEGATIVE_INFINITY;

  constructor(guest: NamedGuest) {
    this.#guest = guest;
  }

  isKernel(value: bigint): boolean {
    return this.#guest.base(value) === this.#guest.kernel;
  }

  /** Every task on the address space now, by a walk. */
  tasks(value: bigint): TaskList {
    return this.#guest.sharing(value);
  }

  /**
   * The process whose address space it is, as of any time after `taken`: the first in the kernel's
   * list, of those that share it. None for the kernel's own page table.
   */
  task(value: bigint, taken: number): Task | undefined {
    if (this.isKernel(value)) return undefined;
    const base = this.#guest.base(value);
    const known = this.#index.get(base);
    if (known !== undefined && this.#holds(known, taken)) return known.task;
    if (this.#walked < taken) this.#walk();
    return this.#index.get(base)?.task;
  }

  /** Whether a task that was found once is the same, on the same address space, after `taken`. */
  #holds(known: Named, taken: number): boolean {
    if (known.checked >= taken) return true;
    const checked = performance.now();
    const { pid, startTime, mm, cr3 } = known.task;
    const now = unlessBroken(() => this.#guest.find(pid));
    const same =
      now?.startTime === startTime && now.mm === mm && unlessBroken(() => now.cr3) === cr3;
    if (same) known.checked = checked;
    return same;
  }

  #walk(): void {
    const checked = performance.now();
    const index = new Map<bigint, Named>();
    for (const task of this.#processes()) {
      const cr3 = unlessBroken(() => ownCr3(task)) ?? undefined;
      if (cr3 !== undefined && !index.has(cr3)) index.set(cr3, { task, checked });
    }
    this.#index = index;
    this.#walked = checked;
  }

  #processes(): Iterable<Task> {
    for (let walks = 1; ; walks++) {
      try {
        return this.#guest.processes();
      } catch (error) {
        if (walks === WALKS || !isBroken(error)) throw error;
      }
    }
  }
}

/** Names of a guest whose kernel is known. */
export function namesIn(kernel: Kernel, tasks: Tasks): Cr3Names {
  return new Cr3Names({
    processes: () => tasks.list(),
    find: (pid) => tasks.find(pid),
    sharing: (value) => tasks.withCr3s([value])[0]!,
    base: (value) => cr3Base(value, kernel.pti),
    kernel: kernel.cr3,
  });
}

/** CR3 of a task that has an address space of its own; whoever borrows one has not loaded it. */
function ownCr3(task: Task): bigint | null {
  return task.cr3Source === 'mm' || task.cr3Source === 'thread' ? task.cr3 : null;
}

function isBroken(error: unknown): boolean {
  return error instanceof CorruptError || error instanceof FaultError;
}

function unlessBroken<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (isBroken(error)) return undefined;
    throw error;
  }
}

/** A vCPU loaded CR3. */
export class Cr3Write {
  readonly vcpu: number;
  /**
   * The value as it was written, with PCID. Xen strips the no-flush bit (63), and does not report a
   * write of the value that is loaded already.
   */
  readonly value: bigint;
  /** What the register held before. */
  readonly previous: bigint;
  readonly #names: Cr3Names;
  readonly #taken: number;
  #tasks: TaskList | undefined;
  #task: Task | undefined | null = null;

  /** @internal */
  constructor(write: RawCr3Write, names: Cr3Names, taken: number) {
    this.vcpu = write.vcpu;
    this.value = write.value;
    this.previous = write.previous;
    this.#names = names;
    this.#taken = taken;
  }

  /** Whether it is the kernel's own page table: a kernel thread or the idle task runs on it. */
  get kernel(): boolean {
    return this.#names.isKernel(this.value);
  }

  /**
   * The tasks on the address space that was loaded: `cr3ToTasks(value)`, asked once, when this is
   * first read, by a walk of all tasks. The guest has gone on since; an address space that lived
   * for a moment has none any more.
   * @throws {VmiError} as `cr3ToTasks`
   */
  get tasks(): TaskList {
    this.#tasks ??= this.#names.tasks(this.value);
    return this.#tasks;
  }

  /**
   * The process whose address space was loaded, of a moment after the write; of several that share
   * it, the oldest. `undefined` when there is none any more, and when {@link kernel}. Much cheaper
   * than `tasks`: a process that is known from an earlier write is looked up by its PID.
   * @throws {VmiError} as `tasks()`
   */
  get task(): Task | undefined {
    if (this.#task === null) this.#task = this.#names.task(this.value, this.#taken);
    return this.#task;
  }
}

/** Writes to CR3 as they happen. Made by `Guest.cr3Writes`. */
export class Cr3WriteStream implements AsyncIterableIterator<Cr3Write>, AsyncDisposable {
  readonly #raw: RawCr3Writes;
  readonly #names: Cr3Names;
  readonly #closed: () => void;

  /** @internal */
  constructor(raw: RawCr3Writes, names: Cr3Names, closed: () => void) {
    this.#raw = raw;
    this.#names = names;
    this.#closed = closed;
  }

  /** Writes that were lost so far because nobody took them in time; as of now. */
  get dropped(): number {
    return this.#raw.dropped;
  }

  /** When the last write was taken at the latest, as `performance.now()`. */
  get taken(): number {
    return this.#raw.taken;
  }

  /** Writes that were lost by then; those that come with one `taken` have no gap if it stays. */
  get droppedByThen(): number {
    return this.#raw.droppedByThen;
  }

  /**
   * The next write. Listening begins with the first.
   * @throws {VmiError} `VMI_CLOSED`: the guest has ended. `VMI_EVENTS_TAKEN`: somebody else listens
   * to this domain of Xen, or has left its events on. `VMI_BUSY`: the process that listens was
   * stopped or took nothing, and the guest was let go. `VMI_CRASHED`, `VMI_ABORTED`,
   * `VMI_UNSUPPORTED` with the reason. The stream is closed then
   */
  async next(): Promise<IteratorResult<Cr3Write, undefined>> {
    const result = await this.#raw.next();
    return result.done === true
      ? result
      : { done: false, value: new Cr3Write(result.value, this.#names, this.#raw.taken) };
  }

  /** Ends listening: the guest goes on. What leaving a `for await` calls. Idempotent. */
  async return(): Promise<IteratorResult<Cr3Write, undefined>> {
    await this.#raw.close().finally(this.#closed);
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }
}
