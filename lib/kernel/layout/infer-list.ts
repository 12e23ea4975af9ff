import { wrap } from '../../address.js';
import { COMM_LENGTH } from '../x86-64.js';
import { mostly } from './case.js';
import { isPointer } from './guest-words.js';
import { type Inference, TASK_LENGTH, TASKS } from './inference.js';
import { type SampledTask, sampleTasks } from './task-sample.js';

const IDLE = Buffer.from('swapper', 'latin1');
const KTHREADD = 'kthreadd';
/** Fewest tasks of a kernel that has booted: PID 1, kthreadd and its first children. */
const FEWEST = 5;

/**
 * The name of a task, by that of init_task, and the list of processes: the only list through
 * init_task of which every element has such a name, one of them kthreadd's.
 */
export function inferList(of: Inference): void {
  const bytes = of.words.atMost(of.initTask, TASK_LENGTH);
  const comms: number[] = [];
  for (let at = bytes.indexOf(IDLE); at >= 0; at = bytes.indexOf(IDLE, at + 1)) comms.push(at);
  const found: { comm: number; link: number; tasks: SampledTask[] }[] = [];
  for (let link = 0; link + 16 <= TASK_LENGTH; link += 8) {
    const head = of.initTask + BigInt(link);
    const next = bytes.readBigUInt64LE(link);
    const prev = bytes.readBigUInt64LE(link + 8);
    if (!isPointer(next) || !isPointer(prev) || next === head) continue;
    if (of.words.u64(next + 8n) !== head || of.words.u64(prev) !== head) continue;
    const tasks = sampleTasks(of.words, of.initTask, link, {
      length: TASK_LENGTH,
      max: TASKS,
      partly: true,
    });
    if (tasks.length < FEWEST) continue;
    for (const comm of comms) {
      const names = tasks.map((task) => nameOf(task, comm));
      // Users call their tasks what they like, but PID 1 and kthreadd come first.
      const named = mostly(names, (name) => name !== undefined);
      if (named && names.slice(1, 4).includes(KTHREADD)) {
        found.push({ comm, link, tasks });
      }
    }
  }
  const [one, another] = found;
  if (one === undefined || another !== undefined) {
    of.undecided.set(
      'task_struct.tasks',
      found.map(({ link }) => link),
    );
    of.undecided.set('task_struct.comm', comms);
    return;
  }
  of.place('task_struct.comm', one.comm);
  of.place('task_struct.tasks', one.link);
  of.tasks = one.tasks;
}

/** The kernel thread that is the parent of the others. */
export function kthreadd(of: Inference): SampledTask | undefined {
  const comm = of.offset('task_struct.comm');
  return comm === undefined ? undefined : of.tasks.find((task) => nameOf(task, comm) === KTHREADD);
}

/** Text up to a NUL, of any bytes but control characters; `undefined` when it is none. */
function nameOf(task: SampledTask, comm: number): string | undefined {
  const bytes = task.bytes(comm, COMM_LENGTH);
  const end = bytes.indexOf(0);
  if (end < 1) return undefined;
  const text = bytes.toString('latin1', 0, end);
  return [...text].every((char) => char >= ' ' && char !== '\x7f') ? text : undefined;
}

/** The element of a list behind a link, as an address. */
export function elementOf(link: bigint, offset: number): bigint {
  return wrap(link - BigInt(offset));
}
