// Stops a guest each time a process gets a CPU, shows what that CPU holds then, and lets it go on.
// The guest stands still only while something is read; it runs on however this ends, by Ctrl-C or
// SIGKILL too.
//
//   node examples/stop-when.mjs qemu:4242 PID [TIMES]
import { attach, VmiError } from 'node-libvmi';

const [target, pid, times = '3'] = process.argv.slice(2);
if (pid === undefined) {
  console.error('usage: node examples/stop-when.mjs TARGET PID [TIMES]');
  process.exit(2);
}

const stop = new AbortController();
process.once('SIGINT', () => stop.abort());
const hex = (value) => `0x${value.toString(16)}`;

const guest = await attach(target);
try {
  for (let time = 1; time <= Number(times); time++) {
    const { pause, cpu, task, registers } = await guest.pauseWhen({
      pid: Number(pid),
      signal: stop.signal,
    });
    try {
      // Nothing in the guest moves now: what is read here belongs together.
      const { cr3, rip } = registers;
      const same = guest.cr3Base(cr3) === guest.pidToCr3(task.pid);
      const [before] = guest.cr3ToTasks(cr3);
      console.log(`${time}: ${task.pid} ${task.comm} on CPU ${cpu}`);
      console.log(
        `   cr3 ${hex(cr3)}, ${same ? 'as' : 'not what'} pidToCr3 says; of ${before?.comm}`,
      );
      console.log(`   rip ${hex(rip)}, ${guest.symbolAt(rip)?.name ?? 'in user mode'}`);
    } finally {
      await pause.resume();
    }
  }
} catch (error) {
  if (!(error instanceof VmiError) || error.code !== 'VMI_ABORTED') throw error;
  console.log('stopped waiting');
} finally {
  await guest.close();
}
