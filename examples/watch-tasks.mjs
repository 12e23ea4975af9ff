// Prints processes as they come and go, from outside the guest, until interrupted.
//
//   node examples/watch-tasks.mjs qemu:4242 [MILLISECONDS]
import { setTimeout } from 'node:timers/promises';
import { attach, VmiError } from 'node-libvmi';

const [target, interval = '200'] = process.argv.slice(2);
if (target === undefined) {
  console.error('usage: node examples/watch-tasks.mjs TARGET [MILLISECONDS]');
  process.exit(2);
}

const stop = new AbortController();
process.once('SIGINT', () => stop.abort());

const guest = await attach(target);
// A PID can be used again; with its start time it names one task for good.
const identity = (task) => `${task.pid} ${task.startTime}`;
const describe = (task) => {
  const { pid, comm, cr3 } = task.toJSON();
  return `${pid} ${comm} ${cr3 ?? 'no CR3'}`;
};
try {
  let before = new Map(guest.tasks().map((task) => [identity(task), task]));
  console.log(`${before.size} processes; watching`);
  while (true) {
    await setTimeout(Number(interval), undefined, { signal: stop.signal });
    const now = new Map(guest.tasks().map((task) => [identity(task), task]));
    for (const [key, task] of now) if (!before.has(key)) console.log(`+ ${describe(task)}`);
    for (const [key, task] of before) if (!now.has(key)) console.log(`- ${describe(task)}`);
    before = now;
  }
} catch (error) {
  if (error.name === 'AbortError') console.log('stopped');
  else if (error instanceof VmiError && error.code === 'VMI_CLOSED') console.log('the guest ended');
  else throw error;
} finally {
  await guest.close();
}
