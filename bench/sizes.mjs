// @ts-check
/**
 * How attach, listings and look-ups grow with the number of tasks: `npm run bench:sizes [-- --tasks
 * 0,2000,10000]`. One guest after the other, with shared RAM; the numbers are of sleeping
 * processes, to which the lab and the kernel add some hundred. Nothing here asserts.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { setUpProject } from '../test/setup.mjs';
import {
  attachMedian,
  buildWalker,
  conditions,
  listings,
  log,
  lookUpMedian,
  ms,
  sideBySide,
  startWalker,
  TURN,
  times,
  us,
} from './measure.mjs';

const { values } = parseArgs({
  options: {
    tasks: { type: 'string', default: '0,2000,10000' },
    runs: { type: 'string', default: '41' },
    memory: { type: 'string', default: '1024' },
    suite: { type: 'string', default: 'bookworm' },
  },
});
const runs = Number(values.runs);
const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-bench-'));

setUpProject(log);
const { attach } = await import('node-libvmi');
const { bootGuest } = await import('../test/lab/guest.mjs');

/**
 * @param {string} walker
 * @param {number} tasks
 * @returns {Promise<[figure: string, value: string][]>}
 */
async function measure(walker, tasks) {
  log(`booting a guest with ${tasks} sleeping tasks`);
  const { suite, memory } = values;
  const lab = await bootGuest({
    suite,
    memory: Number(memory),
    cpus: 2,
    tasks,
    busy: 0,
    backend: 'file',
    log,
  });
  try {
    const cold = await attachMedian(lab, false);
    const cached = await attachMedian(lab, true);
    // A guest that runs steals the cores that are measured.
    await lab.stop();
    const guest = await attach(`qemu:${lab.pid}`);
    const walked = startWalker(folder, walker, lab, guest);
    const { plain, columns, objects, answers } = sideBySide(
      {
        plain: () => walked.median(TURN),
        ...listings(guest),
      },
      runs,
    );
    const lookUp = lookUpMedian(guest, runs);
    const { count } = guest.taskColumns();
    walked.close();
    await guest.close();
    return [
      [`Linux ${lab.release}, processes`, `${walked.count}`],
      ['listed by the package', `${count}`],
      ['attach without a profile, cold', ms(cold)],
      ['attach without a profile, from the cache', ms(cached)],
      ['plain C walker', us(plain.milliseconds)],
      ['columns', us(columns.milliseconds)],
      ['columns to the walker', times(columns.ratio)],
      ['Task objects', us(objects.milliseconds)],
      ['Task objects to the walker', times(objects.ratio)],
      ['Task objects and every CR3', us(answers.milliseconds)],
      ['Task objects and every CR3 to the walker', times(answers.ratio)],
      ['pidToCr3(pid)', us(lookUp)],
    ];
  } finally {
    await lab.close();
  }
}

try {
  const walker = buildWalker(folder);
  const guests = [];
  for (const tasks of values.tasks.split(',')) guests.push(await measure(walker, Number(tasks)));
  console.log(`\n${conditions()}`);
  console.log(
    `${values.memory} MiB of mapped RAM; medians of ${runs} runs; of ${TURN} times as many, in turns, where lists are compared\n`,
  );
  for (const [at, [figure]] of (guests[0] ?? []).entries()) {
    const cells = guests.map((figures) => (figures[at]?.[1] ?? '').padStart(14));
    console.log(`  ${figure.padEnd(46)} ${cells.join('')}`);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
