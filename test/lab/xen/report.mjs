// Runs in dom0: watches one domain's switches as Xen reports them, and prints one JSON object of
// the form that listen.mjs ends with. `breaks` are events whose `previous` or `missed` is not what
// the events before say.
//
//   node report.mjs NAME SECONDS
import { attach } from '/project/dist/index.js';

const [name, seconds] = process.argv.slice(2);
const guest = await attach({ kind: 'libvmi', driver: 'xen', name });
const stream = guest.watchSwitches({ by: 'reported' });
const seen = { writes: 0, breaks: 0, same: 0, nameless: 0 };
const values = new Map();
const last = new Map();
let until;

for await (const event of stream) {
  until ??= performance.now() + Number(seconds) * 1_000;
  const { cpu, cr3, task, kernel, previous, missed, by } = event;
  const before = last.get(cpu);
  last.set(cpu, event);
  seen.writes++;
  if (before?.cr3 === cr3) seen.same++;
  const isSaid = (before?.task?.pid ?? null) === (previous?.pid ?? null);
  if (!isSaid || missed !== 0 || by !== 'reported') seen.breaks++;
  if (task === null && !kernel) seen.nameless++;
  const key = `0x${cr3.toString(16)}`;
  const known = values.get(key) ?? { count: 0, tasks: new Set() };
  known.count++;
  known.tasks.add(kernel ? 'kernel' : (task?.pid ?? null));
  values.set(key, known);
  if (performance.now() > until) break;
}
const { dropped } = stream;
await guest.close();
console.log(
  JSON.stringify({
    ...seen,
    dropped,
    values: [...values].map(([value, { count, tasks }]) => ({ value, count, tasks: [...tasks] })),
  }),
);
