// @ts-check
/**
 * Compares two moments of a guest: `node compare-moments.mjs TARGET MILLISECONDS`. Who came, who
 * went, and who ran how often in between.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { attach } from 'node-libvmi';

const [target = '', milliseconds = '1000'] = process.argv.slice(2);
const guest = await attach(target);

/** A PID may be another task's by the second look: its start time tells. */
const look = () =>
  new Map(
    guest.tasks({ threads: true }).map((task) => {
      const { nvcsw, nivcsw } = task.object;
      return [`${task.pid} ${task.startTime}`, { task, switches: nvcsw + nivcsw }];
    }),
  );

const before = look();
await sleep(Number(milliseconds));
const after = look();
for (const [key, { task }] of after) {
  if (!before.has(key)) console.log(`+ ${task.pid} ${task.comm}`);
}
for (const [key, { task }] of before) {
  if (!after.has(key)) console.log(`- ${task.pid} ${task.comm}`);
}
for (const [key, { task, switches }] of after) {
  const ran = switches - (before.get(key)?.switches ?? switches);
  if (ran > 0n) console.log(`  ${task.pid} ${task.comm} was switched to ${ran} times`);
}
await guest.close();
