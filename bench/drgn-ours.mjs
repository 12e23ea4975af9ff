// @ts-check
/** The same questions as drgn.py asks, by this package: prints one JSON object. See drgn.mjs. */
import { readFileSync } from 'node:fs';
import { attach } from 'node-libvmi';
import { list, vmas } from 'node-libvmi/helpers';
import { median } from './measure.mjs';

const turns = Number(process.env.TURNS ?? 11);
const guest = await attach(`image:${process.argv[2]}`);
const init = guest.variable('init_task');
const MEMBERS = 2000;

/** @param {() => unknown} work @param {number} per */
function microseconds(work, per) {
  for (let i = 0; i < 3; i++) work();
  const samples = [];
  for (let i = 0; i < turns; i++) {
    const start = performance.now();
    work();
    samples.push(((performance.now() - start) * 1e3) / per);
  }
  return median(samples);
}

function members() {
  for (let i = 0; i < MEMBERS; i++) init.pid;
}

const tasks = () =>
  Array.from(list(init.tasks, 'struct task_struct', 'tasks'), (task) => [task.pid, task.comm]);

function areas() {
  let number = 0;
  for (const task of list(init.tasks, 'struct task_struct', 'tasks')) {
    if (task.mm !== null) for (const { start, end } of vmas(task.mm)) if (end > start) number++;
  }
  return number;
}

const count = tasks().length;
const all = areas();
const result = {
  tasks: count,
  areas: all,
  member: microseconds(members, MEMBERS),
  walk: microseconds(tasks, count),
  print: microseconds(() => init.$format().join('\n'), 1),
  vma: microseconds(areas, all),
  memory: Number(/^RssAnon:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024,
};
console.log(JSON.stringify(result));
await guest.close();
