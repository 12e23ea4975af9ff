// @ts-check
/**
 * Watches the switches of a real guest and compares them with the guest's own trace: `node
 * test/soak/switches.mjs [--suite bookworm] [--cpus 1] [--seconds 10] [--rate full|HZ] [--backend
 * memfd|anonymous] [--pin]`. Prints one JSON line; the exit code is 1 when a name or a count is
 * wrong. With `--pin` the sampler's thread has the host's last core, and QEMU and this program the
 * others.
 *
 * The guest's ftrace records every sched_switch with the scheduler's clock. Each sampled switch has
 * its CPU's count of switches, so the event of the trace that it must be is known, and not searched
 * for: base + count.
 */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { attach } from 'node-libvmi';
import { bootGuest } from '../lab/guest.mjs';

const { values } = parseArgs({
  options: {
    suite: { type: 'string', default: 'bookworm' },
    flavour: { type: 'string', default: 'cloud' },
    cpus: { type: 'string', default: '1' },
    seconds: { type: 'string', default: '10' },
    rate: { type: 'string', default: 'full' },
    backend: { type: 'string', default: 'memfd' },
    churn: { type: 'boolean', default: true },
    pin: { type: 'boolean', default: false },
  },
  allowNegative: true,
});

/**
 * @typedef {{ cpu: number, time: number, previous: number, pid: number, comm: string }} Traced
 * time: guest microseconds
 */
/** @typedef {import('node-libvmi').Switch} Switch */

const TRACING = '/sys/kernel/tracing';
/** A comm that a trace shows in part: exec and prctl rename a task that runs. */
const NOMINAL = /^(churn|churn-fork|churn-exec|exe)$/;

const lab = await bootGuest({
  suite: values.suite,
  flavour: /** @type {'cloud'} */ (values.flavour),
  backend: /** @type {'memfd'} */ (values.backend),
  memory: 512,
  cpus: Number(values.cpus),
  tasks: 20,
});
try {
  const { events, statistics, traced, overrun, rss, clock } = await watch(Number(values.seconds));
  const result = compare(events, traced);
  console.log(
    JSON.stringify({
      release: lab.release,
      backend: values.backend,
      cpus: Number(values.cpus),
      rate: values.rate,
      seconds: Number(values.seconds),
      traced: traced.length,
      overrun,
      ...result,
      clockError: clock,
      cpuSeconds: statistics.cpuSeconds,
      looks: statistics.looks,
      torn: statistics.torn,
      dropped: statistics.dropped,
      late: statistics.late,
      lateSeconds: statistics.lateSeconds,
      longestGap: statistics.longestGap,
      waitedSeconds: statistics.waitedSeconds,
      rss,
    }),
  );
  if (result.wrong.length > 0 || overrun > 0) process.exitCode = 1;
} finally {
  await lab.close();
}

/** @param {number} seconds */
async function watch(seconds) {
  const set = (/** @type {string} */ file, /** @type {string} */ value) =>
    lab.shell(`echo ${value} > ${TRACING}/${file}`);
  await lab.shell(`mount -t tracefs tracefs ${TRACING}`);
  await set('tracing_on', '0');
  await set('trace_clock', 'perf');
  await set('buffer_size_kb', '16384');
  await set('events/sched/sched_switch/enable', '1');
  if (values.churn) await lab.command('churn on');
  const guest = await attach(`qemu:${lab.pid}`);
  /** @type {Switch[]} */ const events = [];
  const rate =
    values.rate === 'full' ? 'full' : values.rate === '' ? undefined : Number(values.rate);
  const stream = guest.watchSwitches({ rate });
  try {
    const reading = (async () => {
      for await (const event of stream) events.push(event);
    })();
    if (values.pin) pin();
    await sleep(500);
    const before = process.memoryUsage().rss;
    await set('tracing_on', '1');
    await sleep(seconds * 1000);
    await set('tracing_on', '0');
    const after = process.memoryUsage().rss;
    await sleep(100);
    const { statistics } = stream;
    await stream.return();
    await reading;
    const last = events.findLast(({ began }) => began !== null)?.began ?? 0n;
    const clock = stream.clock.toHost(last)?.error;
    if (values.churn) await lab.command('churn off');
    return {
      events,
      statistics,
      clock,
      rss: [before, after].map((bytes) => Math.round(bytes / 2 ** 20)),
      overrun: await overruns(),
      traced: await readTrace(),
    };
  } finally {
    await guest.close();
  }
}

/** Keeps QEMU and this program off the core of the sampler's thread. */
function pin() {
  const last = cpus().length - 1;
  for (const pid of [process.pid, lab.pid])
    execFileSync('taskset', ['-acp', `0-${last - 1}`, `${pid}`], { stdio: 'ignore' });
  const isSampler = (/** @type {string} */ thread) =>
    readFileSync(`/proc/self/task/${thread}/comm`, 'latin1').trim() === 'vmi-sampler';
  for (const thread of readdirSync('/proc/self/task').filter(isSampler)) {
    execFileSync('taskset', ['-cp', `${last}`, thread], { stdio: 'ignore' });
    execFileSync('chrt', ['-f', '-p', '1', thread], { stdio: 'ignore' });
  }
}

async function overruns() {
  const text = await lab.shell(`cat ${TRACING}/per_cpu/cpu*/stats`);
  return [...text.matchAll(/^overrun: (\d+)/gm)].reduce((sum, [, n]) => sum + Number(n), 0);
}

/** @returns {Promise<Traced[]>} */
async function readTrace() {
  const line =
    /\[(\d+)\] .*? (\d+)\.(\d{6}): sched_switch: .* prev_pid=(\d+) .* ==> next_comm=(.*) next_pid=(\d+) /;
  const text = await lab.shell(`cat ${TRACING}/trace`);
  return text.split('\n').flatMap((one) => {
    const match = line.exec(one);
    if (match === null) return [];
    const [, cpu, seconds, micros, previous, comm, pid] = match;
    return {
      cpu: Number(cpu),
      time: Number(seconds) * 1e6 + Number(micros),
      previous: Number(previous),
      comm: comm ?? '',
      pid: Number(pid),
    };
  });
}

/**
 * @param {readonly Switch[]} events
 * @param {readonly Traced[]} traced
 */
function compare(events, traced) {
  /** @type {string[]} */ const wrong = [];
  /** @type {number[]} */ const begins = [];
  const slices = [50, 200, 1000].map((micros) => ({ micros, of: 0, seen: 0 }));
  let compared = 0;
  let renamed = 0;
  let missed = 0;
  for (let cpu = 0; cpu < Number(values.cpus); cpu++) {
    const mine = events.filter((event) => event.cpu === cpu);
    const trace = unbroken(traced.filter((one) => one.cpu === cpu));
    const [first, ...rest] = mine;
    if (first === undefined || trace.length === 0) {
      wrong.push(`CPU ${cpu}: ${mine.length} events, ${trace.length} in the trace`);
      continue;
    }
    // The kernel's count went from the first to the last by exactly what was seen and what was said
    // to be missed.
    const counted = Number((mine.at(-1)?.count ?? 0n) - (first.count ?? 0n));
    const told = rest.reduce((sum, event) => sum + 1 + (event.missed ?? 0), 0);
    missed += rest.reduce((sum, event) => sum + (event.missed ?? 0), 0);
    if (Math.abs(counted - told) > 1)
      wrong.push(`CPU ${cpu}: ${told} switches seen and missed, the kernel counted ${counted}`);
    const base = findBase(mine, trace);
    if (base === undefined) {
      wrong.push(`CPU ${cpu}: the trace and the events have no common count`);
      continue;
    }
    const seen = new Set();
    for (const event of mine) {
      const at = Number(event.count) - base;
      const real = trace[at];
      if (real === undefined) continue;
      compared++;
      seen.add(at);
      if (real.pid !== event.task.pid)
        wrong.push(
          `CPU ${cpu} #${at}: ${event.task.pid} ${event.task.comm}, not ${real.pid} ${real.comm}`,
        );
      else if (real.comm !== event.task.comm && !event.task.idle) {
        // An exec or a prctl in the middle of the slice gives it its name of the moment.
        if (NOMINAL.test(event.task.comm)) renamed++;
        else
          wrong.push(
            `CPU ${cpu} #${at}: ${event.task.pid} is ${event.task.comm}, not ${real.comm}`,
          );
      }
      if (event.began !== null) begins.push(real.time - Number(event.began) / 1000);
      if (event.previous !== null && event.previous.pid !== real.previous)
        wrong.push(`CPU ${cpu} #${at}: after ${event.previous.pid}, not ${real.previous}`);
    }
    for (const [at, slice] of trace.slice(0, -1).entries()) {
      const length = /** @type {Traced} */ (trace[at + 1]).time - slice.time;
      for (const kind of slices) {
        if (length < kind.micros) continue;
        kind.of++;
        if (seen.has(at)) kind.seen++;
      }
    }
  }
  begins.sort((a, b) => a - b);
  const quantile = (/** @type {number} */ part) =>
    Math.round((begins[Math.floor((begins.length - 1) * part)] ?? Number.NaN) * 10) / 10;
  return {
    events: events.length,
    compared,
    renamed,
    missed,
    slices,
    beginMicros: { p1: quantile(0.01), median: quantile(0.5), p99: quantile(0.99) },
    wrong: wrong.slice(0, 20),
  };
}

/**
 * A CPU's trace without its beginning, where that is broken: of the switches that are under way
 * while tracing is turned on, it has some, and since 6.12 a later one in the place of the first. A
 * gap further on has to show as a wrong count.
 *
 * @param {Traced[]} trace
 */
function unbroken(trace) {
  const isBroken = (/** @type {number} */ at) => {
    const [one, next] = trace.slice(at, at + 2);
    return next?.previous !== one?.pid || Number(next?.time) < Number(one?.time);
  };
  let start = 0;
  for (let at = 0; at < 4 && at + 1 < trace.length; at++) if (isBroken(at)) start = at + 1;
  return trace.slice(start);
}

/**
 * The count of the trace's first event: most events agree with the trace by it, and by no other.
 *
 * @param {readonly Switch[]} mine
 * @param {readonly Traced[]} trace
 */
function findBase(mine, trace) {
  /** @type {Map<number, number>} */ const votes = new Map();
  const byPlace = new Map(trace.map((one, at) => [`${one.pid} ${Math.floor(one.time / 100)}`, at]));
  for (const event of mine) {
    if (event.began === null) continue;
    const slot = Math.floor(Number(event.began) / 1e5);
    const at =
      byPlace.get(`${event.task.pid} ${slot}`) ?? byPlace.get(`${event.task.pid} ${slot + 1}`);
    if (at === undefined) continue;
    const base = Number(event.count) - at;
    votes.set(base, (votes.get(base) ?? 0) + 1);
  }
  return [...votes].sort((a, b) => b[1] - a[1])[0]?.[0];
}

/** @param {number} ms */
function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
