// Makes a log of the CR3 values that the CPUs of a guest have loaded, and names each by who had it
// at that time.
//
//   node examples/name-cr3-log.mjs qemu:4242 [SECONDS]
import { setTimeout } from 'node:timers/promises';
import { attach, hex } from 'node-libvmi';

const [target, seconds = '2'] = process.argv.slice(2);
if (target === undefined) {
  console.error('usage: node examples/name-cr3-log.mjs TARGET [SECONDS]');
  process.exit(2);
}

const guest = await attach(target);
try {
  // It looks on while the log is made: a task that has exited leaves nothing to be asked
  // afterwards.
  const index = guest.cr3Index({ interval: 10 });
  const log = [];
  const end = Date.now() + Number(seconds) * 1000;
  while (Date.now() < end) {
    // In place of this, read what a hypervisor logged.
    for (const { cpu, cr3 } of guest.cpus())
      if (cr3 !== null) log.push({ time: Date.now(), cpu, cr3 });
    await setTimeout(20);
  }
  index.look();
  for (const { time, cpu, cr3 } of log) {
    const { kernel, owners, certain } = index.name(cr3, time);
    const who = kernel
      ? 'the kernel itself'
      : owners.map(({ pid, comm, gone }) => `${pid} ${comm}${gone ? ' (gone)' : ''}`).join(', ');
    console.log(
      `${time} cpu ${cpu} ${hex(cr3)} ${who || 'nobody who was seen'}${certain ? '' : ' ?'}`,
    );
  }
  console.error(`${log.length} values; ${index.lost ?? 'unknown how many'} tasks were born unseen`);
  index.close();
} finally {
  await guest.close();
}
