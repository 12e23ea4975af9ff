// @ts-check
/**
 * Holds every cell of kernel × layout × source against the oracle: `npm run test:matrix [-- --only TEXT] [--markdown]`.
 * A cell agrees when every task and thread of a real guest has, from outside, each fact that the kernel module
 * inside tells, through every source of the cell. Longer than `npm test`: two cores take some 20 minutes.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { setUpProject } from './setup.mjs';

const { values } = parseArgs({
  options: { only: { type: 'string', default: '' }, markdown: { type: 'boolean', default: false } },
});
const log = (/** @type {string} */ message) => console.error(`• ${message}`);
setUpProject(log);
const { attach } = await import('node-libvmi');
const { bootGuest } = await import('./lab/guest.mjs');
const { compareTasks } = await import('./lab/compare.mjs');

/** @typedef {import('./lab/guest.mjs').GuestOptions} GuestOptions */
/** @typedef {{ name: string, options: GuestOptions, image?: boolean }} Cell */

/** Suites in the order of their kernels: 5.10, 6.1, 6.12, 7.2, 7.3. */
const SUITES = /** @type {const} */ (['bullseye', 'bookworm', 'trixie', 'sid', 'experimental']);

/** @type {Cell[]} */
const cells = [];
for (const suite of SUITES) {
  const add = (/** @type {string} */ name, /** @type {GuestOptions} */ options, image = false) =>
    cells.push({ name: `${suite}: ${name}`, options: { suite, flavour: 'cloud', ...options }, image });
  add('q35, anonymous RAM', {}, true);
  add('pc, shared file, 1 CPU', { machine: 'pc', backend: 'file', cpus: 1 });
  add('5 levels, memfd, 4 CPUs', { levels5: true, backend: 'memfd', cpus: 4 });
  add('page-table isolation', { append: 'pti=on' }, true);
  add('no KASLR, 256 MiB', { append: 'nokaslr', memory: 256 });
  add('q35, 4 GiB around the hole', { memory: 4096, backend: 'file' });
  add('no monitor, 3 GiB, pc', { memory: 3072, machine: 'pc', qmp: false });
  add('no monitor, 4 GiB, q35', { memory: 4096, machine: 'q35', qmp: false });
}
cells.push(
  { name: 'bookworm: generic', options: { suite: 'bookworm', flavour: 'generic' } },
  { name: 'bookworm: rt', options: { suite: 'bookworm', flavour: 'rt' } },
  { name: 'trixie: generic', options: { suite: 'trixie', flavour: 'generic' } },
  { name: 'bookworm: PTI by CPU model', options: { suite: 'bookworm', cpu: 'Skylake-Client' } },
  { name: 'bookworm: two NUMA nodes', options: { suite: 'bookworm', numa: 2, memory: 1024 } },
  { name: 'trixie: 8 GiB, pc', options: { suite: 'trixie', machine: 'pc', memory: 8192 } },
);

/** @type {{ name: string, release: string, sources: string, tasks: number, verdict: string }[]} */
const results = [];
for (const cell of cells.filter(({ name }) => name.includes(values.only))) {
  log(cell.name);
  results.push(await run(cell));
  log(`  ${results.at(-1)?.verdict}`);
}
print();
process.exitCode = results.every(({ verdict }) => verdict === 'agrees') ? 0 : 1;

/** @param {Cell} cell */
async function run(cell) {
  const result = { name: cell.name, release: '–', sources: '', tasks: 0, verdict: 'agrees' };
  const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-matrix-'));
  /** @type {Awaited<ReturnType<typeof bootGuest>> | undefined} */
  let lab;
  try {
    lab = await bootGuest({ ...cell.options, log: () => {} });
    result.release = lab.release;
    const truth = await lab.truth({ freeze: 'halt' });
    result.tasks = truth.tasks.filter(({ kind }) => kind === 'process' || kind === 'thread').length;
    const targets = [`qemu:${lab.pid}`];
    if (lab.memoryPath !== undefined && cell.options.numa === undefined)
      targets.push(`image:${lab.memoryPath}`);
    if (cell.image) {
      const core = join(folder, 'core.elf');
      await lab.dumpElf(core);
      targets.push(`image:${core}`);
    }
    for (const target of targets) {
      const guest = await attach(target, { cache: false });
      try {
        result.sources += `${result.sources === '' ? '' : ', '}${guest.kernel.provenance.located}`;
        const tasks = guest.tasks({ threads: true }).map((task) => task.toJSON());
        const [first, ...rest] = compareTasks(truth, tasks);
        if (first !== undefined) {
          const { pid, fact, expected, actual } = first;
          throw new Error(
            `${target}: PID ${pid}: ${fact} is ${expected}, not ${actual} (and ${rest.length} more)`,
          );
        }
        for (const task of tasks) {
          const cr3 = guest.pidToCr3(task.pid);
          if ((cr3 === null ? null : `0x${cr3.toString(16)}`) !== task.cr3)
            throw new Error(`PID ${task.pid}: looked up otherwise`);
        }
        for (const cpu of guest.cpus()) {
          const told = truth.cpus.find((row) => row.cpu === cpu.cpu);
          if (told === undefined || told.task !== cpu.task.address || told.loadedPgd !== cpu.cr3)
            throw new Error(`CPU ${cpu.cpu} differs`);
        }
        if (guest.crossView().some((row) => row.missing.length > 0)) throw new Error('the views disagree');
      } finally {
        await guest.close();
      }
    }
  } catch (error) {
    result.verdict = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
  } finally {
    await lab?.close();
    rmSync(folder, { recursive: true, force: true });
  }
  return result;
}

function print() {
  const bar = values.markdown ? '| ' : '';
  const line = (/** @type {(string | number)[]} */ [name, release, sources, tasks, verdict]) =>
    console.log(
      `${bar}${String(name).padEnd(40)} ${bar}${String(release).padEnd(28)} ${bar}${String(sources).padEnd(24)} ${bar}${String(tasks).padStart(6)} ${bar}${verdict}${values.markdown ? ' |' : ''}`,
    );
  line(['guest', 'kernel', 'found by', 'tasks', 'verdict']);
  if (values.markdown) console.log('|---|---|---|---:|---|');
  for (const { name, release, sources, tasks, verdict } of results)
    line([name, release, sources, tasks, verdict]);
  console.log(
    `${results.filter(({ verdict }) => verdict === 'agrees').length} of ${results.length} cells agree with the oracle`,
  );
}
