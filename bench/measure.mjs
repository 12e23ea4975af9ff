// @ts-check
/**
 * How the benches measure: medians, the plain C walker, and the figures that more than one of them
 * prints.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** @typedef {import('../test/lab/guest.mjs').LabGuest} LabGuest */
/** @typedef {import('node-libvmi').Guest} Guest */

export const here = fileURLToPath(new URL('.', import.meta.url));
/** Milliseconds, before the first measurement of something and before one that follows others. */
const WARM = 400;
const WARM_AGAIN = 2;
/**
 * Measurements of each of those that are compared, before it is the next one's turn: few, since
 * phases of the machine are short.
 */
export const TURN = 5;
export const log = (/** @type {string} */ message) => console.error(`• ${message}`);

/** @param {number[]} numbers */
export const median = (numbers) =>
  [...numbers].sort((a, b) => a - b)[numbers.length >> 1] ?? Number.NaN;
export const ms = (/** @type {number} */ value) => `${value.toFixed(3)} ms`;
export const us = (/** @type {number} */ value) => `${(value * 1e3).toFixed(2)} µs`;
export const ns = (/** @type {number} */ value) => `${(value * 1e6).toFixed(0)} ns`;
export const times = (/** @type {number} */ value) => `${value.toFixed(2)} x`;

/** The machine, Node and the commit, for the head of a result. */
export function conditions() {
  const commit = spawnSync('git', ['rev-parse', '--short', 'HEAD'], {
    encoding: 'utf8',
  }).stdout.trim();
  return `${cpus()[0]?.model}, ${cpus().length} cores; Node ${process.versions.node}; commit ${commit || 'none'}`;
}

/**
 * Milliseconds, median. Compiling is not measured: what is to be measured runs for a while before.
 * @param {() => unknown} work @param {number} count @param {number} [milliseconds] to run before
 *   @returns {number}
 */
export function time(work, count, milliseconds = WARM) {
  const warm = performance.now() + milliseconds;
  do work();
  while (performance.now() < warm);
  const samples = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    work();
    samples.push(performance.now() - start);
  }
  return median(samples);
}

/**
 * An attach without a profile. The guest may run.
 * @param {LabGuest} lab @param {boolean} cache @returns {Promise<number>} milliseconds, median
 */
export async function attachMedian(lab, cache) {
  const { attach } = await import('node-libvmi');
  const target = `qemu:${lab.pid}`;
  await (await attach(target, { cache })).close();
  const samples = [];
  for (let i = 0; i < 15; i++) {
    const start = performance.now();
    const guest = await attach(target, { cache });
    samples.push(performance.now() - start);
    await guest.close();
  }
  return median(samples);
}

/** Builds the plain C walker. @param {string} folder @returns {string} its path */
export function buildWalker(folder) {
  const walker = join(folder, 'walker');
  execFileSync('cc', ['-O2', '-o', walker, join(here, 'walker.c')]);
  return walker;
}

/** A pipe that is read and written without the event loop. @param {string} path */
function makePipe(path) {
  execFileSync('mkfifo', [path]);
  // To open one end waits for the other, unless there is one that is both.
  const both = openSync(path, 'r+');
  const ends = { read: openSync(path, 'r'), write: openSync(path, 'w') };
  closeSync(both);
  return ends;
}

/**
 * The plain C walker over the RAM of a guest that stands still. One process walks whenever it is
 * asked: to start one makes every page of this process copy-on-write, and what is measured next
 * would pay for thousands of page faults.
 * @param {string} folder for its pipes @param {string} walker @param {LabGuest} lab with a file of
 *   RAM @param {Guest} guest the same, attached
 */
export function startWalker(folder, walker, lab, guest) {
  const { types, image, pageOffset } = guest.kernel;
  const task = (/** @type {string} */ member) => types.offset('task_struct', member);
  const offsets = [
    ...['tasks', 'pid', 'tgid', 'flags'].map(task),
    types.findOffset('task_struct', '__state') ?? task('state'),
    ...[
      'exit_state',
      'start_time',
      'on_cpu',
      'comm',
      'mm',
      'active_mm',
      'real_parent',
      'signal',
      'real_cred',
      'thread_pid',
    ].map(task),
    types.offset('mm_struct', 'pgd'),
    types.offset('cred', 'uid'),
    types.offset('pid', 'level'),
  ];
  const head = guest.symbol('init_task') + BigInt(task('tasks'));
  const questions = makePipe(join(folder, `questions-${lab.pid}`));
  const answers = makePipe(join(folder, `answers-${lab.pid}`));
  spawn(
    walker,
    [
      lab.memoryPath ?? '',
      guest.memory.ranges[0]?.length ?? 0n,
      pageOffset,
      head,
      image.virtual,
      image.physical,
      ...offsets,
    ].map(String),
    { stdio: [questions.read, answers.write, 'inherit'] },
  );
  // Each side has one end only: when one goes, the other is told.
  closeSync(questions.read);
  closeSync(answers.write);
  const line = Buffer.alloc(64);
  const ask = (/** @type {number} */ runs) => {
    writeSync(questions.write, `${runs}\n`);
    const length = readSync(answers.read, line);
    if (length === 0) throw new Error('the plain C walker has ended');
    const [count = Number.NaN, nanoseconds = Number.NaN] = line
      .toString('latin1', 0, length)
      .split(' ')
      .map(Number);
    if (count < 0) throw new Error('the plain C walker left the RAM of the guest');
    return { count, milliseconds: nanoseconds / 1e6 };
  };
  return {
    count: ask(1).count,
    /** Milliseconds, median. @param {number} runs */
    median: (runs) => ask(runs).milliseconds,
    /** Ends it: there is nothing more to read. */
    close() {
      closeSync(questions.write);
      closeSync(answers.read);
    },
  };
}

/**
 * Measures in turns, so that no phase of the machine falls on one of them alone.
 * @template {string} Name
 * @param {Record<Name, (warm: number) => number>} ways to measure, each in milliseconds; the first
 *   is what the others are compared with
 * @param {number} runs turns of each
 * @returns {Record<Name, { milliseconds: number, ratio: number }>} medians; ratios are of
 *   neighbours in time
 */
export function sideBySide(ways, runs) {
  const names = /** @type {Name[]} */ (Object.keys(ways));
  const rounds = Array.from({ length: runs }, (_, round) =>
    names.map((name) => ways[name](round === 0 ? WARM : WARM_AGAIN)),
  );
  const each = names.map((name, i) => [
    name,
    {
      milliseconds: median(rounds.map((row) => row[i] ?? Number.NaN)),
      ratio: median(rounds.map((row) => (row[i] ?? Number.NaN) / (row[0] ?? Number.NaN))),
    },
  ]);
  return Object.fromEntries(each);
}

/**
 * Every process with all facts, in each form, as {@link sideBySide} takes them.
 * @param {Guest} guest
 */
export function listings(guest) {
  return {
    columns: (/** @type {number} */ warm) => time(() => guest.taskColumns(), TURN, warm),
    objects: (/** @type {number} */ warm) => time(() => guest.tasks(), TURN, warm),
    answers: (/** @type {number} */ warm) =>
      time(
        () => {
          for (const task of guest.tasks()) task.cr3;
        },
        TURN,
        warm,
      ),
  };
}

/**
 * One look-up of a PID, over all of them in turn.
 * @param {Guest} guest
 * @param {number} runs
 * @returns milliseconds, median
 */
export function lookUpMedian(guest, runs) {
  const pids = guest.tasks().map((task) => task.pid);
  let at = 0;
  const thousand = time(() => {
    for (let i = 0; i < 1000; i++) guest.pidToCr3(pids[at++ % pids.length] ?? 1);
  }, runs);
  return thousand / 1000;
}
