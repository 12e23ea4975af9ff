import type { RawCr3Write, RawCr3Writes } from '../memory/cr3-writes.js';
import type { Task } from '../tasks/task.js';
import type { TaskList } from '../tasks/task-list.js';

/** A vCPU loaded CR3. */
export class Cr3Write {
  readonly vcpu: number;
  /** The value as it was written, with PCID and the no-flush bit. */
  readonly value: bigint;
  /** What the register held before. */
  readonly previous: bigint;
  readonly #find: (cr3: bigint) => TaskList;
  #tasks: TaskList | undefined;

  /** @internal */
  constructor(write: RawCr3Write, find: (cr3: bigint) => TaskList) {
    this.vcpu = write.vcpu;
    this.value = write.value;
    this.previous = write.previous;
    this.#find = find;
  }

  /**
   * The tasks on the address space that was loaded: `cr3ToTasks(value)`, asked once, when this is
   * first read. The guest has gone on since; an address space that lived for a moment has none any
   * more.
   * @throws {VmiError} as `cr3ToTasks`
   */
  get tasks(): TaskList {
    this.#tasks ??= this.#find(this.value);
    return this.#tasks;
  }

  /**
   * The process of {@link tasks}: its leader, or the first of them; `undefined` when there is none.
   */
  get task(): Task | undefined {
    return this.tasks.find(({ leader }) => leader) ?? this.tasks[0];
  }
}

/** Writes to CR3 as they happen. Made by `Guest.cr3Writes`. */
export class Cr3WriteStream implements AsyncIterableIterator<Cr3Write>, AsyncDisposable {
  readonly #raw: RawCr3Writes;
  readonly #find: (cr3: bigint) => TaskList;
  readonly #closed: () => void;

  /** @internal */
  constructor(raw: RawCr3Writes, find: (cr3: bigint) => TaskList, closed: () => void) {
    this.#raw = raw;
    this.#find = find;
    this.#closed = closed;
  }

  /** Writes that were lost so far because nobody took them in time. */
  get dropped(): number {
    return this.#raw.dropped;
  }

  /**
   * The next write. Listening begins with the first.
   * @throws {VmiError} `VMI_UNSUPPORTED` with the reason, `VMI_ABORTED`, `VMI_CRASHED`, `VMI_BUSY`;
   *   the stream is closed then
   */
  async next(): Promise<IteratorResult<Cr3Write, undefined>> {
    const result = await this.#raw.next();
    return result.done === true
      ? result
      : { done: false, value: new Cr3Write(result.value, this.#find) };
  }

  /**
   * Ends listening: the guest is drained of events and goes on. What leaving a `for await` calls.
   * Idempotent.
   */
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
