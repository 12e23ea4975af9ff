// @ts-check
/**
 * Writes the memory of a process to a file, as far as it is present: `node dump-process.mjs TARGET
 * PID FILE`. A page that is not in memory is a hole of the file.
 */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { attach, VirtualMemory } from 'node-libvmi';
import { vmas } from 'node-libvmi/helpers';

const [target = '', pid = '', file = ''] = process.argv.slice(2);
const guest = await attach(target);
const task = guest.task(Number(pid));
if (task.cr3 === null) throw new Error(`task ${pid} has no memory of its own`);
const memory = new VirtualMemory(guest.memory, task.cr3, guest.kernel.levels);

const fd = openSync(file, 'w', 0o600);
let offset = 0;
for (const { start, end, flags, name } of vmas(task.object.mm)) {
  const length = Number(end - start);
  let present = 0;
  for (const page of memory.mappings(start, end)) {
    const from = page.virtual < start ? start : page.virtual;
    const to = page.virtual + page.length > end ? end : page.virtual + page.length;
    const bytes = memory.read(from, Number(to - from));
    writeSync(fd, bytes, 0, bytes.length, offset + Number(from - start));
    present += bytes.length;
  }
  console.log(
    `0x${start.toString(16)} ${flags} at ${offset}: ${present} of ${length} bytes ${name}`,
  );
  offset += length;
}
ftruncateSync(fd, offset);
closeSync(fd);
await guest.close();
