import { wrap } from '../../address.js';
import { VmiError } from '../../errors.js';
import { XA_NODE } from '../types/xarray.js';
import { isPointer } from './guest-words.js';
import { elementOf, kthreadd } from './infer-list.js';
import { common, type Inference, nearly, TASK_LENGTH } from './inference.js';
import { SampledTask } from './task-sample.js';
import type { SampledThread } from './thread-sample.js';

/** Most PIDs a kernel gives. include/linux/threads.h, PID_MAX_LIMIT. */
const PID_MAX = 4_194_304;
/** Bytes of `signal_struct`, `struct pid` and `pid_namespace` that are searched. */
const SEARCHED = 512;
/** Threads that are taken. */
const THREADS = 16;
/** Tasks by which a structure that tasks lead to is searched, before all are held against it. */
const FIRST = 6;
/** `struct pid` starts with its count of references and the level; it is never shuffled. */
const PID_LEVEL = 4;
/** Where slots of an `xa_node` may begin, and how many bits of an index they take. */
const SLOTS = [16, 24, 32, 40, 48, 56, 64];
const CHUNKS = [6, 4];

/** `signal`, and the list of threads in it: it starts with the leader, which points back. */
export function inferThreads(of: Inference): void {
  const found: { signal: number; head: number; node: number }[] = [];
  const few = of.others.slice(0, FIRST);
  for (const signal of of.ownPointers()) {
    // What lies in a task is a link of a list, in another task or its own.
    if (few.filter((task) => of.isInTask(task.u64(signal))).length > 1) continue;
    if (common(few, (task) => of.distance(task, task.u64(signal))) !== undefined) continue;
    const structs = few.map((task) => of.words.atMost(task.u64(signal), SEARCHED));
    for (let head = 0; head + 16 <= SEARCHED; head += 8) {
      const nodeOf = (task: SampledTask, i: number) =>
        of.distance(task, structs[i]!.readBigUInt64LE(head));
      const node = nodeOf(few[0]!, 0);
      if (node === undefined || !few.every((task, i) => nodeOf(task, i) === node)) continue;
      const back = (task: SampledTask) => {
        const list = wrap(task.u64(signal) + BigInt(head));
        // The last of a list leads back to its head; that of the kinds of PID ends with NULL.
        const isRing = isPointer(task.u64(node)) && task.u64(node + 8) === list;
        return isRing && of.distance(task, of.words.u64(list)) === node;
      };
      // The links themselves lead to the head, too.
      if (signal === node || signal === node + 8) continue;
      if (node + 16 <= TASK_LENGTH && nearly(of.others, back)) found.push({ signal, head, node });
    }
  }
  of.settle(
    'task_struct.signal',
    found.map(({ signal }) => signal),
  );
  of.settle(
    'task_struct.thread_node',
    found.map(({ node }) => node),
  );
  of.settle(
    'signal_struct.thread_head',
    found.map(({ head }) => head),
  );
  if (found.length === 1) of.threads = takeThreads(of, found[0]!);
}

/** Threads of processes that have more than one. */
function takeThreads(
  of: Inference,
  { signal, head, node }: { signal: number; head: number; node: number },
): SampledThread[] {
  const threads: SampledThread[] = [];
  for (const leader of of.others) {
    const end = wrap(leader.u64(signal) + BigInt(head));
    let link = wrap(leader.address + BigInt(node));
    while (threads.length < THREADS) {
      const next = of.words.u64(link);
      if (!isPointer(next) || next === end || of.words.u64(next + 8n) !== link) break;
      const address = elementOf(next, node);
      const thread = new SampledTask(address, of.words.atMost(address, TASK_LENGTH));
      threads.push({ thread, leader });
      link = next;
    }
  }
  return threads;
}

/** PID and TGID: a number of each leader's own; of a thread the one differs, the other does not. */
export function inferPids(of: Inference): void {
  const first = of.others[0];
  const second = kthreadd(of);
  const places = of
    .search([of.tasks[0]!], 4, (task, at) => task.u32(at) === 0)
    .filter((at) => first?.u32(at) === 1 && second?.u32(at) === 2)
    .filter((at) => {
      const pids = of.others.map((task) => task.u32(at));
      return new Set(pids).size >= pids.length * 0.95 && nearly(pids, (pid) => pid < PID_MAX);
    });
  if (of.threads.length === 0) {
    const pairs = places.filter((at) => places.includes(at + 4) || places.includes(at - 4));
    of.settleFirst('task_struct.pid', pairs, 4);
    const pid = of.offset('task_struct.pid');
    if (pid === undefined) of.undecided.set('task_struct.tgid', places);
    else of.place('task_struct.tgid', pid + 4, 'by order');
    return;
  }
  const shared = (at: number) =>
    nearly(of.threads, ({ thread, leader }) => thread.u32(at) === leader.u32(at));
  const differs = (at: number) =>
    nearly(of.threads, ({ thread, leader }) => thread.u32(at) !== leader.u32(at));
  const own = places.filter(differs);
  of.settle('task_struct.tgid', places.filter(shared));
  const tgid = of.offset('task_struct.tgid');
  // A scheduler may number tasks as well, and its numbers be the same for a while.
  if (own.length > 1 && tgid !== undefined && own.includes(tgid - 4)) {
    of.place('task_struct.pid', tgid - 4, 'by order');
  } else of.settle('task_struct.pid', own);
}

/** Where a task's `struct pid` and its members come into question. */
interface StructPidPlace {
  readonly at: number;
  readonly numbers: number;
  readonly tasks: number;
  readonly links: number;
  /** What it names as the namespace of the PID. */
  readonly space: bigint;
}

/** `struct pid`: it names the PID, the namespace, and the first task that has it. */
export function inferStructPid(of: Inference): void {
  const pid = of.offset('task_struct.pid');
  if (pid === undefined) return;
  const few = of.others.slice(0, FIRST);
  let found: StructPidPlace[] = [];
  for (const at of of.ownPointers()) {
    const structs = few.map((task) => of.words.atMost(task.u64(at), SEARCHED));
    const pairs = few.map((task, i) => ({ task, struct: structs[i]! }));
    for (let numbers = 8; numbers + 16 <= SEARCHED; numbers += 8) {
      if (!pairs.every(({ task, struct }) => struct.readUInt32LE(numbers) === task.u32(pid)))
        continue;
      const space = common(pairs, ({ struct }) => struct.readBigUInt64LE(numbers + 8));
      if (!isPointer(space)) continue;
      const named = (task: SampledTask) =>
        of.words.u32(task.u64(at) + BigInt(numbers)) === task.u32(pid);
      if (!nearly(of.others, named)) continue;
      // An array over the kinds of PID, and so are the links in the task: the first is PIDTYPE_PID.
      for (let tasks = 0; tasks < numbers; tasks += 8) {
        const links = common(pairs, ({ task, struct }) =>
          of.distance(task, struct.readBigUInt64LE(tasks)),
        );
        if (links === undefined) continue;
        found.push({ at, numbers, tasks, links, space });
        break;
      }
    }
  }
  // The links point into the struct pid, too: what points to its start leaves the most before it.
  const most = Math.max(...found.map(({ numbers }) => numbers));
  found = found.filter(({ numbers }) => numbers === most);
  of.settle(
    'task_struct.thread_pid',
    found.map(({ at }) => at),
  );
  of.settle(
    'task_struct.pid_links',
    found.map(({ links }) => links),
  );
  of.settle(
    'pid.tasks',
    found.map(({ tasks }) => tasks),
  );
  of.settle(
    'pid.numbers',
    found.map(({ numbers }) => numbers),
  );
  if (found.length !== 1) return;
  of.place('upid.nr', 0);
  const { at, space } = found[0]!;
  const word = (task: SampledTask, offset: number) => of.words.u32(task.u64(at) + BigInt(offset));
  // kthreadd's children are in no namespace but the first.
  const isLevel = few.every(
    (task) => word(task, PID_LEVEL) === 0 && (word(task, PID_LEVEL - 4) ?? 0) > 0,
  );
  if (isLevel) of.place('pid.level', PID_LEVEL, 'by order');
  else of.undecided.set('pid.level', []);
  of.pidNamespace = space;
}

/** The tree of PIDs: the way through it that leads from every PID to the task that has it. */
export function inferPidTree(of: Inference): void {
  const [pid, threadPid] = [of.offset('task_struct.pid'), of.offset('task_struct.thread_pid')];
  if (pid === undefined || threadPid === undefined || of.pidNamespace === 0n) return;
  const namespace = of.words.atMost(of.pidNamespace, SEARCHED);
  const { tag, tagMask, maxInternal, maxShift } = XA_NODE;
  // The newest have the largest PIDs: with small ones every number of slots would do.
  const wanted = of.others.filter((task, i) => i % 8 === 0 || task.u32(pid) >= 64).slice(-32);
  const found: { head: number; slots: number; chunk: number }[] = [];
  for (let head = 0; head + 8 <= SEARCHED; head += 8) {
    const entry = namespace.readBigUInt64LE(head);
    if ((entry & 3n) !== 2n || !isPointer(entry & ~3n)) continue;
    for (const chunk of CHUNKS) {
      for (const slots of SLOTS) {
        const tree = Int32Array.of(tag, tagMask, maxInternal, 0, slots, chunk, maxShift);
        const at = of.pidNamespace + BigInt(head);
        const leads = (task: SampledTask) =>
          lookUp(of, tree, at, task.u32(pid)) === task.u64(threadPid);
        if (nearly(wanted, leads)) found.push({ head, slots, chunk });
      }
    }
  }
  of.settle(
    'pid_namespace.idr',
    found.map(({ head }) => head),
  );
  of.settle(
    'xa_node.slots',
    found.map(({ slots }) => slots),
  );
  if (found.length !== 1) return;
  // What is known is how far the head is from the namespace's start, not what lies between.
  of.place('idr.idr_rt', 0);
  of.place('xarray.xa_head', 0);
  of.place('xa_node.shift', 0);
  of.chunkShift = found[0]!.chunk;
}

function lookUp(of: Inference, tree: Int32Array, head: bigint, pid: number): bigint | undefined {
  if (pid > PID_MAX) return undefined;
  try {
    return of.from.memory.lookUp(tree, head, pid);
  } catch (error) {
    if (error instanceof VmiError && error.code !== 'VMI_CLOSED') return undefined;
    throw error;
  }
}
