// @ts-check
/**
 * The whole job on a real guest: boots a stock Debian kernel in an unmodified QEMU, attaches to it
 * while it runs, with no profile, and prints the process table with CR3s, each held against a
 * kernel module that computes it inside the guest.
 */
import { setUpProject } from '../test/setup.mjs';

const started = performance.now();
/** @param {string} message */
const log = (message) =>
  console.error(`• ${message}  (${((performance.now() - started) / 1000).toFixed(1)} s)`);

try {
  await demo();
} catch (error) {
  console.error(`demo: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}

async function demo() {
  setUpProject(log);
  const { bootGuest } = await import('../test/lab/guest.mjs');
  const { compareTasks } = await import('../test/lab/compare.mjs');
  const { attach } = await import('node-libvmi');

  log('booting a stock Debian kernel in QEMU, 512 MiB of anonymous RAM');
  const lab = await bootGuest({ suite: 'bookworm', flavour: 'cloud', memory: 512, cpus: 2, log });
  try {
    log(`Linux ${lab.release} is up in QEMU ${lab.pid}`);
    const before = performance.now();
    const guest = await attach(`qemu:${lab.pid}`);
    try {
      const milliseconds = (performance.now() - before).toFixed(0);
      log(
        `attached to the running guest in ${milliseconds} ms: Linux ${guest.kernel.release}, no profile`,
      );
      // The oracle holds every CPU of the guest where it is, so that both see the same moment.
      const truth = await lab.truth({ freeze: 'halt' });
      const tasks = guest.tasks({ threads: true }).map((task) => task.toJSON());
      await lab.thaw();
      report(tasks, compareTasks(truth, tasks));
    } finally {
      await guest.close();
    }
  } finally {
    await lab.close();
  }
}

/**
 * @param {import('node-libvmi').TaskJson[]} tasks
 * @param {import('../test/lab/compare.mjs').Difference[]} differences
 */
function report(tasks, differences) {
  const wrong = new Set(differences.map(({ pid }) => pid));
  console.log(
    `${'PID'.padStart(6)} ${'TID'.padStart(6)} S ${'CR3'.padStart(12)} ${'FROM'.padEnd(9)} ORACLE  COMM`,
  );
  for (const { tgid, pid, state, cr3, cr3Source, comm } of tasks) {
    const verdict = wrong.has(pid) ? 'DIFFERS' : 'agrees ';
    console.log(
      `${String(tgid).padStart(6)} ${String(pid).padStart(6)} ${state} ${(cr3 ?? '–').padStart(12)} ${cr3Source.padEnd(9)} ${verdict} ${comm}`,
    );
  }
  for (const { pid, comm, fact, expected, actual } of differences) {
    console.log(`  ${pid} ${comm}: ${fact} is ${expected} in the guest, ${actual} here`);
  }
  console.log(
    `${tasks.length - wrong.size} of ${tasks.length} tasks and threads agree with the oracle inside the guest`,
  );
  if (wrong.size > 0) process.exitCode = 1;
}
