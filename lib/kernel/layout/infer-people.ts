import { PF_KTHREAD } from './case.js';
import { isPointer } from './guest-words.js';
import { settleTwin, uidByCode } from './infer-code.js';
import { kthreadd } from './infer-list.js';
import { type Inference, nearly } from './inference.js';
import type { SampledTask } from './task-sample.js';

/** Bytes of a `struct cred` that are searched. */
const CRED_LENGTH = 192;
/** Identities in a `struct cred`: uid, gid, suid, sgid, euid, egid, fsuid, fsgid. */
const IDS = 8;
/** Nanoseconds of 140 years: no guest has run for longer. */
const MAX_UPTIME = 1n << 62n;
/** Lengths of time that a guest may have been suspended by then, as tasks show them. */
const MAX_SUSPENDS = 6;

/**
 * Parents: init_task's is itself, that of PID 1 and kthreadd init_task, of kernel threads kthreadd.
 */
export function inferParents(of: Inference): void {
  const flags = of.offset('task_struct.flags');
  const parent = kthreadd(of);
  const [idle, first] = of.tasks;
  if (flags === undefined || parent === undefined || first === undefined) return;
  const kernels = of.others.filter(
    (task) => task !== parent && (task.u32(flags) & PF_KTHREAD) !== 0,
  );
  const places = of
    .search(kernels, 8, (task, at) => task.u64(at) === parent.address)
    .filter((at) => [idle!, first, parent].every((task) => task.u64(at) === idle!.address));
  settleTwin(of, 'task_struct.real_parent', places);
}

/** Credentials: two pointers to one structure, in which root is named by zeroes only. */
export function inferCredentials(of: Inference): void {
  const pointers = of.search(of.tasks, 8, (task, at) => isPointer(task.u64(at)));
  const idle = of.tasks[0]!;
  const has = (isCred: (bytes: Buffer) => boolean) =>
    pointers.filter((at) => isCred(of.words.atMost(idle.u64(at), CRED_LENGTH)));
  let creds = has((bytes) => capabilitiesAt(bytes) !== undefined);
  if (creds.length === 0) creds = pairsOf(of, has(hasCapabilities));
  settleTwin(of, 'task_struct.real_cred', creds);
  const cred = of.offset('task_struct.real_cred') ?? creds[0];
  if (cred === undefined) return;
  const all = of.tasks.map((task) => of.words.atMost(task.u64(cred), CRED_LENGTH));
  const places = new Set<number>();
  for (const bytes of all) for (const at of turnsAt(bytes)) places.add(at);
  // A user who is not root is named four times, and so is the user's group.
  const right = [...places].filter((at) =>
    nearly(all, (bytes) => isRoot(bytes, at) || turnsAt(bytes).includes(at)),
  );
  if (right.length === 1 && !of.shuffled) {
    of.place('cred.uid', right[0]!);
    return;
  }
  const users = usersAt(all);
  const byCode = uidByCode(of, creds, users);
  if (byCode === undefined) of.undecided.set('cred.uid', users);
  else of.place('cred.uid', byCode, 'by code');
}

/** Those of some pointers that are the same as another one in nearly all tasks. */
function pairsOf(of: Inference, pointers: readonly number[]): number[] {
  const same = (at: number, other: number) =>
    at !== other && nearly(of.tasks, (task) => task.u64(at) === task.u64(other));
  return pointers.filter((at) => pointers.some((other) => same(at, other)));
}

/** Whether a structure has the same full set of capabilities three times, in any order. */
function hasCapabilities(bytes: Buffer): boolean {
  const counts = new Map<bigint, number>();
  for (let at = 0; at + 8 <= bytes.length; at += 8) {
    const set = bytes.readBigUInt64LE(at);
    const full = set >= 0xff_ffffn && (set & (set + 1n)) === 0n && set < 1n << 63n;
    if (full) counts.set(set, (counts.get(set) ?? 0) + 1);
  }
  return [...counts.values()].some((count) => count >= 3);
}

/**
 * Places in any order that name a user or a group: zero in root's credentials, not zero in others',
 * and with three more that are always the same: real, saved, effective, and for files.
 */
function usersAt(all: readonly Buffer[]): number[] {
  const groups = new Map<string, number[]>();
  for (let at = 0; at + 4 <= CRED_LENGTH; at += 4) {
    const values = all.map((bytes) => bytes.readUInt32LE(at));
    if (values[0] !== 0 || values.every((value) => value === 0)) continue;
    const key = values.join();
    groups.set(key, [...(groups.get(key) ?? []), at]);
  }
  return [...groups.values()].filter((places) => places.length >= 4).flat();
}

/** Full sets of capabilities, three in a row: permitted, effective, and the bounding set. */
function capabilitiesAt(bytes: Buffer): number | undefined {
  for (let at = 8; at + 24 <= bytes.length; at += 4) {
    const set = bytes.readBigUInt64LE(at);
    const full = set >= 0xff_ffffn && (set & (set + 1n)) === 0n;
    const thrice = bytes.readBigUInt64LE(at + 8) === set && bytes.readBigUInt64LE(at + 16) === set;
    if (full && set < 1n << 63n && thrice && bytes.readBigUInt64LE(at - 8) === 0n) return at;
  }
  return undefined;
}

function isRoot(bytes: Buffer, at: number): boolean {
  return bytes.subarray(at, at + 4 * IDS).every((byte) => byte === 0);
}

/** Places at which two identities stand in turns, four times, and are not both root's. */
function turnsAt(bytes: Buffer): number[] {
  const places: number[] = [];
  for (let at = 4; at + 4 * IDS <= bytes.length; at += 4) {
    const [uid, gid] = [bytes.readUInt32LE(at), bytes.readUInt32LE(at + 4)];
    let turns = uid !== 0 || gid !== 0;
    for (let i = 2; i < IDS && turns; i++) {
      turns = bytes.readUInt32LE(at + 4 * i) === (i % 2 === 0 ? uid : gid);
    }
    if (turns) places.push(at);
  }
  return places;
}

/** Start times: numbers that ascend from the oldest task to the newest. */
export function inferStartTime(of: Inference): void {
  const { others } = of;
  const oldest = others[0];
  const newest = others.at(-1);
  if (oldest === undefined || newest === undefined) return;
  const earlier = (task: SampledTask, i: number, at: number) =>
    i === 0 || others[i - 1]!.u64(at) <= task.u64(at);
  const places = of
    .search(others, 8, (task, at) => task.u64(at) > 0n && task.u64(at) < MAX_UPTIME)
    // Two PIDs side by side ascend, too.
    .filter((at) => at !== of.offset('task_struct.pid') && at !== of.offset('task_struct.tgid'))
    .filter((at) => nearly(others, (task, i) => earlier(task, i, at)))
    // What has a few values, in groups, is no time.
    .filter((at) => new Set(others.map((task) => task.u64(at))).size > others.length / 8)
    // Addresses and counters may ascend for some tasks; times do for the first ones by
    // milliseconds.
    .filter((at) => newest.u64(at) - oldest.u64(at) > 1_000_000n && oldest.u64(at) < 1n << 50n);
  // The scheduler's times ascend as well while a guest is young. A start time is kept twice, with
  // and without the time that the guest was suspended.
  const pairs = places.flatMap((at) =>
    places.filter((other) => isTwin(others, at, other)).map((other) => [at, other] as const),
  );
  const twins = new Set(pairs.flat());
  // The one without is read first (kernel/fork.c, copy_process): it is never the later one.
  const ordered = pairs.filter(([at, other]) =>
    others.some((task) => task.u64(at) !== task.u64(other)),
  );
  if (twins.size === 2 && ordered.length === 1) of.place('task_struct.start_time', ordered[0]![0]);
  else of.settleFirst('task_struct.start_time', twins.size > 0 ? [...twins] : places);
}

/**
 * Whether one time is that of another clock, which was read right after the first: it is later by
 * less than a millisecond, or by how long the guest had been suspended until then.
 */
function isTwin(tasks: readonly SampledTask[], at: number, other: number): boolean {
  if (at === other) return false;
  const later = (task: SampledTask) => task.u64(other) - task.u64(at);
  if (!nearly(tasks, (task) => later(task) >= 0n)) return false;
  const steps = new Set<bigint>();
  const isStep = (task: SampledTask) => {
    const step = later(task) / 1_000_000n;
    if (steps.size < MAX_SUSPENDS) steps.add(step);
    return steps.has(step);
  };
  return nearly(tasks, isStep);
}
