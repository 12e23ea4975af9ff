// @ts-check
/**
 * A process that reads a guest and ends: `child.mjs QEMU-PID|TARGET steps LAST END`, `paused`,
 * `workers`, `forget`.
 */
import { readdirSync, readFileSync, writeSync } from 'node:fs';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { attach } from 'node-libvmi';

const [whom = '', what = '', last = '', end = ''] = process.argv.slice(2);
const given = isMainThread ? whom : String(workerData);
const target = given.includes(':') ? given : `qemu:${given}`;
const gc = /** @type {() => void} */ (/** @type {{ gc?: () => void }} */ (globalThis).gc);
const sleep = (/** @type {number} */ ms) => new Promise((resolve) => setTimeout(resolve, ms));

const descriptors = () => readdirSync('/proc/self/fd').length;
/** Mappings as large as a guest's RAM. */
const mappings = () =>
  readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => {
      const [start = '0', finish = '0'] = (line.split(' ')[0] ?? '').split('-');
      return (
        BigInt(`0x${finish || 0}`) - BigInt(`0x${start || 0}`) >= 64n << 20n && line.includes('ram')
      );
    }).length;

if (!isMainThread) {
  const guest = await attach(target, { cache: false });
  parentPort?.postMessage('ready');
  // Scans run on threads of their own; tasks() is in the middle of a walk most of the time.
  for (;;) {
    void guest.memory.scan(Buffer.from('never to be found'), { max: 1 }).catch(() => {});
    for (let i = 0; i < 50; i++) guest.tasks({ threads: true });
    await sleep(0);
  }
} else if (what === 'steps') await steps();
else if (what === 'paused') await paused();
else if (what === 'workers') await workers();
else if (what === 'forget') await forget();

async function steps() {
  /** @type {import('../../lib/guest/guest.ts').Guest | undefined} */ let guest;
  /** @type {import('../../lib/guest/pause.ts').Pause | undefined} */ let pause;
  const actions = {
    attach: async () => {
      guest = await attach(target);
    },
    tasks: () => void guest?.tasks({ threads: true }),
    pause: async () => {
      pause = await guest?.pause();
    },
    resume: () => pause?.resume(),
    close: () => guest?.close(),
  };
  for (const [name, action] of Object.entries(actions)) {
    await action();
    // Synchronous: what a process says right before it is killed must be heard.
    writeSync(1, `${name}\n`);
    if (name === last) break;
  }
  switch (end) {
    case 'exit':
      process.exit(0);
      break;
    case 'throw':
      setTimeout(() => {
        throw new Error('thrown on purpose');
      });
      break;
    case 'SIGTERM':
    case 'SIGKILL':
      process.kill(process.pid, end);
      await sleep(10_000);
  }
}

/** Says whether the guest runs while it is paused, by its clock. */
async function paused() {
  const guest = await attach(target);
  await guest.pause();
  const jiffies = guest.symbol('jiffies_64');
  const first = guest.read(jiffies, 8).readBigUInt64LE();
  await sleep(300);
  console.log(guest.read(jiffies, 8).readBigUInt64LE() !== first);
  await guest.close();
}

async function workers() {
  // One to begin with: what stays open for the whole process is open then.
  await worker();
  const before = descriptors();
  for (let i = 0; i < 8; i++) await worker(i * 7);
  await sleep(300);
  gc();
  console.log(`8 terminated, ${Math.max(0, descriptors() - before)} descriptors more`);
}

async function worker(delay = 20) {
  const thread = new Worker(new URL(import.meta.url), { workerData: whom });
  await new Promise((resolve, reject) => {
    thread.once('message', resolve);
    thread.once('error', reject);
  });
  await sleep(delay);
  await thread.terminate();
}

async function forget() {
  await attach(target);
  await collect();
  const before = [descriptors(), mappings()];
  for (let i = 0; i < 8; i++) await attach(target);
  await collect();
  console.log(
    `${Math.max(0, descriptors() - (before[0] ?? 0))} descriptors more, ${Math.max(0, mappings() - (before[1] ?? 0))} mappings more`,
  );
}

async function collect() {
  for (let i = 0; i < 10; i++) {
    gc();
    await sleep(20);
  }
}
