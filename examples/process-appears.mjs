// Waits until a process with some name appears in a guest, and prints what it is.
//
//   node examples/process-appears.mjs qemu:4242 NAME
import { attach, hex, VmiError } from 'node-libvmi';
import { cmdline, exe } from 'node-libvmi/helpers';

const [target, name] = process.argv.slice(2);
if (target === undefined || name === undefined) {
  console.error('usage: node examples/process-appears.mjs TARGET NAME');
  process.exit(2);
}

/** Its arguments, or why they cannot be read: they lie in its own memory, and it may be gone. */
function argumentsOf(guest, task) {
  try {
    return cmdline(guest.objects, task.object)?.join(' ') ?? '(it has ended)';
  } catch (error) {
    if (!(error instanceof VmiError)) throw error;
    return `(${error.message})`;
  }
}

const stop = new AbortController();
process.once('SIGINT', () => stop.abort());
const guest = await attach(target);
try {
  console.log(`waiting for ${name} in ${guest.target}`);
  for await (const { kind, task } of guest.watchTasks({ interval: 20, signal: stop.signal })) {
    if (kind === 'exit' || task.comm !== name) continue;
    const found = guest.findTask(task.pid);
    // A PID can be used again; with its start time it names one task for good.
    if (found === undefined || found.startTime !== task.startTime) {
      console.log(`${kind}: PID ${task.pid}, gone again`);
      continue;
    }
    const cr3 = found.cr3 === null ? 'no CR3' : hex(found.cr3);
    console.log(
      `${kind}: PID ${found.pid}, ${cr3}, ${exe(found.object) ?? 'no program any more'}: ${argumentsOf(guest, found)}`,
    );
    break;
  }
} catch (error) {
  if (error.code !== 'VMI_ABORTED') throw error;
} finally {
  await guest.close();
}
