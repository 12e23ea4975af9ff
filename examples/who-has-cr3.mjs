// From a CR3 value that a hypervisor saw to the tasks it belongs to. Without a value: what every
// vCPU holds right now.
//
//   node examples/who-has-cr3.mjs qemu:4242 0x800000003acec005
import { attach } from 'node-libvmi';

const [target, ...values] = process.argv.slice(2);
if (target === undefined) {
  console.error('usage: node examples/who-has-cr3.mjs TARGET [CR3…]');
  process.exit(2);
}

const guest = await attach(target);
try {
  const seen =
    values.length > 0 ? values.map(BigInt) : (await guest.registers()).map((vcpu) => vcpu.cr3);
  for (const cr3 of seen) {
    const tasks = guest.cr3ToTasks(cr3);
    console.log(`0x${cr3.toString(16)} → page table at 0x${guest.cr3Base(cr3).toString(16)}`);
    if (tasks.length === 0) console.log('  no task: the CPU is idle, or the process is gone');
    for (const task of tasks)
      console.log(`  ${task.pid} ${task.comm} (process ${task.tgid}, ${task.cr3Source})`);
  }
} finally {
  await guest.close();
}
