// @ts-check
/**
 * Bends one guest over and over and asks it everything: `child.mjs OPTIONS` with the JSON of {@link
 * Options}. Writes the seed at hand to `progress` before it starts, so that whoever watches knows
 * it after a crash or a hang, and JSON lines on standard output: a failure each, and what was done
 * at the end.
 */
import { closeSync, openSync, readFileSync, statSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { attach, Guest, Kernel, PhysicalMemory } from 'node-libvmi';
import { bendOf, GuestFile } from './bend.mjs';
import { guestImage } from './image.mjs';
import { codeOf, differences, operations, textEntry } from './operations.mjs';
import { Random } from './random.mjs';
import { survey as surveyOf } from './survey.mjs';

/**
 * @typedef {object} Options
 * @property {string} ram a copy of the image's RAM, to be bent
 * @property {string} suite
 * @property {string} cache a folder for the cache of kernels
 * @property {string} progress
 * @property {number} from first seed
 * @property {number} operations end after so many operations …
 * @property {number} bends … or so many bends
 * @property {number} attaches percent of bends of what attaching reads
 * @property {boolean} verbose
 */

/**
 * What an operation may take beyond its time on the guest as it was, and attaching in all,
 * milliseconds.
 */
const BEYOND = 250;
const PARENT = process.ppid;
const ATTACH_LIMIT = 5000;

/** @type {typeof import('../../types/addon.js')} */
const native = createRequire(import.meta.url)('../../build/Release/vmi_addon.node');
/** @type {Options} */
const options = JSON.parse(process.argv[2] ?? '{}');
const progress = openSync(options.progress, 'w');
const image = await guestImage(options.suite);
const file = new GuestFile(options.ram);
const target = `image:${options.ram}`;

/**
 * The same RAM, reached in each way there is.
 * @param {'file' | 'process'} kind
 * @param {boolean} live
 */
async function open(kind, live) {
  const memory = new PhysicalMemory({
    native: native.openMemory(kind === 'file' ? fileSegments() : processSegments()),
    source: 'image',
    description: `${target}, ${kind}${live ? ', live' : ''}`,
    live,
  });
  try {
    const kernel = await Kernel.load(memory, { cache: false, registers: image.registers });
    return new Guest(target, memory, kernel);
  } catch (error) {
    await memory.close();
    throw error;
  }
}

function fileSegments() {
  const fd = openSync(options.ram, 'r');
  return {
    segments: [
      {
        physical: 0n,
        length: BigInt(statSync(options.ram).size),
        kind: /** @type {const} */ ('file'),
        fd,
        offset: 0n,
      },
    ],
  };
}

/**
 * Milliseconds of an operation: by the clock or of CPU time, whichever is less. On a busy host the
 * clock measures others; what sleeps and never ends is a hang, which the parent notices.
 *
 * @overload
 * @returns {{ wall: number, cpu: NodeJS.CpuUsage }}
 */
/**
 * @overload
 * @param {{ wall: number, cpu: NodeJS.CpuUsage }} start
 * @returns {number}
 */
/** @param {{ wall: number, cpu: NodeJS.CpuUsage }} [start] */
function clock(start) {
  if (start === undefined) return { wall: performance.now(), cpu: process.cpuUsage() };
  const { user, system } = process.cpuUsage(start.cpu);
  return Math.min(performance.now() - start.wall, (user + system) / 1000);
}

/** The mapping of the file in this very process, read as another process's memory. */
function processSegments() {
  const line = readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .find((mapping) => mapping.endsWith(options.ram) && mapping.split(/\s+/)[2] === '00000000');
  const [start = '', end = ''] = (line ?? '').split(' ', 1)[0]?.split('-') ?? [];
  const first = BigInt(`0x${start}`);
  return {
    pid: process.pid,
    segments: [
      {
        physical: 0n,
        length: BigInt(`0x${end}`) - first,
        kind: /** @type {const} */ ('process'),
        offset: first,
      },
    ],
  };
}

const plain = await attach(target, { cache: options.cache });
// What types and symbols are asked for is opened now: bending them later must not matter to these
// guests.
const survey = await surveyOf(plain, options.ram);
const guests = [plain, await open('file', true), await open('process', true)];
for (const guest of guests) textEntry(guest);
/** @type {Map<string, import('./operations.mjs').Rows>[]} */
const baselines = [];
/** @type {Map<string, number>} */
const unbent = new Map();
for (const guest of guests) {
  /** @type {Map<string, import('./operations.mjs').Rows>} */
  const baseline = new Map();
  baselines.push(baseline);
  for (let round = 0; round < 5; round++) {
    for (const operation of operations(survey, new Random(round), true)) {
      const start = clock();
      try {
        const rows = await operation.run(guest);
        if (operation.lists !== undefined && rows !== undefined) baseline.set(operation.name, rows);
      } catch (error) {
        if (codeOf(error) === undefined) throw error;
      }
      const took = clock(start);
      if (round > 0) unbent.set(operation.name, Math.max(unbent.get(operation.name) ?? 0, took));
    }
  }
}
const everyTask = baselines[0]?.get('tasks threads') ?? new Map();

const totals = {
  operations: 0,
  bends: 0,
  attaches: 0,
  attached: 0,
  failures: 0,
  slowest: { name: '', milliseconds: 0, seed: 0 },
};
/** @type {Record<string, number>} */
const outcomes = {};
let seed = options.from;
/** @type {import('./bend.mjs').Bend} */
let bend = { seed: 0, what: [], patches: [], hides: false };

/** @param {string} name @param {string} why */
function fail(name, why) {
  totals.failures++;
  console.log(
    JSON.stringify({ seed, operation: name, why: why.slice(0, 2000), bend: bend.what.slice(0, 6) }),
  );
}

/**
 * @param {import('./operations.mjs').Operation} operation
 * @param {Guest} guest
 * @param {Map<string, import('./operations.mjs').Rows> | undefined} baseline
 */
async function ask(operation, guest, baseline) {
  totals.operations++;
  const start = clock();
  let outcome = 'answer';
  try {
    const rows = await operation.run(guest);
    if (rows !== undefined && baseline !== undefined) {
      const listed =
        operation.lists === undefined ? everyTask : (baseline.get(operation.name) ?? everyTask);
      const complete = operation.lists !== undefined && rows.partial !== true;
      const wrong = differences(survey, bend, listed, rows, complete);
      if (wrong.length > 0) fail(operation.name, `wrong: ${wrong.slice(0, 3).join('; ')}`);
    }
  } catch (error) {
    const code = codeOf(error);
    outcome = code ?? 'failure';
    if (code === undefined)
      fail(operation.name, error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
  const took = clock(start);
  outcomes[`${operation.name}: ${outcome}`] = (outcomes[`${operation.name}: ${outcome}`] ?? 0) + 1;
  return took;
}

/**
 * @param {Guest} guest
 * @param {Random} random
 * @param {boolean} asking
 * @param {Map<string, import('./operations.mjs').Rows>} [baseline]
 */
async function askAll(guest, random, asking, baseline) {
  for (const operation of operations(survey, random, asking)) {
    const limit = (unbent.get(operation.name) ?? 0) + BEYOND;
    let took = await ask(operation, guest, baseline);
    // A host that is busy makes anything slow once.
    for (let again = 0; took > limit && again < 3; again++)
      took = Math.min(took, await ask(operation, guest, baseline));
    if (took > limit) took = Math.max(0, took - (await unbentNow(operation, guest)));
    if (took > limit) fail(operation.name, `took ${Math.round(took)} ms longer than unbent`);
    if (took > totals.slowest.milliseconds)
      totals.slowest = { name: operation.name, milliseconds: took, seed };
  }
}

/**
 * What an operation takes on the guest as it was, on the host as busy as it is now.
 *
 * @param {import('./operations.mjs').Operation} operation
 * @param {Guest} guest
 */
async function unbentNow(operation, guest) {
  file.straighten();
  const start = clock();
  await Promise.resolve()
    .then(() => operation.run(guest))
    .catch(() => {});
  const took = clock(start);
  file.bend(bend);
  return took;
}

/** @param {Random} random */
async function attachBent(random) {
  const way = random.pick(['search', 'cache', 'registers', 'contents']);
  const start = clock();
  /** @type {Guest | undefined} */
  let guest;
  totals.operations++;
  totals.attaches++;
  try {
    guest =
      way === 'registers'
        ? await open('file', random.chance(50))
        : await attach(target, { cache: way === 'cache' ? options.cache : false });
    totals.attached++;
    outcomes[`attach by ${way}: answer`] = (outcomes[`attach by ${way}: answer`] ?? 0) + 1;
  } catch (error) {
    const code = codeOf(error);
    if (code === undefined)
      fail(
        `attach by ${way}`,
        error instanceof Error ? (error.stack ?? error.message) : String(error),
      );
    outcomes[`attach by ${way}: ${code}`] = (outcomes[`attach by ${way}: ${code}`] ?? 0) + 1;
  }
  const took = clock(start);
  if (took > ATTACH_LIMIT) fail(`attach by ${way}`, `took ${Math.round(took)} ms`);
  if (guest === undefined) return;
  if (guest.kernel.root !== survey.root)
    fail(`attach by ${way}`, `found the page table at 0x${guest.kernel.root.toString(16)}`);
  await askAll(guest, random, true);
  await guest.close();
}

let heap = 0;
let most = 0;
const gc = /** @type {(() => void) | undefined} */ (
  /** @type {{ gc?: () => void }} */ (globalThis).gc
);
const started = performance.now();
for (; totals.operations < options.operations && totals.bends < options.bends; seed++) {
  const line = Buffer.alloc(16);
  line.write(String(seed));
  writeSync(progress, line, 0, 16, 0);
  // Killed without a chance to say so.
  if (process.ppid !== PARENT) process.exit(1);
  const random = new Random(BigInt(seed) + (1n << 40n));
  const attaching = random.chance(options.attaches);
  bend = bendOf(seed, survey, file, attaching ? 'still' : 'live');
  file.bend(bend);
  totals.bends++;
  try {
    if (attaching) await attachBent(random);
    else {
      const at = random.pick([0, 0, 1, 2]);
      await askAll(/** @type {Guest} */ (guests[at]), random, random.chance(5), baselines[at]);
    }
  } finally {
    file.straighten();
  }
  if (totals.bends % 500 === 0 && gc !== undefined) {
    // What a listing's buffers held is given back a turn after they are collected.
    gc();
    await new Promise((resolve) => setImmediate(resolve));
    gc();
    const used = process.memoryUsage();
    const bytes = used.heapUsed + used.external + used.arrayBuffers;
    if (totals.bends <= 1000) heap = Math.max(heap, bytes);
    most = Math.max(most, bytes);
    if (options.verbose)
      console.error(
        `${totals.bends} bends, ${totals.operations} operations, ${Math.round((performance.now() - started) / 1000)} s, heap ${bytes >> 20} MiB, rss ${used.rss >> 20} MiB, ${totals.failures} failures`,
      );
  }
}
if (most > heap + (32 << 20)) fail('memory', `grew from ${heap >> 20} to ${most >> 20} MiB`);
// Straightened, the guest answers as before: nothing stuck.
bend = { seed, what: ['none'], patches: [], hides: false };
for (const [i, guest] of guests.entries()) await askAll(guest, new Random(1), true, baselines[i]);
for (const guest of guests) await guest.close();
file.close();
closeSync(progress);
console.log(JSON.stringify({ done: { ...totals, next: seed, outcomes } }));
