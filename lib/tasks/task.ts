import { inspect } from 'node:util';
import { hex, VmiError } from '../errors.js';
import { escapeBytes } from '../escape.js';
import { objectsOf } from '../objects/kernel-objects.js';
import type { StructObject } from '../objects/struct-object.js';
import type { Stack } from '../stacks/frames.js';
import { unwinderOf } from '../stacks/unwind.js';
import type { Cr3Source } from './cr3.js';
import type { Listing } from './listing.js';
import { faultBits, PF_KTHREAD } from './task-members.js';

/**
 * A task in the form that `JSON.stringify` gives: addresses are hex strings, nanoseconds a decimal
 * string.
 */
export interface TaskJson {
  readonly pid: number;
  readonly tgid: number;
  readonly ppid: number | null;
  readonly comm: string;
  readonly commHex: string;
  readonly uid: number | null;
  readonly state: string;
  readonly kthread: boolean;
  readonly startTime: string;
  readonly nsPids: readonly number[];
  readonly task: string;
  readonly mm: string | null;
  readonly activeMm: string | null;
  readonly pgd: string | null;
  readonly cr3: string | null;
  readonly cr3Source: Cr3Source | 'corrupt';
  readonly userCr3?: string | null;
  /** Present in a PV guest of Xen: `cr3` and `userCr3` are addresses of the machine. */
  readonly addressing?: 'machine';
  /** Fields whose memory could not be read; left out when there are none. */
  readonly unreadable?: readonly TaskField[];
  /** Why `cr3` is null although the task names an address space. */
  readonly error?: string;
}

/** Fields of a {@link Task} that hang on memory of their own, and the columns that each needs. */
const FIELDS = {
  tgid: faultBits('tgid'),
  ppid: faultBits('parent', 'ppid'),
  comm: faultBits('comm'),
  uid: faultBits('cred', 'uid'),
  state: faultBits('state', 'exitState'),
  nsPids: faultBits('threadPid', 'level'),
} as const;
/** A field of a {@link Task} that can be unreadable. */
export type TaskField = keyof typeof FIELDS;

// fs/proc/array.c, task_state_array; include/linux/sched.h, TASK_REPORT and TASK_NOLOAD.
const STATE_LETTERS = 'RSDTtXZP';
const TASK_REPORT = 0x7f;
const TASK_UNINTERRUPTIBLE = 0x2;
const TASK_NOLOAD = 0x400;

/**
 * One task (a process's leader or any of its threads) as it was when it was read: a snapshot, not a
 * live object. Getters decode the row that was gathered; none of them reads the guest again.
 */
export class Task {
  readonly #listing: Listing;
  readonly #row: number;

  /** @internal */
  constructor(listing: Listing, row: number) {
    this.#listing = listing;
    this.#row = row;
  }

  /** PID of the task in the initial namespace; for a thread that is not the leader, its TID. */
  get pid(): number {
    return this.#listing.rows.words('pid')[this.#row]!;
  }

  /** Thread group: the PID of the process. */
  get tgid(): number {
    return this.#listing.rows.words('tgid')[this.#row]!;
  }

  /** Whether this task is its process's leader. */
  get leader(): boolean {
    return this.pid === this.tgid;
  }

  /**
   * Fields that mean nothing here because the guest memory they come from could not be read: `comm`
   * is then empty, `state` is `?`, `ppid` and `uid` are null. Empty for every task of a sane guest.
   */
  get unreadable(): readonly TaskField[] {
    if (this.#listing.rows.faults[this.#row] === 0) return [];
    return (Object.keys(FIELDS) as TaskField[]).filter((field) => this.#isUnreadable(field));
  }

  #isUnreadable(field: TaskField): boolean {
    return (this.#listing.rows.faults[this.#row]! & FIELDS[field]) !== 0;
  }

  /** The parent process (`real_parent->tgid`); `null` when it cannot be read. */
  get ppid(): number | null {
    const { rows } = this.#listing;
    if (this.#isUnreadable('ppid') || rows.longs('parent')[this.#row] === 0n) return null;
    return rows.words('ppid')[this.#row]!;
  }

  /** The bytes of `comm` up to the first NUL, at most 15 in a sane guest, 16 in any. */
  get commBytes(): Uint8Array {
    const bytes = this.#listing.rows.bytes('comm', this.#row);
    const end = bytes.indexOf(0);
    return bytes.slice(0, end < 0 ? bytes.length : end);
  }

  /**
   * `comm` as text that is safe to print: what is no printable UTF-8 is escaped (`\n`, `\x1b`,
   * `\xe2`), a backslash is doubled. A process chooses these bytes itself.
   */
  get comm(): string {
    return escapeBytes(this.commBytes);
  }

  /** Real user id, in the initial user namespace; `null` when the credentials cannot be read. */
  get uid(): number | null {
    const { rows } = this.#listing;
    if (this.#isUnreadable('uid') || rows.longs('cred')[this.#row] === 0n) return null;
    return rows.words('uid')[this.#row]!;
  }

  /** `task_struct.flags` (PF_…). */
  get flags(): number {
    return this.#listing.rows.words('flags')[this.#row]!;
  }

  /** The letter that ps(1) shows: R, S, D, T, t, X, Z, P or I. */
  get state(): string {
    const { rows } = this.#listing;
    if (this.#isUnreadable('state')) return '?';
    const state = rows.words('state')[this.#row]!;
    const exit = rows.words('exitState')[this.#row]!;
    if (
      (state & (TASK_UNINTERRUPTIBLE | TASK_NOLOAD)) === (TASK_UNINTERRUPTIBLE | TASK_NOLOAD) &&
      exit === 0
    )
      return 'I';
    const reported = (state | exit) & TASK_REPORT;
    return STATE_LETTERS[reported === 0 ? 0 : 32 - Math.clz32(reported)] ?? '?';
  }

  /** Whether it is a kernel thread (PF_KTHREAD). */
  get kthread(): boolean {
    return (this.flags & PF_KTHREAD) !== 0;
  }

  /**
   * Monotonic time at which the task started, nanoseconds since boot; with `pid` it names a task
   * for good.
   */
  get startTime(): bigint {
    return this.#listing.rows.longs('startTime')[this.#row]!;
  }

  /** PIDs in every PID namespace the task is in, the outermost first; `[pid]` for most. */
  get nsPids(): readonly number[] {
    return this.#listing.nsPids(this.#row);
  }

  /** Virtual address of the `task_struct`. */
  get address(): bigint {
    return this.#listing.rows.bases[this.#row]!;
  }

  /** Virtual address of the `mm_struct`; `null` for kernel threads and exited tasks. */
  get mm(): bigint | null {
    return this.#listing.rows.longs('mm')[this.#row]! || null;
  }

  /**
   * Virtual address of the `mm_struct` that the task runs on; `null` when it is off the CPU and has
   * none.
   */
  get activeMm(): bigint | null {
    return this.#listing.rows.longs('activeMm')[this.#row]! || null;
  }

  /**
   * Virtual address of the page global directory behind {@link cr3}; `null` when there is none.
   * @throws {CorruptError} the task names an address space that is none
   */
  get pgd(): bigint | null {
    return this.#listing.pgd(this.#row) || null;
  }

  /**
   * What CR3 holds while this task runs: the physical address of its page global directory, without
   * PCID. `null` when it has none: a kernel thread off the CPU, an exited task. Never 0. {@link
   * cr3Source} says where it comes from.
   *
   * In a PV guest of Xen (`guest.memory.addressing` is `'machine'`) it is the machine address of
   * that page, as Xen loads it while the kernel runs for this task; `guest.toPhysical(cr3)` is what
   * the guest itself calls its physical address. arch/x86/xen/mmu_pv.c.
   * @throws {CorruptError} the task names an address space that is none
   */
  get cr3(): bigint | null {
    return this.#listing.cr3(this.#row);
  }

  /** Where {@link cr3} comes from. @throws {CorruptError} as `cr3` */
  get cr3Source(): Cr3Source {
    return this.#listing.source(this.#row);
  }

  /**
   * What CR3 holds in user mode where that is another table: the user half of the pair under
   * page-table isolation (Documentation/arch/x86/pti.rst), the user's page directory in a PV guest
   * of Xen (a machine address, of a page that may be anywhere; `null` for init_mm, which has none).
   * `undefined` in guests with one table for both modes.
   */
  get userCr3(): bigint | null | undefined {
    return this.#listing.userCr3(this.#row);
  }

  /**
   * Its `task_struct`, every member read when it is asked for: not the snapshot that this is, but
   * what is at its address now.
   */
  get object(): StructObject {
    return objectsOf(this.#listing.kernel).object(
      'struct task_struct',
      this.address,
    ) as StructObject;
  }

  /**
   * The kernel functions that it is in now, the innermost first, by the kernel's own tables (ORC).
   * @throws {VmiError} `VMI_UNSUPPORTED`: it runs on a CPU, or has exited
   */
  stack(): Stack {
    return unwinderOf(objectsOf(this.#listing.kernel)).stack(this.address);
  }

  toJSON(): TaskJson {
    const { unreadable } = this;
    const { addressing } = this.#listing.kernel.memory.physical;
    let answer: Pick<TaskJson, 'pgd' | 'cr3' | 'cr3Source' | 'userCr3' | 'error'>;
    try {
      const { userCr3 } = this;
      answer = {
        pgd: hexOrNull(this.pgd),
        cr3: hexOrNull(this.cr3),
        cr3Source: this.cr3Source,
        ...(userCr3 === undefined ? {} : { userCr3: hexOrNull(userCr3) }),
      };
    } catch (error) {
      if (!(error instanceof VmiError)) throw error;
      answer = { pgd: null, cr3: null, cr3Source: 'corrupt', error: error.message };
    }
    return {
      pid: this.pid,
      tgid: this.tgid,
      ppid: this.ppid,
      comm: this.comm,
      commHex: Buffer.from(this.commBytes).toString('hex'),
      uid: this.uid,
      state: this.state,
      kthread: this.kthread,
      startTime: this.startTime.toString(),
      nsPids: this.nsPids,
      task: hex(this.address),
      mm: hexOrNull(this.mm),
      activeMm: hexOrNull(this.activeMm),
      ...answer,
      ...(unreadable.length > 0 ? { unreadable } : {}),
      ...(addressing === 'machine' ? { addressing } : {}),
    };
  }

  [inspect.custom](
    _depth: number,
    options: { stylize(text: string, style: string): string },
  ): string {
    const { pid, comm, cr3, cr3Source } = this.toJSON();
    const value = cr3 === null ? options.stylize('null', 'null') : options.stylize(cr3, 'number');
    return `Task ${options.stylize(String(pid), 'number')} ${options.stylize(`'${comm}'`, 'string')} { cr3: ${value}, source: ${cr3Source} }`;
  }
}

function hexOrNull(value: bigint | null): string | null {
  return value === null ? null : hex(value);
}
