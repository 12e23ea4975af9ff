// @ts-check
/**
 * Measures the package beside drgn on one dump of a guest, in one run: `npm run bench:drgn`. drgn
 * has the kernel's debug information (a kernel of test/lab/kernels that is built with it); this
 * package has the dump alone. Figures are medians; what matters are the ratios. Nothing here
 * asserts.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { setUpProject } from '../test/setup.mjs';
import { conditions, here, log, median, times } from './measure.mjs';

const { values } = parseArgs({
  options: {
    build: { type: 'string', default: 'base-small' },
    tasks: { type: 'string', default: '400' },
    runs: { type: 'string', default: '5' },
  },
});

if (spawnSync('drgn', ['--version']).status !== 0) {
  console.log('skipped: there is no drgn here (Debian: apt-get install python3-drgn)');
  process.exit();
}
setUpProject(log);
const { attach } = await import('node-libvmi');
const { elfCore } = await import(new URL('../dist/export/elf-core.js', import.meta.url).href);
const { bootGuest } = await import('../test/lab/guest.mjs');
const { isBuilt, testKernel } = await import('../test/lab/test-kernels.mjs');
if (!(await isBuilt(values.build))) {
  console.log(
    `skipped: the test kernel ${values.build} is not built (npm run test:kernels builds it)`,
  );
  process.exit();
}

/** Bytes of a page. */
const PAGE = 4096;

/** @param {string} file where the dump goes: all RAM, and VMCOREINFO, which drgn needs */
async function dump(file) {
  const lab = await bootGuest({
    build: values.build,
    memory: 256,
    cpus: 1,
    tasks: Number(values.tasks),
    busy: 0,
    backend: 'memfd',
    log,
  });
  try {
    const guest = await attach(`qemu:${lab.pid}`);
    const pause = await guest.pause();
    const numbers = guest.memory.ranges.flatMap(({ start, length }) =>
      Array.from({ length: Number(length) / PAGE }, (_, i) => Number(start) / PAGE + i),
    );
    const page = (/** @type {number} */ number) => guest.memory.read(number * PAGE, PAGE);
    writeFileSync(file, elfCore(guest.kernel, { numbers, page }));
    await pause.resume();
    await guest.close();
  } finally {
    await lab.close();
  }
}

/**
 * Runs a program several times: its own medians, and how long it takes to the first value.
 * @param {string} command @param {string[]} args @param {string[]} short the same for one value
 *   only
 */
function run(command, args, short) {
  /** @type {Record<string, number>[]} */
  const all = [];
  /** @type {number[]} */
  const starts = [];
  for (let i = 0; i < Number(values.runs); i++) {
    const start = performance.now();
    const first = spawnSync(command, short, { encoding: 'utf8' });
    starts.push(performance.now() - start);
    if (first.status !== 0) throw new Error(`${command}: ${first.stderr}`);
    const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' });
    if (status !== 0) throw new Error(`${command}: ${stderr}`);
    all.push(JSON.parse(stdout));
  }
  const of = (/** @type {string} */ name) => median(all.map((one) => one[name] ?? Number.NaN));
  return { of, start: median(starts), has: (/** @type {string} */ name) => name in (all[0] ?? {}) };
}

const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-drgn-'));
try {
  const { vmlinux } = await testKernel(values.build, { log });
  if (!existsSync(vmlinux)) throw new Error(`no vmlinux of ${values.build}`);
  const file = join(folder, 'dump.elf');
  await dump(file);
  const one = join(folder, 'one.py');
  writeFileSync(one, 'print(prog["init_task"].pid.value_())\n');
  const ours = join(here, 'drgn-ours.mjs');
  const vmi = join(here, '..', 'dist', 'bundle', 'cli', 'main.js');
  const main = [vmi, 'type', `image:${file}`, 'task_struct.pid', 'init_task'];
  const base = ['-q', '-c', file, '-s', vmlinux];
  const drgn = run('drgn', [...base, join(here, 'drgn.py')], [...base, one]);
  const mine = run(process.execPath, [ours, file], main);
  console.log(
    `${conditions()}; drgn ${spawnSync('drgn', ['--version'], { encoding: 'utf8' }).stdout.split('\n')[0]}`,
  );
  console.log(`  one dump of ${values.build}, ${mine.of('tasks')} tasks`);
  const row = (
    /** @type {string} */ name,
    /** @type {number | undefined} */ its,
    /** @type {number} */ our,
    /** @type {string} */ unit,
  ) =>
    console.log(
      `  ${name.padEnd(44)} ${its === undefined ? 'none'.padStart(12) : `${its.toFixed(2)} ${unit}`.padStart(12)} ${`${our.toFixed(2)} ${unit}`.padStart(12)}  ${its === undefined ? '' : times(its / our)}`,
    );
  console.log(`  ${''.padEnd(44)} ${'drgn'.padStart(12)} ${'here'.padStart(12)}`);
  row('a member', drgn.of('member'), mine.of('member'), 'µs');
  row('a task of a list walk, two members', drgn.of('walk'), mine.of('walk'), 'µs');
  row(
    'an area of all address spaces',
    drgn.has('vma') ? drgn.of('vma') : undefined,
    mine.of('vma'),
    'µs',
  );
  row('init_task printed', drgn.of('print'), mine.of('print'), 'µs');
  row('from the start of the program to a value', drgn.start, mine.start, 'ms');
  row(
    'memory of its own at the end',
    drgn.of('memory') / 2 ** 20,
    mine.of('memory') / 2 ** 20,
    'MiB',
  );
} finally {
  rmSync(folder, { recursive: true, force: true });
}
