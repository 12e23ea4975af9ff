// @ts-check
/**
 * What watching costs a guest: `node test/soak/slowdown.mjs [--suite bookworm] [--pairs 10] [--rate
 * HZ|full] [--backend memfd]`. The guest does the same work again and again, by turns watched and
 * not; what is compared is the processor time that QEMU took for it, which a busy host changes less
 * than the time it lasted. Prints one JSON line; nothing here asserts. With `--rate none` it is
 * never watched: so much do the figures say nothing.
 *
 * This program and its threads have the host's last core, QEMU has the others.
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
    pairs: { type: 'string', default: '10' },
    rate: { type: 'string' },
    backend: { type: 'string', default: 'memfd' },
  },
});
const rate =
  values.rate === undefined || values.rate === 'full' ? values.rate : Number(values.rate);
/** Forks, executes, exits, and counts: some seconds under emulation. */
const WORK =
  'i=0; while [ $i -lt 60 ]; do /bin/true; i=$((i+1)); done; while [ $i -lt 60000 ]; do i=$((i+1)); done; echo done';
const last = cpus().length - 1;

const lab = await bootGuest({
  suite: values.suite,
  backend: /** @type {'memfd'} */ (values.backend),
  memory: 512,
  cpus: 1,
  tasks: 20,
});
try {
  pin(lab.pid, `0-${last - 1}`);
  pin(process.pid, `${last}`);
  const guest = await attach(`qemu:${lab.pid}`);
  /** @type {number[]} */ const ratios = [];
  let share = 0;
  for (let pair = 0; pair <= Number(values.pairs); pair++) {
    const watched = async () => {
      if (values.rate === 'none') return work();
      const stream = guest.watchSwitches(rate === undefined ? {} : { rate });
      const reading = (async () => {
        for await (const event of stream) void event;
      })();
      const began = process.hrtime.bigint();
      const time = await work();
      share = (stream.statistics.cpuSeconds * 1e9) / Number(process.hrtime.bigint() - began);
      await stream.return();
      await reading;
      return time;
    };
    const isFirst = pair % 2 === 0;
    const first = isFirst ? await watched() : await work();
    const second = isFirst ? await work() : await watched();
    // The first pair warms QEMU's translations up.
    if (pair > 0) ratios.push(isFirst ? first / second : second / first);
  }
  await guest.close();
  ratios.sort((a, b) => a - b);
  const quantile = (/** @type {number} */ part) => ratios[Math.floor((ratios.length - 1) * part)];
  console.log(
    JSON.stringify({
      release: lab.release,
      backend: values.backend,
      rate: values.rate ?? 'default',
      pairs: ratios.length,
      ratio: { p25: quantile(0.25), median: quantile(0.5), p75: quantile(0.75) },
      samplerShare: share,
    }),
  );
} finally {
  await lab.close();
}

/** Nanoseconds of processor time that QEMU took for the guest's work. */
async function work() {
  const before = processorTime();
  const said = await lab.shell(WORK);
  if (!said.includes('done')) throw new Error(`the guest did not do its work: ${said}`);
  return processorTime() - before;
}

function processorTime() {
  const threads = `/proc/${lab.pid}/task`;
  return readdirSync(threads).reduce(
    (sum, thread) =>
      sum + Number(readFileSync(`${threads}/${thread}/schedstat`, 'latin1').split(' ')[0]),
    0,
  );
}

/** All threads of a process. @param {number} pid @param {string} cores */
function pin(pid, cores) {
  execFileSync('taskset', ['-acp', cores, `${pid}`], { stdio: 'ignore' });
}
