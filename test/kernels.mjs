// @ts-check
/**
 * Holds every test kernel against the oracle: kernels without types or names, shrunk, shuffled,
 * hardened.
 *
 *   npm run --silent test:kernels [-- --only TEXT]… [--built] [--write]
 *
 * `--built` looks at the kernels that are built already; `--write` puts the rows that were looked
 * at into the table of docs/kernels.md, next to those of the other kernels that stand there.
 *
 * A fact that a kernel does not let one know is `null` and counts as unanswered; a fact that
 * differs is wrong, and one wrong fact fails the run. The first run builds the kernels: minutes
 * each.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { setUpProject } from './setup.mjs';

const { values } = parseArgs({
  options: {
    only: { type: 'string', multiple: true, default: [''] },
    built: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
  },
});
const log = (/** @type {string} */ message) => console.error(`• ${message}`);
setUpProject(log);
const { attach } = await import('node-libvmi');
const { bootGuest } = await import('./lab/guest.mjs');
const { compareTasks, expectedCr3, expectedSharers, factCount } = await import('./lab/compare.mjs');
const { isBuilt, testKernelNames } = await import('./lab/test-kernels.mjs');

/** @typedef {import('./lab/truth.mjs').Truth} Truth */
/**
 * @typedef {{ name: string, release: string, tasks: number, facts: number, answered: number, wrong:
 * number, cr3: string, verdict: string }} Row
 */

const FILE = fileURLToPath(new URL('../docs/kernels.md', import.meta.url));
const MARKS = ['<!-- kernels: written by npm run test:kernels -- --write -->', '<!-- /kernels -->'];

/** @type {Row[]} */
const rows = [];
const names = await testKernelNames();
for (const name of names) {
  // A whole name means that kernel alone, not those whose names hold it too.
  const meant = (/** @type {string} */ text) =>
    names.includes(text) ? name === text : name.includes(text);
  if (!values.only.some(meant) || (values.built && !(await isBuilt(name)))) continue;
  const row = await look(name);
  rows.push(row);
  log(`${name}: ${row.verdict}`);
}
const HEAD = [
  '| kernel | tasks | facts answered | wrong | PID → CR3 and back | verdict |',
  '|---|---:|---:|---:|---|---|',
];
const lines = rows.map(
  ({ name, tasks, facts, answered, wrong, cr3, verdict }) =>
    `| ${name} | ${tasks} | ${facts === 0 ? '–' : `${((100 * answered) / facts).toFixed(1)} %`} | ${wrong} | ${cr3} | ${verdict} |`,
);
console.log([...HEAD, ...lines].join('\n'));
if (values.write) write();
process.exitCode = rows.some(({ wrong, verdict }) => wrong > 0 || verdict.startsWith('refused'))
  ? 1
  : 0;

/** @param {string} name @returns {Promise<Row>} */
async function look(name) {
  /** @type {Row} */
  const row = {
    name,
    release: '–',
    tasks: 0,
    facts: 0,
    answered: 0,
    wrong: 0,
    cr3: '–',
    verdict: '',
  };
  /** @type {import('./lab/guest.mjs').LabGuest | undefined} */
  let lab;
  try {
    lab = await bootGuest({ build: name, log, levels5: name === 'levels5' });
    row.release = lab.release;
    const truth = await lab.truth({ freeze: 'halt' });
    await lab.stop();
    await compare(`qemu:${lab.pid}`, truth, row);
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    row.verdict = `refused: ${text.replace(/\s*\n\s*/g, '; ').replaceAll('|', '\\|')}`;
  } finally {
    await lab?.close();
  }
  return row;
}

/** @param {string} target @param {Truth} truth @param {Row} row */
async function compare(target, truth, row) {
  const guest = await attach(target, { cache: false });
  try {
    const tasks = guest.tasks({ threads: true }).map((task) => task.toJSON());
    const differences = compareTasks(truth, tasks);
    const unanswered = differences.filter(({ actual }) => actual === 'null');
    row.tasks = tasks.length;
    row.facts = factCount(truth, tasks);
    row.answered = row.facts - unanswered.length;
    row.wrong = differences.length - unanswered.length;
    row.cr3 = bothWays(guest, truth);
    const first = differences.find(({ actual }) => actual !== 'null');
    row.verdict =
      first === undefined
        ? 'agrees'
        : `PID ${first.pid}: ${first.fact} is ${first.expected}, not ${first.actual}`;
  } finally {
    await guest.close();
  }
}

/** @param {import('node-libvmi').Guest} guest @param {Truth} truth @returns {string} */
function bothWays(guest, truth) {
  let there = 0;
  let asked = 0;
  for (const task of truth.tasks) {
    if (task.kind !== 'process' && task.kind !== 'thread') continue;
    asked++;
    if (guest.pidToCr3(task.pid) === expectedCr3(truth, task).cr3) there++;
  }
  let back = 0;
  const sharers = expectedSharers(truth);
  for (const [cr3, pids] of sharers) {
    const found = guest.cr3ToTasks(cr3).map(({ pid }) => pid);
    if (found.sort().join() === pids.sort().join()) back++;
  }
  return `${there} of ${asked}, ${back} of ${sharers.size}`;
}

/** Puts the rows into the document; kernels that were not looked at keep theirs. */
function write() {
  const text = readFileSync(FILE, 'utf8');
  const [start, end] = MARKS.map((mark) => text.indexOf(mark));
  if (start === undefined || end === undefined || start < 0 || end < 0)
    throw new Error(`no place for the table in ${FILE}`);
  const known = new Map(names.map((name) => [name, `| ${name} | – | – | – | – | not built |`]));
  for (const line of [...text.slice(start, end).split('\n'), ...lines]) {
    const name = /^\| (\S+) \|/.exec(line)?.[1];
    if (name !== undefined && known.has(name)) known.set(name, line);
  }
  const table = [...HEAD, ...known.values()].join('\n');
  writeFileSync(FILE, `${text.slice(0, start)}${MARKS[0]}\n${table}\n${text.slice(end)}`);
}
