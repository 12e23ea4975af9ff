import { tryAnswer } from '../try-answer.js';
import type { TypeTable } from '../types/table.js';

/**
 * The members by which tasks are read, each as `struct.member`; of two names the first that this
 * kernel has. `task_struct.state` became `__state` in commit 2f064a59a11f (5.14).
 */
export const TASK_MEMBERS = [
  'task_struct.tasks',
  'task_struct.comm',
  'task_struct.pid',
  'task_struct.tgid',
  'task_struct.mm',
  'task_struct.active_mm',
  'task_struct.flags',
  'task_struct.__state',
  'task_struct.state',
  'task_struct.exit_state',
  'task_struct.start_time',
  'task_struct.real_parent',
  'task_struct.real_cred',
  'task_struct.signal',
  'task_struct.thread_node',
  'task_struct.thread_pid',
  'task_struct.pid_links',
] as const;

/** What they lead to, and what the kernel's CPUs are read from. */
export const OTHER_MEMBERS = [
  'mm_struct.pgd',
  'cred.uid',
  'signal_struct.thread_head',
  'pid.level',
  'pid.numbers',
  'pid.tasks',
  'upid.nr',
  'pid_namespace.idr',
  'idr.idr_rt',
  'xarray.xa_head',
  'xa_node.shift',
  'xa_node.slots',
  'tlb_state.loaded_mm',
  'pcpu_hot.current_task',
  'cpuinfo_x86.x86_capability',
  'tk_data.timekeeper',
  'timekeeper.xtime_sec',
] as const;

export type MemberName = (typeof TASK_MEMBERS)[number] | (typeof OTHER_MEMBERS)[number];

/** Offsets of those members that some types know. */
export type Offsets = ReadonlyMap<MemberName, number>;

/** Offsets that a type table gives. */
export function offsetsOf(types: TypeTable): Offsets {
  const offsets = new Map<MemberName, number>();
  for (const name of [...TASK_MEMBERS, ...OTHER_MEMBERS]) {
    const [struct, member] = name.split('.') as [string, string];
    const offset = tryAnswer(() => types.findOffset(struct, member));
    if (offset !== undefined) offsets.set(name, offset);
  }
  return offsets;
}
