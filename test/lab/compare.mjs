// @ts-check
/**
 * Holds a listing against the oracle: every task and thread, every fact, both ways round.
 *
 * The listing is what `vmi ps --threads --json` prints; the truth must have been told of a guest
 * that has not moved since (frozen, or stopped right after).
 */

/** @typedef {import('../../lib/tasks/task.ts').TaskJson} TaskJson */
/** @typedef {import('./truth.mjs').Truth} Truth */
/** @typedef {import('./truth.mjs').TruthTask} TruthTask */
/**
 * @typedef {{ pid: number, comm: string, fact: string, expected: string, actual: string }}
 * Difference
 */

const PF_KTHREAD = 0x0020_0000;
const LOADED_MM_SWITCHING = 1n;

/**
 * The CR3 that a task must be given, from the oracle's facts alone.
 *
 * @param {Truth} truth
 * @param {TruthTask} task
 * @returns {{ cr3: bigint | null, source: string }}
 */
export function expectedCr3(truth, task) {
  if (task.mm !== 0n) return { cr3: task.cr3, source: 'mm' };
  if (task.activeMm !== 0n) {
    const cpu = truth.cpus.find((candidate) => candidate.task === task.task);
    if (cpu !== undefined && cpu.loadedMm > LOADED_MM_SWITCHING && cpu.loadedMm !== task.activeMm) {
      return { cr3: cpu.loadedPgd, source: 'loaded_mm' };
    }
    return { cr3: task.cr3, source: 'active_mm' };
  }
  if ((task.flags & PF_KTHREAD) !== 0) return { cr3: null, source: 'none' };
  const alive = truth.tasks.find(
    (other) => other.tgid === task.tgid && other.mm !== 0n && other.kind !== 'idle',
  );
  if (task.pid === task.tgid && alive !== undefined) return { cr3: alive.cr3, source: 'thread' };
  return { cr3: null, source: 'exited' };
}

/**
 * Who runs on which CR3, from the oracle's facts alone; an idle task counts where its CPU has the
 * address space loaded.
 *
 * @param {Truth} truth
 * @returns {Map<bigint, number[]>} PIDs by CR3
 */
export function expectedSharers(truth) {
  const sharers = new Map();
  for (const task of truth.tasks) {
    const { cr3 } = expectedCr3(truth, task);
    if (cr3 === null || task.kind === 'hidden') continue;
    sharers.set(cr3, [...(sharers.get(cr3) ?? []), task.pid]);
  }
  return sharers;
}

/**
 * What differs; empty when every task agrees.
 *
 * @param {Truth} truth
 * @param {readonly TaskJson[]} tasks
 * @param {{ threads?: boolean }} [options] threads: the listing holds threads too (default true)
 * @returns {Difference[]}
 */
export function compareTasks(truth, tasks, { threads = true } = {}) {
  /** @type {Difference[]} */
  const differences = [];
  const listed = new Map();
  for (const task of tasks) {
    if (listed.has(task.pid))
      differences.push(difference(task.pid, task.comm, 'listed', 'once', 'twice'));
    listed.set(task.pid, task);
  }
  for (const task of truth.tasks) {
    if (task.kind !== 'process' && !(threads && task.kind === 'thread')) continue;
    const ours = listed.get(task.pid);
    const comm = JSON.stringify(task.comm.toString('latin1'));
    if (ours === undefined) {
      differences.push(difference(task.pid, comm, 'listed', 'yes', 'no'));
      continue;
    }
    listed.delete(task.pid);
    for (const [fact, expected, actual] of facts(truth, task, ours)) {
      if (expected !== actual) differences.push(difference(task.pid, comm, fact, expected, actual));
    }
  }
  for (const task of listed.values())
    differences.push(difference(task.pid, task.comm, 'listed', 'no', 'yes'));
  return differences;
}

/**
 * How many facts {@link compareTasks} holds against the truth.
 *
 * @param {Truth} truth
 * @param {readonly TaskJson[]} tasks
 */
export function factCount(truth, tasks) {
  const [first] = tasks;
  const told = truth.tasks.find((task) => task.pid === first?.pid);
  if (first === undefined || told === undefined) return 0;
  return (
    truth.tasks.filter(({ kind }) => kind === 'process' || kind === 'thread').length *
    facts(truth, told, first).length
  );
}

/**
 * What CR3 holds in user mode where that is another value.
 *
 * @param {Truth} truth
 * @param {bigint | null} cr3
 * @returns {bigint | null | undefined} undefined: this guest has one table for both modes
 */
function expectedUserCr3(truth, cr3) {
  if (truth.facts.pv) return truth.tasks.find((task) => task.cr3 === cr3)?.userCr3 || null;
  return truth.facts.pti ? cr3 && cr3 | 0x1000n : undefined;
}

/**
 * @param {Truth} truth
 * @param {TruthTask} task
 * @param {TaskJson} ours
 * @returns {[fact: string, expected: string, actual: string][]}
 */
function facts(truth, task, ours) {
  const { cr3, source } = expectedCr3(truth, task);
  const userCr3 = expectedUserCr3(truth, cr3);
  return [
    ['tgid', String(task.tgid), String(ours.tgid)],
    ['ppid', String(task.ppid), String(ours.ppid)],
    ['comm', task.comm.toString('hex'), ours.commHex],
    ['uid', String(task.uid), String(ours.uid)],
    ['kthread', String((task.flags & PF_KTHREAD) !== 0), String(ours.kthread)],
    ['startTime', String(task.startTime), ours.startTime],
    ['nsPids', (task.pids.length > 0 ? task.pids : [task.pid]).join(), ours.nsPids.join()],
    ['task', hex(task.task), String(ours.task)],
    ['mm', hex(task.mm || null), String(ours.mm)],
    ['activeMm', hex(task.activeMm || null), String(ours.activeMm)],
    ['cr3', hex(cr3), String(ours.cr3)],
    ['cr3Source', source, ours.cr3Source],
    ['userCr3', hex(userCr3), String(ours.userCr3)],
  ];
}

/** @param {bigint | null | undefined} value */
const hex = (value) =>
  value === null || value === undefined ? String(value) : `0x${value.toString(16)}`;

/** @returns {Difference} */
const difference = (
  /** @type {number} */ pid,
  /** @type {string} */ comm,
  /** @type {string} */ fact,
  /** @type {string} */ expected,
  /** @type {string} */ actual,
) => ({ pid, comm, fact, expected, actual });
