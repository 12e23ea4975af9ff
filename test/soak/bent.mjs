// @ts-check
/**
 * Asks bent guests everything: `node test/soak/bent.mjs [--operations 1000000] [--from SEED]
 * [--suite bookworm] [--jobs 2]`. Every operation must end in time, with a right answer or an error
 * of the library's own, whatever the guest's memory holds. A child process does the work, so that a
 * crash or a hang costs one seed, which is printed and tried again by `--from SEED --bends 1`.
 */
import { fork } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { copySparse, guestImage } from '../hostile/image.mjs';

const { values } = parseArgs({
  options: {
    operations: { type: 'string', default: '1000000' },
    bends: { type: 'string', default: '1000000000' },
    from: { type: 'string', default: '1' },
    suite: { type: 'string', default: 'bookworm' },
    jobs: { type: 'string', default: '1' },
    /** percent of bends of what attaching reads */ attaches: { type: 'string', default: '5' },
    verbose: { type: 'boolean', default: false },
  },
});

const CHILD = fileURLToPath(new URL('../hostile/child.mjs', import.meta.url));
/** A child that is at the same seed for so long hangs, milliseconds. */
const HANG = 60_000;
/** Seeds that a job has for itself. */
const SEEDS = 1_000_000_000;
/** Crashes and hangs after which a job gives up. */
const MAX_DEATHS = 10;

/**
 * @typedef {{ operations: number, bends: number, attaches: number, attached: number,
 *   failures: number, next: number,
 *   slowest: { name: string, milliseconds: number, seed: number }, outcomes: Record<string, number>
 *   }} Done */

const image = await guestImage(values.suite);
const roomy = await statfs('/dev/shm').then(
  ({ bavail, bsize }) => bavail * bsize > 2 ** 30,
  () => false,
);
const folder = mkdtempSync(join(roomy ? '/dev/shm' : tmpdir(), 'node-libvmi-bent-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM']))
  process.on(signal, () => process.exit(1));

const jobs = Number(values.jobs);
const totals = {
  operations: 0,
  bends: 0,
  attaches: 0,
  attached: 0,
  failures: 0,
  slowest: { name: '', milliseconds: 0, seed: 0 },
};
/** @type {Map<string, number>} */
const outcomes = new Map();
await Promise.all(Array.from({ length: jobs }, (_, job) => work(job)));
console.log(
  JSON.stringify({
    suite: values.suite,
    ...totals,
    outcomes: Object.fromEntries([...outcomes].sort()),
  }),
);
process.exitCode = totals.failures === 0 ? 0 : 1;

/** @param {number} job */
async function work(job) {
  const ram = join(folder, `ram${job}`);
  let from = Number(values.from) + job * SEEDS;
  const operations = Math.ceil(Number(values.operations) / jobs);
  let bends = Math.ceil(Number(values.bends) / jobs);
  for (let deaths = 0; operations > 0 && bends > 0 && deaths < MAX_DEATHS; ) {
    await copySparse(image.ram, ram);
    const { done, seed, why } = await runChild(job, { ram, from, operations, bends });
    if (done !== undefined) {
      add(done);
      return;
    }
    deaths++;
    totals.failures++;
    console.log(JSON.stringify({ seed, why }));
    bends -= seed + 1 - from;
    from = seed + 1;
  }
}

/** @param {Done} done */
function add(done) {
  for (const key of /** @type {const} */ ([
    'operations',
    'bends',
    'attaches',
    'attached',
    'failures',
  ]))
    totals[key] += done[key];
  if (done.slowest.milliseconds > totals.slowest.milliseconds) totals.slowest = done.slowest;
  for (const [name, count] of Object.entries(done.outcomes))
    outcomes.set(name, (outcomes.get(name) ?? 0) + count);
}

/**
 * @param {number} job
 * @param {{ ram: string, from: number, operations: number, bends: number }} share
 * @returns {Promise<{ done?: Done, seed: number, why: string }>}
 */
function runChild(job, share) {
  const progress = join(folder, `progress${job}`);
  const child = fork(
    CHILD,
    [
      JSON.stringify({
        ...share,
        suite: values.suite,
        cache: join(folder, `cache${job}`),
        progress,
        attaches: Number(values.attaches),
        verbose: values.verbose,
      }),
    ],
    { execArgv: ['--expose-gc'], stdio: ['ignore', 'pipe', 'inherit', 'ipc'] },
  );
  /** @type {Done | undefined} */
  let done;
  let rest = '';
  child.stdout?.setEncoding('utf8').on('data', (text) => {
    const lines = `${rest}${text}`.split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      const row = line.startsWith('{"done"') ? JSON.parse(line) : undefined;
      if (row === undefined) console.log(line);
      else done = row.done;
    }
  });
  const at = () => {
    try {
      return Number(readFileSync(progress, 'latin1').replaceAll('\0', '')) || share.from;
    } catch {
      return share.from;
    }
  };
  let hung = false;
  let last = at();
  let since = Date.now();
  const watch = setInterval(() => {
    const seed = at();
    if (seed !== last) since = Date.now();
    last = seed;
    if (Date.now() - since < HANG) return;
    hung = true;
    child.kill('SIGKILL');
  }, 500);
  return new Promise((resolve) => {
    child.on('close', (code, signal) => {
      clearInterval(watch);
      const why = hung ? `hung for ${HANG} ms` : `ended with ${signal ?? `code ${code}`}`;
      resolve({ ...(code === 0 && done !== undefined ? { done } : {}), seed: at(), why });
    });
  });
}
