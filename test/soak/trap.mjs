// @ts-check
/**
 * Traps every switch of one thread of a real guest and holds them against the guest's own count:
 * `node test/soak/trap.mjs [--switches 10000] [--suite bookworm] [--seconds 10]`. Prints one JSON
 * line; the exit code is 1 when a switch is missing or out of order, or when something is left of
 * the watchpoint.
 *
 * The thread sleeps in a read before watching begins and after its rounds, so that the kernel's
 * `nvcsw + nivcsw` stands still at both ends and the difference is exact. A second process counts
 * in a loop on the other CPU, unwatched: how far it comes in a second that its vCPU has of the
 * host's CPU (so that other work of the host does not count) is compared without a watchpoint, with
 * one on a thread that sleeps (medians), and with the one that is hit.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { attach } from 'node-libvmi';
import { bootGuest } from '../lab/guest.mjs';

const { values } = parseArgs({
  options: {
    switches: { type: 'string', default: '10000' },
    suite: { type: 'string', default: 'bookworm' },
    seconds: { type: 'string', default: '10' },
  },
});

/** @typedef {import('node-libvmi').Switch} Switch */
/** @typedef {import('node-libvmi').Task} Task */

const SWITCHES = Number(values.switches);
const SECONDS = Number(values.seconds);
/** Pairs of measurements whose medians are compared. */
const TURNS = 5;
/**
 * The chosen thread: rounds of a fork and a wait on CPU 0, each of which it is switched away for.
 */
const CHOSEN = `mkfifo /tmp/go
cat > /tmp/chosen <<'END'
exec 3<> /tmp/go
while read rounds <&3; do
  while [ $rounds -gt 0 ]; do /bin/true; rounds=$((rounds - 1)); done
  echo done > /tmp/done
done
END
cat > /tmp/busy <<'END'
n=0
while :; do n=$((n + 1)); [ $((n % 200)) != 0 ] || echo $n > /tmp/n; done
END
taskset -c 0 sh /tmp/chosen > /dev/null 2>&1 < /dev/null &
echo $! > /tmp/chosen.pid
taskset -c 1 sh /tmp/busy > /dev/null 2>&1 < /dev/null &
cat /tmp/chosen.pid`;

/** @param {number} ms */
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const lab = await bootGuest({
  suite: values.suite,
  flavour: 'cloud',
  backend: 'memfd',
  memory: 256,
  cpus: 2,
  tasks: 20,
});
try {
  const guest = await attach(`qemu:${lab.pid}`);
  try {
    const result = await measure(guest, await startThreads(guest));
    console.log(JSON.stringify({ release: lab.release, ...result }));
    if (result.wrong.length > 0) process.exitCode = 1;
  } finally {
    await guest.close();
  }
} finally {
  await lab.close();
}

/** @param {import('node-libvmi').Guest} guest @returns {Promise<Task>} */
async function startThreads(guest) {
  const lines = CHOSEN.split('\n');
  await lab.shell(
    `echo '${Buffer.from(lines.join('\n')).toString('base64')}' | base64 -d > /tmp/start`,
  );
  const pid = Number((await lab.shell('sh /tmp/start')).trim());
  await sleep(3_000);
  return guest.task(pid);
}

/**
 * @param {import('node-libvmi').Guest} guest
 * @param {Task} chosen
 */
async function measure(guest, chosen) {
  const { free, asleep } = await alternate(guest, chosen);
  /** @type {Switch[]} */
  const events = [];
  const before = switchesOf(guest, chosen);
  const stream = guest.trapSwitches({ pids: [chosen.pid], queue: 1 << 20 });
  const reading = (async () => {
    for await (const event of stream) events.push(event);
  })();
  await untilWatched();
  const started = performance.now();
  await lab.shell(`rm -f /tmp/done; echo ${SWITCHES} > /tmp/go`);
  const hit = await pace(SECONDS);
  while (!(await lab.shell('cat /tmp/done 2> /dev/null')).includes('done')) await sleep(200);
  const seconds = (performance.now() - started) / 1_000;
  await sleep(500);
  const counted = Number(switchesOf(guest, chosen) - before);
  await stream.return();
  await reading;
  const wrong = check(events, chosen, counted);
  const devices = /** @type {{ label: string }[]} */ (await lab.qmp('query-chardev'));
  if (devices.some(({ label }) => label === 'gdb')) wrong.push('the stub is still on');
  const again = switchesOf(guest, chosen);
  await lab.shell('rm -f /tmp/done; echo 20 > /tmp/go');
  await sleep(2_000);
  if (switchesOf(guest, chosen) < again + 20n) wrong.push('the thread does not switch freely');
  return {
    counted,
    stops: stream.stops,
    millisecondsEach: Number(((seconds * 1_000) / stream.stops).toFixed(2)),
    wrong,
    busy: { free, asleep, hit },
  };
}

/**
 * The busy process without a watchpoint and with one on a thread that sleeps, in turns: a host that
 * has other work is slower now and faster then.
 *
 * @param {import('node-libvmi').Guest} guest
 * @param {Task} chosen
 */
async function alternate(guest, chosen) {
  const free = [];
  const asleep = [];
  for (let turn = 0; turn < TURNS; turn++) {
    free.push((await pace(SECONDS / 2)).aCpuSecond);
    const stream = guest.trapSwitches({ pids: [chosen.pid] });
    const next = stream.next();
    await sleep(500);
    asleep.push((await pace(SECONDS / 2)).aCpuSecond);
    await stream.return();
    await next;
    if (stream.stops > 0) throw new Error('the thread did not sleep');
  }
  const median = (/** @type {number[]} */ all) => all.sort((a, b) => a - b)[all.length >> 1];
  console.error(`without: ${free.join(' ')}; with: ${asleep.join(' ')}`);
  return { free: median(free), asleep: median(asleep) };
}

/** Waits until the stub is on, has its watchpoint, and the guest runs. */
async function untilWatched() {
  for (let ready = 0; ready < 10; ) {
    await sleep(100);
    const devices = /** @type {{ label: string }[]} */ (await lab.qmp('query-chardev'));
    const { running } = /** @type {{ running: boolean }} */ (await lab.qmp('query-status'));
    ready = running && devices.some(({ label }) => label === 'gdb') ? ready + 1 : 0;
  }
}

/**
 * Switches away from a task, by the kernel's own account.
 * @param {import('node-libvmi').Guest} guest
 * @param {Task} task
 */
function switchesOf(guest, task) {
  const { memory, types } = guest.kernel;
  memory.begin();
  const member = (/** @type {string} */ name) =>
    memory.readU64(task.address + BigInt(types.offset('task_struct', name)));
  return member('nvcsw') + member('nivcsw');
}

/**
 * How far the busy process comes, in a second of its vCPU's thread, of the guest and of the host.
 *
 * @param {number} seconds
 */
async function pace(seconds) {
  const cpus = /** @type {{ 'thread-id': number }[]} */ (await lab.qmp('query-cpus-fast'));
  const stat = `/proc/${lab.pid}/task/${cpus[1]?.['thread-id']}/schedstat`;
  const look = async () => {
    // The file is empty for the moment between two counts.
    const read = async () =>
      (await lab.shell('cat /tmp/n; cut -d" " -f1 /proc/uptime')).trim().split('\n').map(Number);
    let words = await read();
    while (words.length < 2) words = await read();
    const [rounds = 0, uptime = 0] = words;
    const cpu = Number(readFileSync(stat, 'utf8').split(' ')[0]) / 1e9;
    return { host: performance.now() / 1_000, rounds, uptime, cpu };
  };
  const from = await look();
  await sleep(seconds * 1_000);
  const to = await look();
  const rounds = to.rounds - from.rounds;
  return {
    aCpuSecond: Math.round(rounds / (to.cpu - from.cpu)),
    aGuestSecond: Math.round(rounds / (to.uptime - from.uptime)),
    aHostSecond: Math.round(rounds / (to.host - from.host)),
  };
}

/**
 * One in and one out, each after the one before, and as many out as the kernel counts.
 *
 * @param {readonly Switch[]} events
 * @param {Task} chosen
 * @param {number} counted
 */
function check(events, chosen, counted) {
  const wrong = [];
  const isOn = (/** @type {Switch} */ { task }) => task.pid === chosen.pid;
  const away = events.filter((event) => !isOn(event)).length;
  if (away !== counted) wrong.push(`${away} switches away, and the kernel counts ${counted}`);
  if (counted < SWITCHES) wrong.push(`the thread switched ${counted} times only`);
  for (const [index, event] of events.entries()) {
    const last = events[index - 1];
    if (event.missed !== 0) wrong.push(`switch ${index} says that ${event.missed} were missed`);
    if (last === undefined) continue;
    if (isOn(event) === isOn(last)) wrong.push(`switch ${index} is the same way as the one before`);
    if (event.cpu === last.cpu && (event.count ?? 0n) <= (last.count ?? 0n))
      wrong.push(`switch ${index} has the count ${event.count} after ${last.count}`);
    if (isOn(event) && event.began === null) wrong.push(`switch ${index} has no begin`);
  }
  const begins = events.filter(isOn).map(({ began }) => began ?? 0n);
  for (const [index, began] of begins.entries()) {
    const last = begins[index - 1] ?? 0n;
    if (began < last) wrong.push(`slice ${index} began at ${began}, the one before at ${last}`);
  }
  return wrong.slice(0, 10);
}
