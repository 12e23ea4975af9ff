// @ts-check
/**
 * Watches a guest that forks, executes and exits for long: `node --expose-gc test/soak/hour.mjs
 * [--minutes 60] [--suite bookworm] [--cpus 2]`. One stream of switches, one of tasks and one index
 * of CR3 values run all the time. Each half minute some seconds are traced by the guest itself, and
 * every switch of them that was seen is held against its event of the trace, which the CPU's count
 * of switches names. Prints a line a window and one JSON line at the end; the exit code is 1 when a
 * name or a count is wrong. Ctrl-C ends it sooner.
 */
import { parseArgs } from 'node:util';
import { attach } from 'node-libvmi';
import { bootGuest } from '../lab/guest.mjs';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '60' },
    suite: { type: 'string', default: 'bookworm' },
    cpus: { type: 'string', default: '2' },
  },
});

/** @typedef {import('node-libvmi').Switch} Switch */
/**
 * @typedef {{ pid: number, comm: string, previous: number, time: number }} Traced time: guest
 * microseconds
 */

const TRACING = '/sys/kernel/tracing';
/** Seconds that are traced, and seconds from one such window to the next. */
const WINDOW = 2;
const EVERY = 30;
/** Tasks that have gone and are kept by name: so few that memory is at its most soon. */
const KEEP = 2_000;
/** Names between which a task of the churn goes over while it runs. */
const RENAMED = /^(churn|churn-fork|churn-exec|exe)$/;

let isOver = false;
process.on('SIGINT', () => {
  isOver = true;
});

/** What the events of each CPU add up to, held against the kernel's count. */
class Counts {
  /**
   * @type {Map<number, { first: bigint, last: bigint, told: number, seen: number, missed: number
   * }>}
   */
  #cpus = new Map();

  /** @param {Switch} event */
  add({ cpu, count, missed }) {
    const now = count ?? 0n;
    const one = this.#cpus.get(cpu);
    if (one === undefined) {
      this.#cpus.set(cpu, { first: now, last: now, told: 0, seen: 1, missed: 0 });
      return;
    }
    one.last = now;
    one.told += 1 + (missed ?? 0);
    one.seen++;
    one.missed += missed ?? 0;
  }

  told() {
    const all = [...this.#cpus.values()];
    const sum = (/** @type {'seen' | 'missed'} */ what) =>
      all.reduce((total, one) => total + one[what], 0);
    return { seen: sum('seen'), missed: sum('missed') };
  }

  wrong() {
    return [...this.#cpus].flatMap(([cpu, { first, last, told }]) =>
      Math.abs(Number(last - first) - told) <= 1
        ? []
        : [`CPU ${cpu}: ${told} seen and missed, the kernel counted ${last - first}`],
    );
  }
}

const lab = await bootGuest({
  suite: values.suite,
  flavour: 'cloud',
  backend: 'memfd',
  memory: 512,
  cpus: Number(values.cpus),
  tasks: 20,
});
try {
  const result = await watch(Number(values.minutes) * 60_000);
  console.log(JSON.stringify({ release: lab.release, ...result }));
  if (result.wrong.length > 0) process.exitCode = 1;
} finally {
  await lab.close();
}

/** @param {number} duration milliseconds */
async function watch(duration) {
  const set = (/** @type {string} */ file, /** @type {string} */ value) =>
    lab.shell(`echo ${value} > ${TRACING}/${file}`);
  await lab.shell(`mount -t tracefs tracefs ${TRACING}`);
  await set('tracing_on', '0');
  await set('trace_clock', 'perf');
  await set('buffer_size_kb', '8192');
  await set('events/sched/sched_switch/enable', '1');
  await lab.command('churn on');
  const guest = await attach(`qemu:${lab.pid}`);
  const stream = guest.watchSwitches();
  const tasks = guest.watchTasks();
  const index = guest.cr3Index({ keep: KEEP });
  /** @type {Switch[] | undefined} */
  let events;
  const counts = new Counts();
  const births = { birth: 0, exec: 0, exit: 0 };
  const reading = Promise.all([
    (async () => {
      for await (const event of stream) {
        counts.add(event);
        events?.push(event);
      }
    })(),
    (async () => {
      for await (const { kind } of tasks) births[kind]++;
    })(),
  ]);
  /** @type {string[]} */
  const wrong = [];
  const rss = [];
  let [windows, compared] = [0, 0];
  const start = performance.now();
  while (!isOver && performance.now() - start < duration) {
    await set('trace', '');
    events = [];
    await set('tracing_on', '1');
    await sleep(WINDOW * 1_000);
    await set('tracing_on', '0');
    await sleep(200);
    const seen = events;
    events = undefined;
    const result = compare(seen, await readTrace());
    wrong.push(...result.wrong);
    compared += result.compared;
    windows++;
    globalThis.gc?.();
    rss.push(Math.round(process.memoryUsage().rss / 2 ** 20));
    const minutes = ((performance.now() - start) / 60_000).toFixed(1);
    console.error(
      `${minutes} min: ${result.compared} compared, ${wrong.length} wrong, ${rss.at(-1)} MiB`,
    );
    for (let waited = WINDOW; waited < EVERY && !isOver; waited++) await sleep(1_000);
  }
  const { statistics } = stream;
  await guest.close();
  await reading;
  wrong.push(...counts.wrong());
  const minutes = Math.round((performance.now() - start) / 6_000) / 10;
  const least = rss.slice(2, 12);
  return {
    ...{ minutes, windows, compared, wrong: wrong.slice(0, 20), ...counts.told(), births },
    ...{ lost: tasks.lost, kept: index.size, statistics },
    rss: { early: least.at(-1), last: rss.at(-1), most: Math.max(...rss) },
  };
}

/** @returns {Promise<Map<number, Traced[]>>} by CPU */
async function readTrace() {
  const line =
    /\[(\d+)\] .*? (\d+)\.(\d{6}): sched_switch: .* prev_pid=(\d+) .* ==> next_comm=(.*) next_pid=(\d+) /;
  /** @type {Map<number, Traced[]>} */
  const cpus = new Map();
  for (const one of (await lab.shell(`cat ${TRACING}/trace`)).split('\n')) {
    const [, cpu, seconds, micros, previous, comm = '', pid] = line.exec(one) ?? [];
    if (cpu === undefined) continue;
    const list = cpus.get(Number(cpu)) ?? [];
    const time = Number(seconds) * 1e6 + Number(micros);
    list.push({ pid: Number(pid), comm, previous: Number(previous), time });
    cpus.set(Number(cpu), list);
  }
  return cpus;
}

/**
 * @param {readonly Switch[]} events
 * @param {Map<number, Traced[]>} traced
 */
function compare(events, traced) {
  const wrong = [];
  let compared = 0;
  for (const [cpu, all] of traced) {
    // Of the switches that are under way while tracing is turned on, the trace has some.
    const trace = all.slice(4);
    const mine = events.filter((event) => event.cpu === cpu);
    const base = findBase(mine, trace);
    if (base === undefined) continue;
    for (const { task, previous, count } of mine) {
      const real = trace[Number(count) - base];
      if (real === undefined) continue;
      compared++;
      const is = `${task.pid} ${task.comm}`;
      const isSame = real.comm === task.comm || task.idle;
      if (real.pid !== task.pid) wrong.push(`${is}, not ${real.pid} ${real.comm}`);
      else if (!isSame && !RENAMED.test(task.comm)) wrong.push(`${is}, not ${real.comm}`);
      if (previous !== null && previous.pid !== real.previous)
        wrong.push(`${is} after ${previous.pid}, not ${real.previous}`);
    }
  }
  return { wrong, compared };
}

/**
 * The CPU's count at the first event of a trace: what most events agree on.
 * @param {readonly Switch[]} mine
 * @param {readonly Traced[]} trace
 */
function findBase(mine, trace) {
  const places = new Map(
    trace.map(({ pid, time }, at) => [`${pid} ${Math.floor(time / 100)}`, at]),
  );
  /** @type {Map<number, number>} */
  const votes = new Map();
  for (const { began, task, count } of mine) {
    const slot = Math.floor(Number(began ?? 0n) / 1e5);
    const at = places.get(`${task.pid} ${slot}`) ?? places.get(`${task.pid} ${slot + 1}`);
    if (began === null || at === undefined) continue;
    const base = Number(count) - at;
    votes.set(base, (votes.get(base) ?? 0) + 1);
  }
  return [...votes].sort((a, b) => b[1] - a[1])[0]?.[0];
}

/** @param {number} ms */
function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
