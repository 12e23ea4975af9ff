import { VmiError } from '../../errors.js';
import {
  auxv,
  exe,
  type PageState,
  pageState,
  threads,
  type UserRegisters,
  userRegisters,
  type Vma,
  vmas,
} from '../../helpers/index.js';
import { type Guest, type StructObject, type Task, VirtualMemory } from '../../index.js';

/** Threads of a process that are told at most. */
const MAX_THREADS = 65_536;

/** A thread's registers, or why they are not known. */
export type ThreadRegisters = { readonly saved: UserRegisters } | { readonly why: string };

/** Why bytes cannot be read. */
export interface Absent {
  readonly address: bigint;
  readonly state: PageState;
  /** What the process has there; `undefined`: nothing. */
  readonly area: Vma | undefined;
}

/**
 * One process of a guest, as a debugger sees it: looked up anew at each question, so that what is
 * told is never of another process with the same PID.
 */
export class ProcessView {
  readonly guest: Guest;
  readonly pid: number;
  readonly #startTime: bigint;

  /**
   * @param pid of a process, or a TID of one of its threads
   * @throws {VmiError} `VMI_NO_TASK`; `VMI_UNSUPPORTED`: a thread of the kernel, or exited
   */
  constructor(guest: Guest, pid: number) {
    const task = guest.task(pid);
    const leader = task.leader ? task : guest.task(task.tgid);
    this.guest = guest;
    this.pid = leader.pid;
    this.#startTime = leader.startTime;
    this.#mm();
  }

  /** @throws {VmiError} `VMI_NO_TASK`: the process has ended */
  #leader(): Task {
    const task = this.guest.findTask(this.pid);
    if (task === undefined || task.startTime !== this.#startTime) throw this.#ended();
    return task;
  }

  #ended(): VmiError {
    return new VmiError('VMI_NO_TASK', `process ${this.pid} has ended`);
  }

  /** A task of it that has the address space: the leader may have exited before its threads. */
  #withMm(): StructObject {
    const leader = this.#leader();
    if (leader.mm !== null) return leader.object;
    for (const thread of threads(leader.object)) if (thread.mm !== null) return thread;
    throw new VmiError(
      'VMI_UNSUPPORTED',
      `${this.pid} has no user memory: it is a thread of the kernel, or has exited`,
    );
  }

  #mm(): StructObject {
    return this.#withMm().mm as StructObject;
  }

  /** Its threads, the leader first where it lives. @throws {VmiError} `VMI_NO_TASK` */
  threads(): number[] {
    const all: number[] = [];
    for (const thread of threads(this.#leader().object)) {
      // A thread that exited has nothing more to show.
      if (thread.mm !== null) all.push(thread.pid as number);
      if (all.length >= MAX_THREADS) break;
    }
    return all;
  }

  /** One of its threads. @throws {VmiError} `VMI_NO_TASK` */
  thread(tid: number): Task {
    this.#leader();
    const task = this.guest.task(tid);
    if (task.tgid !== this.pid)
      throw new VmiError('VMI_NO_TASK', `${tid} is no thread of process ${this.pid}`);
    return task;
  }

  /** @throws {VmiError} `VMI_NO_TASK` */
  registers(tid: number): ThreadRegisters {
    const { object } = this.thread(tid);
    try {
      return { saved: userRegisters(this.guest.objects, object) };
    } catch (error) {
      if (!(error instanceof VmiError) || error.code === 'VMI_CLOSED') throw error;
      return { why: error.message };
    }
  }

  /** Whether it is a 32-bit program, by the first of its threads whose registers are known. */
  isCompat(): boolean {
    for (const tid of this.threads()) {
      const found = this.registers(tid);
      if ('saved' in found) return found.saved.compat;
    }
    return false;
  }

  /**
   * Bytes of its memory up to the first that cannot be read.
   * @throws {VmiError} `VMI_NO_TASK`
   */
  read(address: bigint, length: number): Uint8Array {
    this.#leader();
    const cr3 = this.guest.pidToCr3(this.pid);
    if (cr3 === null) throw this.#ended();
    const { memory, kernel } = this.guest;
    const space = new VirtualMemory(memory, cr3, kernel.levels);
    space.begin();
    const bytes = new Uint8Array(length);
    return bytes.subarray(0, space.readInto(address, bytes));
  }

  /** What is at an address that cannot be read. @throws {VmiError} */
  absent(address: bigint): Absent {
    const mm = this.#mm();
    const state = pageState(this.guest.objects, mm, address);
    let area: Vma | undefined;
    for (const vma of vmas(mm)) if (address >= vma.start && address < vma.end) area = vma;
    return { address, state, area };
  }

  /** The parts of its address space. @throws {VmiError} */
  areas(): Generator<Vma> {
    return vmas(this.#mm());
  }

  /** `/proc/PID/auxv` @throws {VmiError} */
  auxv(): Uint8Array {
    return auxv(this.#withMm(), this.isCompat()) ?? new Uint8Array();
  }

  /** Path of its program, in the guest. @throws {VmiError} */
  exe(): string {
    return exe(this.#withMm()) ?? '';
  }
}
