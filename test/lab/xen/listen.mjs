// Runs in dom0: listens to one domain's writes to CR3 and ends as it is told. Prints one JSON
// object a line: `listening` with its processes when the first write has come, `heard` when it was
// told to end, and `ended` with what was seen.
//
//   node listen.mjs NAME END [SECONDS] [QUEUE]
//
// END: break, throw, return, abort, exit, close end by themselves after SECONDS; hold never ends;
// spin blocks the event loop for SECONDS, then goes on for SECONDS and breaks.
import { readdirSync, readFileSync } from 'node:fs';
import { attach } from '/project/dist/index.js';

const [name, end, seconds = '2', queue = '4096'] = process.argv.slice(2);
const say = (what) => console.log(JSON.stringify(what));
const now = () => performance.now() / 1000;

const guest = await attach({ kind: 'libvmi', driver: 'xen', name });
const controller = new AbortController();
const stream = guest.cr3Writes({ signal: controller.signal, queue: Number(queue) });
const seen = { writes: 0, breaks: 0, same: 0, nameless: 0 };
const values = new Map();
const last = new Map();
let error;
let until;
let spun = false;

/** Processes of this project that this process has started, by name. */
function children(parent, into = {}) {
  for (const pid of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      const status = readFileSync(`/proc/${pid}/status`, 'latin1');
      if (Number(/^PPid:\t(\d+)$/m.exec(status)?.[1]) !== Number(parent)) continue;
      into[/^Name:\t(.*)$/m.exec(status)?.[1]] = Number(pid);
      children(pid, into);
    } catch {
      // It ended meanwhile.
    }
  }
  return into;
}

function count(write) {
  seen.writes++;
  if (write.value === write.previous) seen.same++;
  const before = last.get(write.vcpu);
  if (before !== undefined && before !== write.previous) seen.breaks++;
  last.set(write.vcpu, write.value);
  const task = write.kernel ? 'kernel' : write.task?.pid;
  if (task === undefined) seen.nameless++;
  const key = `0x${write.value.toString(16)}`;
  const known = values.get(key) ?? { count: 0, tasks: new Set() };
  known.count++;
  known.tasks.add(task);
  values.set(key, known);
}

/** Ends as told; true: leaves the loop. */
async function act() {
  say({ event: 'heard', writes: seen.writes });
  if (end === 'throw') throw new Error('thrown by the loop');
  if (end === 'return') await stream.return();
  if (end === 'abort') controller.abort(new Error('aborted'));
  if (end === 'exit') process.exit(7);
  if (end === 'close') await guest.close();
  return end === 'break';
}

function spin() {
  spun = true;
  const wake = now() + Number(seconds);
  while (now() < wake);
  say({ event: 'spun', dropped: stream.dropped });
  until = now() + Number(seconds);
}

try {
  for await (const write of stream) {
    if (until === undefined) {
      until = now() + Number(seconds);
      say({ event: 'listening', pid: process.pid, ...children(process.pid) });
    }
    count(write);
    if (end === 'hold' || now() < until) continue;
    if (end === 'spin' && !spun) spin();
    else if (end === 'spin' || (await act())) break;
    else if (end === 'abort') until = Number.POSITIVE_INFINITY;
  }
} catch (caught) {
  error = { code: caught.code, message: caught.message };
}
const { dropped } = stream;
await guest.close();
say({
  event: 'ended',
  ...seen,
  dropped,
  error,
  values: [...values].map(([value, { count, tasks }]) => ({ value, count, tasks: [...tasks] })),
});
