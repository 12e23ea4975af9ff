import { PF_EXITING, PF_KTHREAD } from './case.js';
import { isPointer } from './guest-words.js';
import { placeByCode } from './infer-code.js';
import { kthreadd } from './infer-list.js';
import { type Certainty, type Inference, nearly } from './inference.js';
import type { SampledTask } from './task-sample.js';

/** `task_struct.flags` of threads of a workqueue. include/linux/sched.h. */
const PF_WQ_WORKER = 0x20;
/** Bytes of an `mm_struct` that are searched for its page directory. */
const MM_LENGTH = 2048;

/**
 * Address spaces: pointers that PID 1 has and kthreadd has not, to a structure that has a page
 * directory of this kernel at the same place for all.
 */
export function inferSpaces(of: Inference): void {
  const first = of.others[0];
  const none = kthreadd(of);
  if (first === undefined || none === undefined) return;
  const places = of
    .search([first], 8, (task, at) => isPointer(task.u64(at)))
    .filter((at) => none.u64(at) === 0n);
  const found: { mm: number; pgd: number }[] = [];
  for (const mm of places) {
    const bytes = of.words.atMost(first.u64(mm), MM_LENGTH);
    const owners = of.others.filter((task) => task.u64(mm) !== 0n);
    for (let pgd = 0; pgd + 8 <= MM_LENGTH; pgd += 8) {
      const has = (task: SampledTask) =>
        of.directories.has(of.words.u64(task.u64(mm) + BigInt(pgd)));
      if (of.directories.has(bytes.readBigUInt64LE(pgd)) && nearly(owners, has)) {
        found.push({ mm, pgd });
      }
    }
  }
  const pgds = ownPlaces(of, found);
  of.settle('mm_struct.pgd', [...pgds]);
  const mms = [...new Set(found.map(({ mm }) => mm))];
  if (pgds.size === 1 && mms.length === 2) settleSpaces(of, mms[0]!, mms[1]!);
  else for (const name of SPACES) of.undecided.set(name, mms);
}

/**
 * Places of a page directory that are the structure's own. Structures of a kind lie side by side:
 * at the others, most tasks have the page directory that another one has at the first.
 */
function ownPlaces(
  of: Inference,
  found: readonly { readonly mm: number; readonly pgd: number }[],
): Set<number> {
  const own = new Set<number>();
  const { mm } = found[0] ?? { mm: 0 };
  const owners = of.others.filter((task) => task.u64(mm) !== 0n);
  const at = (pgd: number) => owners.map((task) => of.words.u64(task.u64(mm) + BigInt(pgd)));
  const places = [...new Set(found.map(({ pgd }) => pgd))].sort((a, b) => a - b);
  const first = at(places[0] ?? 0);
  for (const place of places) {
    const values = at(place);
    const others = values.filter((value, i) => value !== first[i] && first.includes(value));
    if (2 * others.length < values.length) own.add(place);
  }
  return own;
}

const SPACES = ['task_struct.mm', 'task_struct.active_mm'] as const;

/**
 * Both are the same, but for a task that has none and borrows one while it is on a CPU. Side by
 * side they are as the kernel declares them, and a task that says otherwise leaves it open: one
 * that lies must not swap the answers for all. Where they lie apart, the code of `get_task_mm`
 * says which one it reads.
 */
function settleSpaces(of: Inference, one: number, other: number): void {
  const borrows = (mm: number, active: number) =>
    of.tasks.some((task) => task.u64(mm) === 0n && task.u64(active) !== 0n);
  const isMm = { one: borrows(one, other), other: borrows(other, one) };
  const place = (mm: number, certainty: Certainty) => {
    of.place('task_struct.mm', mm, certainty);
    of.place('task_struct.active_mm', mm === one ? other : one, certainty);
  };
  const byCode = placeByCode(of, 'task_struct.mm', [one, other]);
  const denied = byCode === one ? isMm.other : byCode === other && isMm.one;
  const inOrder = other - one === 8 && !of.shuffled;
  if (byCode !== undefined && !denied && (byCode === one || !inOrder)) place(byCode, 'by code');
  else if (byCode === undefined && isMm.one && !isMm.other) place(one, 'proven');
  else if (byCode === undefined && !isMm.other && inOrder) place(one, 'by order');
  else if (byCode === undefined && isMm.other && !isMm.one && !inOrder) place(other, 'proven');
  else for (const name of SPACES) of.undecided.set(name, [one, other]);
}

/**
 * Flags: the one that marks kernel threads is set in those that have no address space, and the one
 * that marks workers in those that are called so, not in kthreadd and in no task of a user.
 */
export function inferFlags(of: Inference): void {
  const mm = of.offset('task_struct.mm') ?? of.undecided.get('task_struct.mm')?.[0];
  if (mm === undefined) return;
  const fits = (task: SampledTask, at: number) => {
    const flags = task.u32(at);
    if (task.u64(mm) !== 0n) return (flags & (PF_KTHREAD | PF_WQ_WORKER)) === 0;
    if (isWorker(of, task) && (flags & PF_WQ_WORKER) === 0) return false;
    return ((flags & PF_KTHREAD) !== 0) !== ((flags & PF_EXITING) !== 0);
  };
  const parent = kthreadd(of);
  const idle = of.tasks[0]!;
  const places = of
    .search(of.others, 4, fits)
    .filter((at) => ((parent?.u32(at) ?? 0) & PF_WQ_WORKER) === 0)
    .filter((at) => (idle.u32(at) & PF_KTHREAD) !== 0);
  of.settle('task_struct.flags', places);
}

/** Whether a task is called like a thread of a workqueue. kernel/workqueue.c, format_worker_id. */
function isWorker(of: Inference, task: SampledTask): boolean {
  const comm = of.offset('task_struct.comm');
  return comm !== undefined && task.bytes(comm, 8).toString('latin1') === 'kworker/';
}
