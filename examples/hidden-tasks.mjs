// @ts-check
/**
 * Finds tasks that something hides: `node hidden-tasks.mjs TARGET`. Every view of the kernel's
 * tasks is compared with every other: its list, the threads of each process, the PID tree, the
 * CPUs.
 */
import { attach } from 'node-libvmi';

const guest = await attach(process.argv[2] ?? '');
const hidden = guest.crossView().filter(({ missing }) => missing.length > 0);
for (const { task, missing } of hidden) {
  console.log(`${task.pid} ${task.comm} is not in ${missing.join(', ')}`);
}
if (hidden.length === 0) console.log('nothing is hidden');
await guest.close();
