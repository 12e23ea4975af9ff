// @ts-check
/**
 * Writes a log of CR3 values of a guest that forks, executes and exits all the time, and names it
 * afterwards: `node test/soak/cr3-log.mjs [--seconds 30] [--backend file] [--suite bookworm]`. What
 * the CPUs run says whose each value was; no name that the index is certain of may be another's.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { attach } from 'node-libvmi';
import { bootGuest } from '../lab/guest.mjs';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '30' },
    backend: { type: 'string', default: 'file' },
    suite: { type: 'string', default: 'bookworm' },
    interval: { type: 'string', default: '10' },
  },
});

const lab = await bootGuest({
  suite: values.suite,
  flavour: 'cloud',
  backend: /** @type {'file' | 'anonymous'} */ (values.backend),
  memory: 256,
  cpus: 2,
  tasks: 20,
});
try {
  await lab.command('churn on');
  const guest = await attach(`qemu:${lab.pid}`);
  /** @type {{ time: number, cr3: bigint, pid: number, startTime: bigint }[]} */
  const log = [];
  const index = guest.cr3Index({ interval: Number(values.interval) });
  const end = performance.now() + 1000 * Number(values.seconds);
  while (performance.now() < end) {
    const before = performance.timeOrigin + performance.now();
    const cpus = guest.cpus();
    const after = performance.timeOrigin + performance.now();
    for (const { task, cr3, switching } of cpus) {
      if (switching || cr3 === null || task.mm === null || task.cr3Source !== 'mm') continue;
      const { pid, startTime } = task;
      log.push({ time: (before + after) / 2, cr3, pid, startTime });
    }
    await sleep(3);
  }
  index.look();
  const result = { entries: log.length, certain: 0, likely: 0, unknown: 0, owners: index.size };
  /** @type {string[]} */ const wrong = [];
  for (const { time, cr3, pid, startTime } of log) {
    const { owners, certain } = index.name(cr3, time);
    const right = owners.some((owner) => owner.pid === pid && owner.startTime === startTime);
    if (certain && !right)
      wrong.push(
        `0x${cr3.toString(16)} of PID ${pid} is called ${owners.map((owner) => `${owner.pid} ${owner.comm}`)}`,
      );
    if (certain && right) result.certain++;
    else if (right) result.likely++;
    else result.unknown++;
  }
  const many = guest.cr3ToTasks([...new Set(log.map(({ cr3 }) => cr3))]);
  const now = many.filter((tasks) => tasks.length > 0).length;
  const { lost } = index;
  console.log(
    JSON.stringify({
      ...values,
      ...result,
      lost,
      values: many.length,
      now,
      wrong: wrong.slice(0, 5),
    }),
  );
  if (wrong.length > 0) process.exitCode = 1;
  await guest.close();
} finally {
  await lab.close();
}
