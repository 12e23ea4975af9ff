import { wrap } from '../address.js';
import { CorruptError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import type { TaskLayout } from './task-members.js';

// include/linux/xarray.h: xa_is_node, xa_to_node, XA_RETRY_ENTRY.
const NODE_TAG = 2n;
const TAG_MASK = 3n;
const MAX_INTERNAL = 4096n;
const RETRY_ENTRY = (256n << 2n) | NODE_TAG;
const MAX_SHIFT = 60;
/** Times a tree that changes under the look-up is started again. */
const MAX_RETRIES = 16;

/**
 * The kernel's own PID look-up: `init_pid_ns.idr` → `struct pid` → `tasks[PIDTYPE_PID]` (kernel/pid.c, find_pid_ns and
 * pid_task). Finds leaders and threads alike.
 * @returns address of the `task_struct`, `undefined` when no task has this PID
 * @throws {CorruptError} the tree is none
 */
export function findTask(kernel: Kernel, layout: TaskLayout, pid: number): bigint | undefined {
  const structPid = findPid(kernel, layout, pid);
  if (structPid === undefined) return undefined;
  // A struct pid that outlives its task (it still names a session or a group) has no task here. That the task found is the
  // one asked for, the task's own pid tells.
  const first = kernel.memory.readU64(wrap(structPid + BigInt(layout.pidTasks)));
  return first === 0n ? undefined : wrap(first - BigInt(layout.pidLinks));
}

/**
 * The `struct pid` at an index of the tree.
 * @returns its address, `undefined` when there is none
 * @throws {CorruptError} the tree is none
 */
function findPid(kernel: Kernel, layout: TaskLayout, pid: number): bigint | undefined {
  for (let attempt = 0; attempt < MAX_RETRIES; attempt++) {
    const entry = kernel.memory.lookUp(layout.pidTree, layout.pidTreeHead, pid);
    if (entry === 0n) return undefined;
    // xa_is_internal and the tags of values: none of it is a pointer.
    if ((entry & TAG_MASK) === 0n) return entry;
    if (entry !== RETRY_ENTRY) {
      throw new CorruptError(
        `the PID tree holds 0x${entry.toString(16)} for PID ${pid}`,
        layout.pidTreeHead,
      );
    }
  }
  throw new CorruptError(
    `the PID tree kept changing while PID ${pid} was looked up`,
    layout.pidTreeHead,
  );
}

function isNode(entry: bigint): boolean {
  return (entry & TAG_MASK) === NODE_TAG && entry > MAX_INTERNAL;
}

/**
 * The task of every PID in the tree, in the order of the tree.
 * @throws {CorruptError} the tree is none, or holds more than the guest can
 */
export function allTasks(kernel: Kernel, layout: TaskLayout): bigint[] {
  const { memory } = kernel;
  const head = memory.readU64(wrap(kernel.symbols.address('init_pid_ns') + BigInt(layout.xaHead)));
  const { xaChunkShift } = layout;
  const pids: bigint[] = [];
  // No node has two parents. Without this, a few nodes that lead to each other make a tree without end.
  const seen = new Set<bigint>();
  const visit = (entry: bigint, above: number): void => {
    if (!isNode(entry)) {
      if (entry !== 0n && (entry & TAG_MASK) === 0n) pids.push(entry);
      return;
    }
    const node = entry - NODE_TAG;
    const shift = memory.readU32(wrap(node + BigInt(layout.xaShift))) & 0xff;
    if (shift >= above || shift % xaChunkShift !== 0) {
      throw new CorruptError(
        `a node of the PID tree has the shift ${shift} below ${above}`,
        node,
        pids.length,
      );
    }
    if (seen.has(node))
      throw new CorruptError('the PID tree leads to a node twice', node, pids.length);
    seen.add(node);
    const slots = memory.read(wrap(node + BigInt(layout.xaSlots)), 8 << xaChunkShift);
    for (let at = 0; at < slots.length; at += 8) visit(slots.readBigUInt64LE(at), shift);
    if (pids.length > layout.maxTasks) {
      throw new CorruptError(
        `the PID tree holds more than ${layout.maxTasks} entries`,
        node,
        pids.length,
      );
    }
  };
  visit(head, MAX_SHIFT + xaChunkShift);
  const tasks: bigint[] = [];
  for (const first of layout.firstTasks(kernel, BigUint64Array.from(pids))) {
    if (first !== 0n) tasks.push(wrap(first - BigInt(layout.pidLinks)));
  }
  return tasks;
}
