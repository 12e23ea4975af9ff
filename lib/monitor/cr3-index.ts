import { type AddressLike, toAddress } from '../address.js';
import { FaultError, VmiError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import { checkOptions, checkWhole, describe, type OptionNames } from '../options.js';
import { cr3Base } from '../tasks/cr3.js';
import type { Task } from '../tasks/task.js';

/** How often an index looks, and what it keeps. */
export interface Cr3IndexOptions {
  /** Milliseconds between two looks at the guest, 1 to 60,000; default 20. */
  readonly interval?: number;
  /** Tasks that have gone and are kept, the latest ones, 0 to 10,000,000; default 100,000. */
  readonly keep?: number;
}

/** A task that has, or has had, an address space of its own. */
export interface Cr3Owner {
  readonly pid: number;
  readonly tgid: number;
  readonly comm: string;
  /** Monotonic start time, nanoseconds since boot; with `pid` it names a task for good. */
  readonly startTime: bigint;
  /** Virtual address of the `task_struct`. */
  readonly address: bigint;
  /** Page-table base that CR3 holds while it runs. */
  readonly cr3: bigint;
  /**
   * Host times from and to which it is known to have had it, milliseconds since 1970. `last` is
   * before `first` for a task that one look alone has met.
   */
  readonly first: number;
  readonly last: number;
  /** Whether it has exited, or executed something else since. */
  readonly gone: boolean;
}

/** Whose a CR3 value is. */
export interface Cr3Name {
  /** As it was asked for. */
  readonly value: bigint;
  /** Page-table base without PCID and the other bits. */
  readonly cr3: bigint;
  /** Whether it is the kernel's own page table: any kernel thread and idle CPU may run on it. */
  readonly kernel: boolean;
  /**
   * Tasks that have had it, leaders of processes first, the latest first. Empty: nobody who was
   * seen. At a time that was asked for, those who had it then; where nobody was seen to have it
   * before and after that time, everybody who ever had it.
   */
  readonly owners: readonly Cr3Owner[];
  /**
   * Whether the owners are known to have had it at the time that was asked for: they were seen with
   * it before and after. Page tables are used again, so without a time, and between two owners,
   * nobody can be sure.
   */
  readonly certain: boolean;
}

/** What an index needs of a guest. */
export interface IndexedGuest {
  readonly kernel: Kernel;
  tasks(options: { readonly threads: boolean }): readonly Task[];
  findTask(pid: number): Task | undefined;
}

interface Entry extends Cr3Owner {
  last: number;
  gone: boolean;
  readonly mm: bigint | null;
  /** The look at which it was seen last. */
  look: number;
}

const NAMES: OptionNames<Cr3IndexOptions> = { interval: true, keep: true };
const MAX_INTERVAL = 60_000;
const MAX_KEEP = 10_000_000;
/** Times that the first look is repeated because tasks were born meanwhile. */
const FIRST_LOOKS = 8;
/** Bits that no CR3 value has: 52 to 60. SDM vol. 3A, 2.5. */
const RESERVED = 0x1ff0_0000_0000_0000n;

/**
 * Remembers which task has had which CR3 value, by looking at all tasks again and again, so that
 * the values of a log can be named after their tasks have gone. What lives for less than the
 * interval may never be seen; {@link lost} counts it by the kernel's own count of forks.
 */
export class Cr3Index implements AsyncDisposable {
  readonly #guest: IndexedGuest;
  readonly #keep: number;
  readonly #timer: NodeJS.Timeout;
  readonly #closed: () => void;
  readonly #byCr3 = new Map<bigint, Entry[]>();
  /** The entry of each task that was there at the last look, by the address of its task_struct. */
  #present = new Map<bigint, Entry>();
  /** Entries that have gone, the oldest first. */
  #gone: Entry[] = [];
  /** Start time of every task of the last look, by the address of its task_struct. */
  #identities = new Map<bigint, bigint>();
  #look = 0;
  #born = 0;
  #forks: bigint | undefined;
  #startForks: bigint | undefined;
  #error: unknown;

  /** @internal */
  constructor(guest: IndexedGuest, options: Cr3IndexOptions, closed: () => void) {
    checkOptions(options, NAMES);
    const { interval = 20, keep = 100_000 } = options;
    checkWhole(interval, 'interval', 1, MAX_INTERVAL);
    this.#keep = checkWhole(keep, 'keep', 0, MAX_KEEP);
    this.#guest = guest;
    this.#closed = closed;
    this.#begin();
    this.#timer = setInterval(() => this.#lookQuietly(), interval);
    // Recording alone keeps no process alive.
    this.#timer.unref();
  }

  /** Looks until no task is born meanwhile, so that what is counted from then on adds up. */
  #begin(): void {
    for (let look = 0; look < FIRST_LOOKS; look++) {
      this.look();
      this.#startForks = this.#forks;
      this.#born = 0;
      if (this.#readForks() === this.#forks) return;
    }
  }

  /** Tasks and threads that are known: those that run, and those that have gone. */
  get size(): number {
    return this.#present.size + this.#gone.length;
  }

  /**
   * Tasks and threads that were born since this began and that no look has met; `null` where the
   * kernel's count cannot be read. kernel/fork.c, total_forks.
   */
  get lost(): number | null {
    if (this.#forks === undefined || this.#startForks === undefined) return null;
    return Math.max(0, Number(BigInt.asUintN(64, this.#forks - this.#startForks)) - this.#born);
  }

  /** Why looking has ended by itself: the guest is gone, or was reset. */
  get error(): unknown {
    return this.#error;
  }

  /**
   * Looks at the guest now; otherwise it is done at every interval.
   * @throws {VmiError} as `Guest.tasks`
   */
  look(): void {
    const time = now();
    const forks = this.#readForks();
    const look = ++this.#look;
    const fresh: { task: Task; cr3: bigint }[] = [];
    const tasks = this.#guest.tasks({ threads: true });
    this.#count(tasks);
    for (const task of tasks) {
      const cr3 = ownCr3(task);
      if (cr3 === undefined) continue;
      const entry = this.#present.get(task.address);
      const same = entry?.startTime === task.startTime && entry.cr3 === cr3 && entry.mm === task.mm;
      if (same && entry.comm === task.comm) {
        entry.last = time;
        entry.look = look;
      } else {
        fresh.push({ task, cr3 });
      }
    }
    const stayed = new Map<bigint, Entry>();
    for (const [address, entry] of this.#present) {
      if (entry.look === look) stayed.set(address, entry);
      else this.#leave(entry);
    }
    this.#present = stayed;
    for (const { task, cr3 } of fresh) {
      if (this.#isConfirmed(task, cr3)) this.#enter(task, cr3, time);
    }
    this.#forks = forks;
    this.#forget();
  }

  /**
   * Whose a CR3 value is.
   * @param value any value a CR3 register can hold
   * @param at the host time at which it was held, milliseconds since 1970
   * @throws {TypeError} @throws {RangeError} no CR3 value, or no time
   */
  name(value: AddressLike, at?: number): Cr3Name {
    const address = toAddress(value, 'cr3');
    if (at !== undefined && !Number.isFinite(at))
      throw new TypeError(`Expected at as milliseconds since 1970 but received ${describe(at)}`);
    const { kernel } = this.#guest;
    const cr3 = cr3Base(address, kernel.pti);
    const isKernel = cr3 === cr3Base(kernel.root, kernel.pti);
    const all = (address & RESERVED) === 0n ? (this.#byCr3.get(cr3) ?? []) : [];
    const then =
      at === undefined ? [] : all.filter((entry) => entry.first <= at && at <= entry.last);
    const owners = (then.length > 0 ? then : [...all]).sort(
      (a, b) => rank(a) - rank(b) || b.last - a.last || a.pid - b.pid,
    );
    return {
      value: address,
      cr3,
      kernel: isKernel,
      owners: owners.map(toOwner),
      certain: isKernel || then.length > 0,
    };
  }

  /** Ends looking; what is known stays. Idempotent. */
  close(): void {
    clearInterval(this.#timer);
    this.#closed();
  }

  /** @internal For the guest that closes. */
  async return(): Promise<void> {
    this.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  #lookQuietly(): void {
    try {
      this.look();
    } catch (error) {
      // A list that changes faster than it can be followed is another at the next look.
      const passes = error instanceof VmiError && ['VMI_CORRUPT', 'VMI_FAULT'].includes(error.code);
      if (passes) return;
      this.#error = error;
      this.close();
    }
  }

  /**
   * Whether a task that was met with a CR3 it did not have before has it at a second look: a task
   * that executed something between the reads of its row and of its mm may show what that mm has
   * become.
   */
  #isConfirmed(task: Task, cr3: bigint): boolean {
    const again = this.#guest.findTask(task.pid);
    if (again === undefined || again.startTime !== task.startTime) return false;
    return again.address === task.address && again.mm === task.mm && ownCr3(again) === cr3;
  }

  /** @param time at which the look began: it has it now, and by the next look it has had it then */
  #enter(task: Task, cr3: bigint, time: number): void {
    const { pid, tgid, comm, startTime, address, mm } = task;
    const look = this.#look;
    const seen = { first: now(), last: time, gone: false, look };
    const entry: Entry = { pid, tgid, comm, startTime, address, mm, cr3, ...seen };
    this.#present.set(address, entry);
    const entries = this.#byCr3.get(cr3);
    if (entries === undefined) this.#byCr3.set(cr3, [entry]);
    else entries.push(entry);
  }

  /** Counts the tasks that were not there at the last look, kernel threads too. */
  #count(tasks: readonly Task[]): void {
    const identities = new Map<bigint, bigint>();
    for (const task of tasks) {
      const { address, startTime } = task;
      identities.set(address, startTime);
      if (this.#identities.get(address) !== startTime) this.#born++;
    }
    this.#identities = identities;
  }

  #leave(entry: Entry): void {
    entry.gone = true;
    this.#gone.push(entry);
  }

  /** Drops the oldest of those that have gone. */
  #forget(): void {
    const surplus = this.#gone.length - this.#keep;
    // Some at a time: each takes a search in a list.
    if (surplus <= this.#keep >> 4) return;
    for (const entry of this.#gone.slice(0, surplus)) {
      const left = this.#byCr3.get(entry.cr3)!.filter((other) => other !== entry);
      if (left.length > 0) this.#byCr3.set(entry.cr3, left);
      else this.#byCr3.delete(entry.cr3);
    }
    this.#gone = this.#gone.slice(surplus);
  }

  #readForks(): bigint | undefined {
    const { symbols, memory } = this.#guest.kernel;
    const address = symbols.find('total_forks');
    if (address === undefined) return undefined;
    try {
      return memory.readU64(address);
    } catch (error) {
      if (error instanceof FaultError) return undefined;
      throw error;
    }
  }
}

/** Milliseconds since 1970, with a fraction, and never backwards. */
function now(): number {
  return performance.timeOrigin + performance.now();
}

/** The CR3 of a task that has an address space of its own, or its process's; not a borrowed one. */
function ownCr3(task: Task): bigint | undefined {
  try {
    const { cr3Source } = task;
    return cr3Source === 'mm' || cr3Source === 'thread' ? (task.cr3 ?? undefined) : undefined;
  } catch (error) {
    // What cannot be told is nobody's.
    if (error instanceof VmiError) return undefined;
    throw error;
  }
}

/** Those who have it now before those who had it; leaders before their threads. */
function rank(entry: Entry): number {
  return (entry.gone ? 2 : 0) + (entry.pid === entry.tgid ? 0 : 1);
}

function toOwner({ mm: _, look: __, ...owner }: Entry): Cr3Owner {
  return owner;
}
