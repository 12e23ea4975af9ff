// The value CR3 holds while each of some processes runs.
//
//   node examples/pid-to-cr3.mjs qemu:4242 1 2 871
import { attach } from 'node-libvmi';

const [target, ...pids] = process.argv.slice(2);
if (target === undefined || pids.length === 0) {
  console.error('usage: node examples/pid-to-cr3.mjs TARGET PID…');
  process.exit(2);
}

const guest = await attach(target);
try {
  for (const pid of pids.map(Number)) {
    const task = guest.findTask(pid);
    if (task === undefined) {
      console.log(`${pid}: no such task`);
      continue;
    }
    // null for a kernel thread that is off the CPU: it runs on whatever is loaded when it wakes.
    const cr3 = task.cr3 === null ? 'none' : `0x${task.cr3.toString(16)}`;
    console.log(`${pid} (${task.comm}): ${cr3}, source ${task.cr3Source}`);
  }
} finally {
  await guest.close();
}
