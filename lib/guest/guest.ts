import { inspect } from 'node:util';
import { type AddressLike, toAddress } from '../address.js';
import { hex, VmiError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import type { SymbolPlace } from '../kernel/symbols/table.js';
import type { StructType } from '../kernel/types/table.js';
import type { Cr3WriteOptions } from '../memory/cr3-writes.js';
import type { Capabilities, PhysicalMemory, VcpuRegisters } from '../memory/physical-memory.js';
import { checkName, checkNone, checkOptions } from '../options.js';
import type { TaskColumns } from '../tasks/columns.js';
import { cr3Base, pgdToCr3 } from '../tasks/cr3.js';
import type { CrossList } from '../tasks/cross-view.js';
import type { Task } from '../tasks/task.js';
import type { TaskList } from '../tasks/task-list.js';
import type { ListOptions } from '../tasks/task-walk.js';
import { Tasks } from '../tasks/tasks.js';
import { Cr3WriteStream, namesIn } from './cr3-writes.js';
import { type Explanation, explain } from './explain.js';
import type { GuestCpu } from './guest-cpu.js';
import { GuestValues } from './guest-values.js';
import { GuestWatch } from './guest-watch.js';
import { checkListOptions } from './list-options.js';
import { type Pause, Pauses } from './pause.js';
import { checkPid, noTask } from './pid.js';

/** What a guest is read through. */
export interface Attached {
  readonly memory: PhysicalMemory;
  readonly kernel: Kernel;
}

/** One attached guest. Made by {@link attach}; `close()` it, or declare it with `await using`. */
export class Guest extends GuestValues implements AsyncDisposable {
  /** The target string it was attached by. */
  readonly target: string;
  #attached: Attached;
  #watch: GuestWatch;
  #readers: Tasks | undefined;
  #pauses: Pauses;
  readonly #reopen: (() => Promise<Attached>) | undefined;
  #background: Promise<unknown> | undefined;

  /** @internal @param reopen opens and searches the same target anew */
  constructor(
    target: string,
    memory: PhysicalMemory,
    kernel: Kernel,
    reopen?: () => Promise<Attached>,
  ) {
    super();
    this.target = target;
    this.#attached = { memory, kernel };
    this.#reopen = reopen;
    this.#watch = new GuestWatch(kernel);
    this.#pauses = new Pauses(memory);
  }

  /** @throws {VmiError} what is not known of the kernel, so that its tasks cannot be read */
  get #tasks(): Tasks {
    if (this.#readers !== undefined) return this.#readers;
    if (this.kernel.lacking !== undefined) throw this.kernel.lacking;
    // They read the guest when they are made, and that is an operation of its own: after a crash
    // of libvmi only a new operation starts it anew.
    this.memory.begin();
    this.#readers = new Tasks(this.kernel);
    return this.#readers;
  }

  /** Its physical memory. */
  get memory(): PhysicalMemory {
    return this.#attached.memory;
  }

  /** The kernel that it runs. */
  get kernel(): Kernel {
    return this.#attached.kernel;
  }

  /**
   * Looks at the guest anew, as {@link attach} did: after a reset, and after memory was plugged
   * into it. `memory` and `kernel` are other objects then; pauses end, streams end. Where it fails,
   * the guest stays as it was.
   * @throws {VmiError} as {@link attach}; `VMI_UNSUPPORTED`: it was not made by `attach`
   */
  async reattach(...none: []): Promise<void> {
    checkNone(none, 'reattach()');
    if (this.#reopen === undefined)
      throw new VmiError('VMI_UNSUPPORTED', `${this.target} was not attached by attach()`);
    const next = await this.#reopen();
    const { memory } = this;
    await this.endStreams();
    await this.#pauses.endAll();
    await this.#background;
    this.#attached = next;
    this.#watch = new GuestWatch(next.kernel);
    this.#readers = undefined;
    this.#pauses = new Pauses(next.memory);
    this.#background = next.kernel.remember();
    // A memory that the caller made is searched anew, and stays.
    if (memory !== next.memory) await memory.close();
  }

  /** What this guest's source can do. */
  get capabilities(): Capabilities {
    return this.memory.capabilities;
  }

  /**
   * Every process, or with `threads` every thread of every process, by the kernel's own lists.
   * Snapshots; on a live guest each row is consistent in itself, the list as a whole is what the
   * walk met.
   * @throws {CorruptError} a list is broken for good
   */
  tasks(options: ListOptions = {}): TaskList {
    checkListOptions(options);
    return this.#watch.ask(() => this.#tasks.list(options));
  }

  /**
   * The same as {@link tasks}, as typed columns: for tools that take thousands of tasks at a time.
   */
  taskColumns(options: ListOptions = {}): TaskColumns {
    checkListOptions(options);
    return this.#watch.ask(() => this.#tasks.columns(options));
  }

  /**
   * The task with this PID or TID, in the initial PID namespace, by the kernel's own look-up.
   * @throws {RangeError} `pid` is no PID
   * @throws {VmiError} `VMI_NO_TASK`
   */
  task(pid: number): Task {
    const task = this.findTask(pid);
    if (task === undefined) throw noTask(pid);
    return task;
  }

  /**
   * Like {@link task}, but `undefined` when there is none.
   * @throws {RangeError} `pid` is no PID
   */
  findTask(pid: number): Task | undefined {
    const checked = checkPid(pid);
    return this.#watch.ask(() => this.#tasks.find(checked));
  }

  /**
   * What CR3 holds while the task runs, without PCID; `null` for a kernel thread off the CPU and
   * for an exited task. Never 0. `task(pid).cr3Source` says where the answer comes from.
   * @throws {VmiError} `VMI_NO_TASK`: there is no such task
   * @throws {CorruptError} the task names an address space that is none
   */
  pidToCr3(pid: number): bigint | null {
    const checked = checkPid(pid);
    let cr3: bigint | null | undefined;
    // Not by `ask`: to make a function for each look-up takes a thirtieth of its time.
    try {
      this.#watch.checkNowAndThen();
      cr3 = this.#tasks.cr3(checked);
    } catch (error) {
      throw this.#watch.explain(error);
    }
    if (cr3 !== undefined) return cr3;
    this.#watch.check();
    throw noTask(pid);
  }

  /**
   * Every task and thread that runs on an address space. Empty when no task does; `kernel` says
   * that it is the kernel's own page table.
   * @param cr3 any value that a CR3 register or event holds: PCID, no-flush and LAM bits, and the
   *   user half of a pair. Of several, the lists in their order, by one walk of all tasks
   */
  cr3ToTasks(cr3: AddressLike): TaskList;
  cr3ToTasks(cr3s: readonly AddressLike[]): TaskList[];
  cr3ToTasks(cr3: AddressLike | readonly AddressLike[]): TaskList | TaskList[] {
    const many = Array.isArray(cr3);
    const values = (many ? cr3 : [cr3 as AddressLike]).map((one) => toAddress(one, 'cr3'));
    if (values.length === 0) return [];
    const lists = this.#watch.ask(() => this.#tasks.withCr3s(values));
    return many ? lists : lists[0]!;
  }

  /**
   * Page-table base of any value that CR3 can hold in this guest; of a PV guest of Xen, kernel's or
   * user's as it is.
   */
  cr3Base(cr3: AddressLike): bigint {
    return cr3Base(toAddress(cr3, 'cr3'), this.kernel.pti);
  }

  /**
   * Goes from a PID to CR3 step by step, and keeps each: address, bytes, meaning, the page walk,
   * and the line of this API that does the same. A step that fails ends it, and is told.
   * @throws {RangeError} `pid` is no PID
   */
  explain(pid: number): Explanation {
    return explain(this.kernel, checkPid(pid), (one) => this.#tasks.find(one));
  }

  /**
   * Joins every view of the tasks: the list of processes, the threads of each, the PID tree, what
   * the CPUs run. A row with `missing` views is a task that something hides, or that a bug has
   * lost. Of an image whose lists do not close, `torn` names the views
   * that no row can be said to miss.
   */
  crossView(...none: []): CrossList {
    checkNone(none, 'crossView()');
    return this.#watch.ask(() => this.#tasks.cross());
  }

  /**
   * What each CPU runs and has loaded, read from memory: task and page table of one moment, or
   * `switching`.
   * @throws {FaultError} what a CPU runs cannot be read
   */
  cpus(...none: []): GuestCpu[] {
    checkNone(none, 'cpus()');
    return this.#watch.ask(() =>
      this.#tasks.cpus().map(({ cpu, task }) => ({
        cpu: cpu.cpu,
        task,
        cr3: cpu.loadedPgd === 0n ? null : pgdToCr3(this.kernel, cpu.loadedPgd),
        switching: cpu.switching,
        ...(cpu.error === undefined ? {} : { error: cpu.error }),
      })),
    );
  }

  /**
   * Registers of every vCPU, from the hypervisor: all that the source tells. Of one moment where it
   * is QEMU's monitor or an image; through libvmi each is read for itself, so pause the guest.
   * @throws {VmiError} `VMI_UNSUPPORTED`: the source has none
   */
  registers(options: { readonly signal?: AbortSignal } = {}): Promise<VcpuRegisters[]> {
    return this.memory.registers({ ...checkOptions(options, { signal: true }), all: true });
  }

  /** Address of a kernel symbol. @throws {VmiError} `VMI_SYMBOL` with names that come close */
  symbol(name: string): bigint {
    return this.kernel.symbols.address(checkName(name));
  }

  /** The symbol at or below an address. */
  symbolAt(address: AddressLike): SymbolPlace | undefined {
    return this.kernel.symbols.at(toAddress(address));
  }

  /**
   * A structure of this guest's kernel. @throws {VmiError} `VMI_TYPE` with names that come close
   */
  type(name: string): StructType {
    return this.kernel.types.struct(checkName(name));
  }

  /**
   * Stops the guest until the returned pause is disposed of; also when the process exits.
   * @throws {VmiError} `VMI_UNSUPPORTED`: the source cannot
   */
  async pause(...none: []): Promise<Pause> {
    checkNone(none, 'pause()');
    return this.#pauses.begin();
  }

  /**
   * Writes to CR3 as they happen, in libvmi's order: who was switched to, on which vCPU. Leaving
   * the loop ends it, and so does `close()`. The guest never waits for the reader: see docs/xen.md.
   * Where `capabilities.events` is false it is refused at once; where the hypervisor refuses, by
   * the first `next()`.
   * @throws {VmiError} `VMI_UNSUPPORTED`
   * @throws {RangeError} `queue`
   */
  cr3Writes(options: Cr3WriteOptions = {}): Cr3WriteStream {
    const raw = this.memory.cr3Writes(options);
    const names = namesIn(this.kernel, this.#tasks);
    return this.stream((closed) => new Cr3WriteStream(raw, names, closed));
  }

  /** Ends streams, resumes the guest if it was paused here, and releases everything. Idempotent. */
  async close(): Promise<void> {
    await this.endStreams();
    await this.#pauses.endAll();
    await this.#background;
    await this.memory.close();
  }

  /** @internal Work that `close()` waits for; it must not fail. */
  beforeClose(work: Promise<unknown>): void {
    this.#background = work;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  [inspect.custom](): string {
    return `Guest ${this.target} { Linux ${this.kernel.release}, ${this.memory.size >> 20n} MiB, cr3: ${hex(this.kernel.cr3)} }`;
  }

  protected ask<T>(question: () => T): T {
    return this.#watch.ask(question);
  }
}
