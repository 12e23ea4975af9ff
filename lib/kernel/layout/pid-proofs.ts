import { wrap } from '../../address.js';
import { VmiError } from '../../errors.js';
import { tryAnswer } from '../try-answer.js';
import { XA_NODE, xaChunkShift } from '../types/xarray.js';
import { type Doubt, doubt, type LayoutCase, mostly } from './case.js';
import { isPointer } from './guest-words.js';
import type { SampledTask } from './task-sample.js';

/** Most PIDs a kernel gives. include/linux/threads.h, PID_MAX_LIMIT. */
const PID_MAX = 4_194_304;
/** Deepest PID namespace. include/linux/pid_namespace.h, MAX_PID_NS_LEVEL. */
const MAX_LEVEL = 32;
/** Bytes within which the links of a task lie. */
const MAX_TASK = 1n << 14n;
/** PIDs that are looked up in the tree. */
const LOOK_UPS = 8;

/** `struct pid`: each names its PID, and its first task is the one that led to it. */
export function structPids(of: LayoutCase): Doubt | undefined {
  const known = of.all(
    'task_struct.pid',
    'task_struct.thread_pid',
    'task_struct.pid_links',
    'pid.numbers',
    'pid.tasks',
    'upid.nr',
  );
  if (known === undefined) return undefined;
  const [pid, threadPid, links, numbers, tasks, nr] = known;
  const at = (task: SampledTask, offset: number) => task.u64(threadPid) + BigInt(offset);
  const isNamed = (task: SampledTask) => of.words.u32(at(task, numbers + nr)) === task.u32(pid);
  const first = (task: SampledTask) => of.words.u64(at(task, tasks)) ?? 0n;
  const leadsBack = (task: SampledTask) => first(task) === wrap(task.address + BigInt(links));
  const named = mostly(of.others, isNamed);
  const back = mostly(of.others, leadsBack);
  if (named && back) return undefined;
  if (!named && !back) {
    return doubt(of, 'tasks have no struct pid there that names them', 'task_struct.thread_pid');
  }
  if (!named) return doubt(of, 'it does not hold the PIDs of tasks', 'pid.numbers', 'upid.nr');
  const inTask = mostly(of.others, (task) => {
    const distance = first(task) - task.address;
    return distance > 0n && distance < MAX_TASK;
  });
  const why = 'a struct pid does not lead back to its task by it';
  // Both are arrays over the kinds of PID: it may be the wrong element of either.
  return inTask
    ? doubt(of, why, 'task_struct.pid_links', 'pid.tasks')
    : doubt(of, why, 'pid.tasks');
}

/**
 * The depth of PID namespaces: 0 for kernel threads. `struct pid` starts with its count of
 * references, which is no 0, and then has the level (include/linux/pid.h, never shuffled).
 */
export function levels(of: LayoutCase): Doubt | undefined {
  const known = of.all('task_struct.thread_pid', 'pid.level', 'pid.numbers', 'upid.nr');
  if (known === undefined) return undefined;
  const [threadPid, level, numbers, nr] = known;
  const word = (task: SampledTask, offset: number) =>
    of.words.u32(task.u64(threadPid) + BigInt(offset));
  const depths = of.others.map((task) => word(task, level) ?? -1);
  const shallow = mostly(depths, (depth) => depth >= 0 && depth <= MAX_LEVEL);
  const counted = level < 4 ? false : mostly(of.others, (task) => (word(task, level - 4) ?? 0) > 0);
  if (!shallow || depths[0] !== 0 || !counted) {
    return doubt(of, `tasks would be ${depths.slice(0, 6)} namespaces deep`, 'pid.level');
  }
  const size = tryAnswer(() => of.checked.types.findSize('upid'));
  if (size === undefined) return undefined;
  const nested = of.others.filter((_, i) => depths[i]! > 0);
  const hasAll = mostly(nested, (task) => (word(task, numbers + size + nr) ?? 0) > 0);
  return hasAll ? undefined : doubt(of, 'a task lacks its PID in its namespace', 'pid.numbers');
}

/** The tree of PIDs: it leads from each PID to the `struct pid` that its task names. */
export function pidTree(of: LayoutCase): Doubt | undefined {
  const known = of.all(
    'task_struct.pid',
    'task_struct.thread_pid',
    'pid_namespace.idr',
    'idr.idr_rt',
    'xarray.xa_head',
    'xa_node.shift',
    'xa_node.slots',
  );
  const namespace = of.checked.symbols.find('init_pid_ns');
  if (known === undefined || namespace === undefined) return undefined;
  const [pid, threadPid, idr, root, head, shift, slots] = known;
  const chunk = xaChunkShift(of.checked.types);
  const { tag, tagMask, maxInternal, maxShift } = XA_NODE;
  const tree = Int32Array.of(tag, tagMask, maxInternal, shift, slots, chunk, maxShift);
  const at = wrap(namespace + BigInt(idr + root + head));
  const leads = (task: SampledTask) => {
    if (task.u32(pid) > PID_MAX) return false;
    try {
      return of.checked.memory.lookUp(tree, at, task.u32(pid)) === task.u64(threadPid);
    } catch (error) {
      if (error instanceof VmiError && error.code !== 'VMI_CLOSED') return false;
      throw error;
    }
  };
  // The newest have the largest PIDs, which lie deepest.
  if (mostly(of.tasks.slice(-LOOK_UPS), leads)) return undefined;
  const entry = of.words.u64(at) ?? 0n;
  const why = 'the tree of PIDs does not lead to the tasks that have them';
  if ((entry & 3n) !== 2n || !isPointer(entry & ~3n)) {
    return doubt(of, why, 'pid_namespace.idr', 'idr.idr_rt', 'xarray.xa_head');
  }
  const depth = of.words.bytes((entry & ~3n) + BigInt(shift), 1)?.[0];
  const deep = depth !== undefined && depth % chunk === 0 && depth <= maxShift && depth > 0;
  return deep ? doubt(of, why, 'xa_node.slots') : doubt(of, why, 'xa_node.shift', 'xa_node.slots');
}

/** Threads: the list in `signal` starts with the leader. */
export function threadLists(of: LayoutCase): Doubt | undefined {
  const known = of.all(
    'task_struct.signal',
    'task_struct.thread_node',
    'signal_struct.thread_head',
  );
  if (known === undefined) return undefined;
  const [signal, node, head] = known;
  const signals = of.others.map((task) => task.u64(signal));
  const apart = mostly(signals, (value, i) => isPointer(value) && signals.indexOf(value) === i);
  const headOf = (task: SampledTask) => wrap(task.u64(signal) + BigInt(head));
  const nodeOf = (task: SampledTask) => wrap(task.address + BigInt(node));
  const closes = mostly(of.others, (task) => {
    const next = of.words.u64(headOf(task));
    return next === nodeOf(task) && of.words.u64(nodeOf(task) + 8n) === headOf(task);
  });
  if (apart && closes) return undefined;
  const why = 'the lists of threads that it leads to are none';
  if (!apart) return doubt(of, why, 'task_struct.signal');
  const inTask = mostly(of.others, (task) => {
    const next = of.words.u64(headOf(task)) ?? 0n;
    const isNode = next !== nodeOf(task) && of.words.u64(next + 8n) === headOf(task);
    return isNode && next > task.address && next - task.address < MAX_TASK;
  });
  if (inTask) return doubt(of, why, 'task_struct.thread_node');
  return doubt(of, why, 'task_struct.signal', 'signal_struct.thread_head');
}
