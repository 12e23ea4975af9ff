import { KERNEL_HALF } from '../x86-64.js';
import { type Doubt, doubt, type LayoutCase, mostly, PF_EXITING, PF_KTHREAD } from './case.js';
import { isPointer } from './guest-words.js';
import type { MemberName } from './members.js';
import type { SampledTask } from './task-sample.js';
import { isThreadOf, threadsOf } from './thread-sample.js';

/** Most PIDs a kernel gives. include/linux/threads.h, PID_MAX_LIMIT. */
const PID_MAX = 4_194_304;
/** Bits of a task's state; more are of other things. include/linux/sched.h, TASK_STATE_MAX. */
const STATE_BITS = 0x1_ffff;
/** A kernel thread that sleeps without counting as load. include/linux/sched.h, TASK_NOLOAD. */
const TASK_NOLOAD = 0x400;
/** EXIT_DEAD, EXIT_ZOMBIE. include/linux/sched.h. */
const EXIT_BITS = 0x30;
const SIGCHLD = 17;
/** Nanoseconds of 140 years: no guest has run for longer. */
const MAX_UPTIME = 1n << 62n;

/** The list of processes: it has at least PID 1. */
export function list(of: LayoutCase): Doubt | undefined {
  if (of.tasks.length > 1) return undefined;
  const why = 'the list of tasks is empty; either it is elsewhere, or the kernel still boots';
  return doubt(of, why, 'task_struct.tasks');
}

/** Members of which two are said to be in one place. */
export function sharedPlaces(of: LayoutCase): Doubt | undefined {
  const places = new Map<number, MemberName>();
  for (const [name, offset] of of.offsets) {
    if (!name.startsWith('task_struct.')) continue;
    const other = places.get(offset);
    if (other !== undefined) return doubt(of, 'both in one place', other, name);
    places.set(offset, name);
  }
  return undefined;
}

/** PIDs: 0 for init_task, 1 and 2 for the first two, all different. */
export function pids(of: LayoutCase): Doubt | undefined {
  const at = of.offset('task_struct.pid');
  if (at === undefined) return undefined;
  const pids = of.tasks.map((task) => task.u32(at));
  const seen = new Set<number>();
  const different = mostly(pids.slice(1), (pid) => {
    const fresh = pid > 0 && pid < PID_MAX && !seen.has(pid);
    seen.add(pid);
    return fresh;
  });
  if (pids[0] === 0 && different && pids.slice(1, 4).includes(1)) return undefined;
  return doubt(of, `the first tasks would have the PIDs ${pids.slice(0, 4)}`, 'task_struct.pid');
}

/** TGIDs: that of a leader is its PID, that of a thread is its leader's. */
export function tgids(of: LayoutCase): Doubt | undefined {
  const known = of.all('task_struct.pid', 'task_struct.tgid');
  if (known === undefined) return undefined;
  const [pid, tgid] = known;
  if (!mostly(of.tasks, (task) => task.u32(tgid) === task.u32(pid))) {
    return doubt(of, 'leaders of processes do not have their PID there', 'task_struct.tgid');
  }
  // Leaders do not tell one from the other. Written in this order, pid comes right before tgid.
  if (tgid === pid + 4) return undefined;
  const threads = threadsOf(of);
  const names = ['task_struct.pid', 'task_struct.tgid'] as const;
  if (threads.length === 0 && of.strict) {
    return doubt(of, 'no process has a second thread, so they cannot be told apart', ...names);
  }
  const right = mostly(threads, ({ thread, leader }) => isThreadOf(thread, leader, pid, tgid));
  return right ? undefined : doubt(of, 'threads have them the other way round', ...names);
}

/** Address spaces: NULL, or one whose page directory maps the kernel. */
export function mms(of: LayoutCase): Doubt | undefined {
  const known = of.all('task_struct.mm', 'mm_struct.pgd');
  if (known === undefined) return undefined;
  const [mm, pgd] = known;
  const users = of.others.filter((task) => task.u64(mm) !== 0n);
  // Before it executes the first program, PID 1 has none, and nobody else has.
  if (users.length === 0) {
    return of.strict ? doubt(of, 'no task has an address space', 'task_struct.mm') : undefined;
  }
  if (!mostly(users, (task) => isPointer(task.u64(mm)))) {
    return doubt(of, 'tasks have no pointer there', 'task_struct.mm');
  }
  const right = (task: SampledTask) => of.directories.has(of.words.u64(task.u64(mm) + BigInt(pgd)));
  if (mostly(users, right)) return undefined;
  const active = of.offset('task_struct.active_mm');
  const twice = active !== undefined && mostly(users, (task) => task.u64(active) === task.u64(mm));
  const why = 'they lead to no page directory that maps the kernel';
  return twice ? doubt(of, why, 'mm_struct.pgd') : doubt(of, why, 'task_struct.mm');
}

/** The address space a task runs on: its own, or one that is borrowed while it is on a CPU. */
export function activeMms(of: LayoutCase): Doubt | undefined {
  const known = of.all('task_struct.mm', 'task_struct.active_mm');
  if (known === undefined) return undefined;
  const [mm, active] = known;
  const owners = of.others.filter((task) => task.u64(mm) !== 0n);
  if (!mostly(owners, (task) => task.u64(active) === task.u64(mm))) {
    return doubt(of, 'tasks do not run on their own', 'task_struct.active_mm');
  }
  const borrowers = of.tasks.filter((task) => task.u64(mm) === 0n && task.u64(active) !== 0n);
  if (!mostly(borrowers, (task) => isPointer(task.u64(active)))) {
    return doubt(of, 'a task without one borrows none', 'task_struct.active_mm');
  }
  const lent = of.tasks.some((task) => task.u64(mm) !== 0n && task.u64(active) === 0n);
  const names = ['task_struct.mm', 'task_struct.active_mm'] as const;
  if (lent) return doubt(of, 'a task has one and runs on none', ...names);
  // Both are the same but for tasks that borrow. Written in this order, mm comes first.
  const enough = borrowers.length >= (mm - active === 8 ? 2 : 1);
  if (mm < active || enough || !of.strict) return undefined;
  return doubt(of, 'too few tasks borrow one now to tell them apart', ...names);
}

/** PF_KTHREAD is set in exactly those that have no address space, but for those that exit. */
export function flags(of: LayoutCase): Doubt | undefined {
  const known = of.all('task_struct.flags', 'task_struct.mm');
  if (known === undefined) return undefined;
  const [at, mm] = known;
  const fits = mostly(of.tasks, (task) => {
    const flags = task.u32(at);
    if (task.u64(mm) !== 0n) return (flags & PF_KTHREAD) === 0;
    return (flags & (PF_KTHREAD | PF_EXITING)) !== 0;
  });
  // The idle task of the first CPU, and kthreadd.
  const kernels = of.tasks.filter((task, i) => i < 3 && (task.u32(at) & PF_KTHREAD) !== 0);
  if (fits && kernels.length >= 1) return undefined;
  return doubt(of, 'they do not mark kernel threads', 'task_struct.flags');
}

/** States: known bits only, and some kernel threads that sleep without being load. */
export function states(of: LayoutCase): Doubt | undefined {
  const name = of.offset('task_struct.__state') === undefined ? 'state' : '__state';
  const at = of.offset(`task_struct.${name}`);
  if (at === undefined) return undefined;
  const values = of.others.map((task) => task.u32(at));
  const known = mostly(values, (value) => (value & ~STATE_BITS) === 0);
  const idle = values.some((value) => known && (value & TASK_NOLOAD) !== 0);
  if (known && (idle || (!of.strict && values.some((value) => value !== 0)))) return undefined;
  return doubt(of, `tasks would have the states ${values.slice(0, 6)}`, `task_struct.${name}`);
}

/** Exit states: 0 but for tasks that have exited. */
export function exitStates(of: LayoutCase): Doubt | undefined {
  const known = of.all('task_struct.exit_state', 'task_struct.mm', 'task_struct.flags');
  if (known === undefined) return undefined;
  const [at, mm, flags] = known;
  const name = 'task_struct.exit_state';
  const fits = mostly(of.others, (task) => {
    const value = task.u32(at);
    return (value & ~EXIT_BITS) === 0 && (value === 0 || task.u64(mm) === 0n);
  });
  if (!fits) return doubt(of, 'tasks that live have another value there', name);
  if (!of.strict) return undefined;
  // Written in this order exit_state, exit_code and exit_signal follow each other, and what a
  // process sends its parent when it exits is SIGCHLD.
  const users = of.others.filter((task) => task.u64(mm) !== 0n);
  const signalAt = (ahead: number) =>
    users.length > 0 && mostly(users, (task) => task.u32(at + ahead) === SIGCHLD);
  if (signalAt(8)) return undefined;
  const exited = of.many.filter(
    (task) => task.u64(mm) === 0n && (task.u32(flags) & (PF_EXITING | PF_KTHREAD)) === PF_EXITING,
  );
  if (exited.some((task) => (task.u32(at) & EXIT_BITS) !== 0)) return undefined;
  return doubt(of, 'no task has exited, and its neighbours are others than they should be', name);
}

/** Start times: later for those that come later in the list. */
export function startTimes(of: LayoutCase): Doubt | undefined {
  const at = of.offset('task_struct.start_time');
  if (at === undefined || at < 8) return undefined;
  const name = 'task_struct.start_time';
  const ascends = (offset: number) =>
    mostly(of.others, (task, i) => {
      const time = task.u64(offset);
      return time > 0n && time < MAX_UPTIME && (i === 0 || of.others[i - 1]!.u64(offset) <= time);
    }) && of.others[0]!.u64(offset) < of.others.at(-1)!.u64(offset);
  if (!ascends(at)) return doubt(of, 'they do not ascend from the oldest task to the newest', name);
  // Written in this order start_boottime follows, which is the same until the guest is suspended.
  const second = ascends(at - 8) && mostly(of.others, (task) => task.u64(at - 8) <= task.u64(at));
  if (!second || !of.strict) return undefined;
  return doubt(of, `at ${at - 8} there is one before it: this is start_boottime`, name);
}

/** Parents: init_task's own, of PID 1 and kthreadd init_task, of kernel threads kthreadd. */
export function parents(of: LayoutCase): Doubt | undefined {
  const known = of.all('task_struct.real_parent', 'task_struct.flags', 'task_struct.mm');
  if (known === undefined) return undefined;
  const [at, flags, mm] = known;
  const name = 'task_struct.real_parent';
  const [idle, ...others] = of.tasks;
  const sampled = new Set(of.tasks.map(({ address }) => address));
  const kthreadd = others
    .slice(0, 3)
    .find((task) => task.u64(mm) === 0n && (task.u32(flags) & PF_KTHREAD) !== 0);
  const fits = mostly(of.tasks, (task) => {
    const parent = task.u64(at);
    if (!isPointer(parent)) return false;
    if (task === idle || task === kthreadd) return parent === idle!.address;
    if ((task.u32(flags) & PF_KTHREAD) !== 0) return parent === kthreadd?.address;
    // Of users' tasks the parent may be one that was not sampled.
    return sampled.has(parent) ? true : undefined;
  });
  if (!fits || idle!.u64(at) !== idle!.address) {
    return doubt(of, 'kernel threads are not the children of kthreadd by it', name);
  }
  return second(of, name, 'parent');
}

/** Credentials: of kernel threads and PID 1, root's. */
export function credentials(of: LayoutCase): Doubt | undefined {
  const at = of.offset('task_struct.real_cred');
  if (at === undefined) return undefined;
  const name = 'task_struct.real_cred';
  if (!mostly(of.tasks, (task) => isPointer(task.u64(at)))) {
    return doubt(of, 'tasks have no pointer there', name);
  }
  const uid = of.offset('cred.uid');
  if (uid !== undefined) {
    const init = of.words.u32(of.tasks[0]!.u64(at) + BigInt(uid));
    if (init !== 0) {
      return doubt(of, `init_task would be that of user ${init}`, name, 'cred.uid');
    }
    const creds = (of.strict ? of.many : of.tasks).map((task) => task.u64(at));
    const ids = [...new Set(creds)].map((cred) => of.words.bytes(cred + BigInt(uid) - 16n, 64));
    if (!mostly(ids, (bytes) => bytes && idsStartAt(bytes, 16))) {
      return doubt(of, 'a user who is not root is not named eight times from there', 'cred.uid');
    }
  }
  return second(of, name, 'cred');
}

/**
 * Whether user and group of a `struct cred` stand in turns four times from a place on: uid, gid,
 * suid, sgid, euid, egid, fsuid, fsgid. `undefined` where they stand nowhere so: root's are zeroes
 * among zeroes, and a kernel may have shuffled them.
 */
function idsStartAt(bytes: Buffer, at: number): boolean | undefined {
  if (bytes.readBigUInt64LE(at) === 0n && bytes.readBigUInt64LE(at + 24) === 0n) return undefined;
  const starts: number[] = [];
  for (let from = 0; from + 32 <= bytes.length; from += 4) {
    const ids = Array.from({ length: 8 }, (_, i) => bytes.readUInt32LE(from + 4 * i));
    const turns = ids.every((id, i) => id === ids[i & 1]);
    if (turns && (ids[0] !== 0 || ids[1] !== 0)) starts.push(from);
  }
  return starts.length === 0 ? undefined : starts.includes(at);
}

/**
 * A pointer of which there are two that only differ at times, the one asked for first: whether it
 * is the second that was named.
 */
function second(of: LayoutCase, name: MemberName, sibling: string): Doubt | undefined {
  const at = of.offset(name)!;
  if (!of.strict || at < 8) return undefined;
  const before = mostly(of.tasks, (task) => task.u64(at - 8) === task.u64(at));
  const differs = of.tasks.some((task) => task.u64(at) >= KERNEL_HALF);
  if (!before || !differs) return undefined;
  return doubt(of, `at ${at - 8} there is one before it: this is ${sibling}`, name);
}
