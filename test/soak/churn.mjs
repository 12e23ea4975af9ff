// @ts-check
/**
 * Walks a guest that forks, executes and exits all the time: `node test/soak/churn.mjs [--walks
 * 2000] [--backend file] [--suite bookworm] [--tasks 40] [--source qemu|libvmi]`. What lives longer
 * than the run must be in every walk, with the oracle's answer. `libvmi` is libvmi's file driver,
 * every read through vmi_read_pa; `npm run soak:libvmi` is the run that docs/libvmi.md tells of.
 */
import { parseArgs } from 'node:util';
import { attach } from 'node-libvmi';
import { expectedCr3 } from '../lab/compare.mjs';
import { bootGuest } from '../lab/guest.mjs';

/**
 * A walk that takes more of a CPU hangs, milliseconds; and one that takes longer, on a host however
 * busy.
 */
const HANG = 2_000;
const HANG_ON_THE_CLOCK = 60_000;
/**
 * Walks that may end with an error: a vCPU may be scheduled away in the middle of list_del for
 * longer than a walk waits.
 */
const MAX_ERRORS = 0.001;

const { values } = parseArgs({
  options: {
    walks: { type: 'string', default: '2000' },
    backend: { type: 'string', default: 'file' },
    suite: { type: 'string', default: 'bookworm' },
    tasks: { type: 'string', default: '40' },
    source: { type: 'string', default: 'qemu' },
  },
});

const lab = await bootGuest({
  suite: values.suite,
  flavour: 'cloud',
  backend: /** @type {'file' | 'anonymous'} */ (values.backend),
  memory: Number(values.tasks) > 500 ? 1024 : 256,
  cpus: 2,
  tasks: Number(values.tasks),
});
try {
  await lab.command('churn on');
  const before = await lab.truth();
  const result = await churn(Number(values.walks), before);
  const after = await lab.truth();
  await lab.command('churn off');
  check(result, before, after);
  const { seen: _, unfound: __, ...told } = result;
  console.log(
    JSON.stringify({
      source: values.source,
      backend: values.backend,
      suite: values.suite,
      ...told,
    }),
  );
  if (result.wrong.length > 0 || result.errorCount > result.walks * MAX_ERRORS)
    process.exitCode = 1;
} finally {
  await lab.close();
}

/** @returns {string | import('../../lib/target.js').Target} */
function target() {
  if (values.source === 'qemu') return `qemu:${lab.pid}`;
  if (lab.memoryPath === undefined) throw new Error("libvmi's file driver needs --backend file");
  return /** @type {import('../../lib/target.js').Target} */ ({
    kind: 'libvmi',
    driver: 'file',
    name: lab.memoryPath,
    map: false,
  });
}

/**
 * @param {number} walks
 * @param {import('../lab/truth.mjs').Truth} before
 */
async function churn(walks, before) {
  const guest = await attach(target());
  /** @type {Record<string, number>} */ const errors = {};
  /**
   * What each walk that was no error said of each task, by PID and start time; as one line, and how
   * often. @type {Map<string, Map<string, number>>}
   */
  const seen = new Map();
  /** Long-lived tasks that a look-up missed. @type {number[]} */ const unfound = [];
  const result = {
    walks: 0,
    errorCount: 0,
    errors,
    retries: 0,
    slowest: 0,
    mostCpu: 0,
    seconds: 0,
    rows: 0,
    lookups: 0,
    /** CPUs that were looked at, and those that were switching. */
    cpus: 0,
    switching: 0,
    lived: 0,
    tasks: 0,
    wrong: /** @type {string[]} */ ([]),
    seen,
    unfound,
  };
  const known = before.tasks
    .filter(({ kind }) => kind === 'process' || kind === 'thread')
    .map(({ pid }) => pid);
  const started = performance.now();
  try {
    for (let walk = 0; walk < walks; walk++) {
      const start = performance.now();
      const cpu = process.cpuUsage();
      try {
        const columns = guest.taskColumns({ threads: true });
        result.walks++;
        result.retries += columns.retries;
        result.rows += columns.count;
        const pids = new Set();
        for (let row = 0; row < columns.count; row++) {
          const pid = columns.pid[row] ?? 0;
          const key = `${pid} ${columns.startTime[row]}`;
          if (pids.has(key)) result.wrong.push(`walk ${walk}: PID ${pid} twice`);
          pids.add(key);
          const facts = `${columns.task[row]} ${columns.tgid[row]} ${columns.mm[row]} ${columns.cr3[row]} ${columns.cr3Source[row]}`;
          const answers = seen.get(key) ?? new Map();
          seen.set(key, answers);
          answers.set(facts, (answers.get(facts) ?? 0) + 1);
        }
        const pid = known[walk % known.length] ?? 1;
        result.lookups++;
        if (guest.findTask(pid)?.pid !== pid) unfound.push(pid);
      } catch (error) {
        const { code, message } = /** @type {Error & { code?: string }} */ (error);
        if (code === undefined) throw error;
        result.errorCount++;
        errors[code] = (errors[code] ?? 0) + 1;
        if (result.errorCount <= 5) console.error(`walk ${walk}: ${message}`);
      }
      const took = performance.now() - start;
      result.slowest = Math.max(result.slowest, took);
      const { user, system } = process.cpuUsage(cpu);
      const used = (user + system) / 1_000;
      result.mostCpu = Math.max(result.mostCpu, used);
      if (used > HANG || took > HANG_ON_THE_CLOCK)
        result.wrong.push(
          `walk ${walk} took ${Math.round(took)} ms, ${Math.round(used)} of them on a CPU`,
        );
      // Lets the guest run: a walk that spins on every core of the host sees no churn.
      if (walk % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    }
    for (let look = 0; look < walks; look++) {
      lookAtCpus(guest, look, result);
      // A look that follows on the last finds the same task.
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  } finally {
    await guest.close();
  }
  result.seconds = Math.round((performance.now() - started) / 1000);
  return result;
}

/**
 * A task with an mm of its own runs on that and on nothing else, however often its CPU switches.
 *
 * @param {import('node-libvmi').Guest} guest
 * @param {number} look
 * @param {{ cpus: number, switching: number, wrong: string[] }} result
 */
function lookAtCpus(guest, look, result) {
  for (const { cpu, task, cr3, switching, error } of guest.cpus()) {
    result.cpus++;
    if (switching) result.switching++;
    if (error !== undefined) result.wrong.push(`look ${look}: ${error.message}`);
    if (switching || task.mm === null || task.cr3Source !== 'mm' || cr3 === task.cr3) continue;
    result.wrong.push(
      `look ${look}: CPU ${cpu} runs PID ${task.pid} of cr3 ${task.cr3} and has ${cr3}`,
    );
  }
}

/**
 * @param {Awaited<ReturnType<typeof churn>>} result
 * @param {import('../lab/truth.mjs').Truth} before
 * @param {import('../lab/truth.mjs').Truth} after
 */
function check(result, before, after) {
  const { seen, wrong } = result;
  result.tasks = seen.size;
  for (const task of before.tasks) {
    if (task.kind !== 'process' && task.kind !== 'thread') continue;
    const later = after.task(task.pid);
    if (later === undefined || later.startTime !== task.startTime) continue;
    result.lived++;
    const unfound = result.unfound.filter((pid) => pid === task.pid).length;
    if (unfound > 0) wrong.push(`PID ${task.pid} was not found ${unfound} times`);
    const answers = seen.get(`${task.pid} ${task.startTime}`) ?? new Map();
    const count = [...answers.values()].reduce((sum, n) => sum + n, 0);
    if (count !== result.walks)
      wrong.push(`PID ${task.pid} is in ${count} of ${result.walks} walks`);
    // A task that executed something else between the two tables has two address spaces.
    if (later.mm !== task.mm || later.cr3 !== task.cr3) continue;
    for (const [facts, n] of answers) {
      const [address, tgid, mm, cr3] = facts.split(' ');
      if (address !== String(task.task) || tgid !== String(task.tgid) || mm !== String(task.mm))
        wrong.push(`PID ${task.pid} is ${facts} in ${n} walks`);
      if (task.mm !== 0n && cr3 !== String(expectedCr3(before, task).cr3))
        wrong.push(`PID ${task.pid} has cr3 ${cr3} in ${n} walks, not ${task.cr3}`);
    }
  }
}
