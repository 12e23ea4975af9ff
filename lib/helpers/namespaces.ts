import type { StructObject } from '../objects/struct-object.js';

/**
 * Cgroups above each other that are followed. CGROUP_MAX depth is unlimited; a path has 4096 bytes.
 */
const MAX_DEPTH = 2048;

/**
 * Numbers of a task's namespaces, as `/proc/PID/ns` shows them; `null` for those it no longer has.
 */
export interface Namespaces {
  readonly pid: number | null;
  readonly mnt: number | null;
  readonly net: number | null;
  readonly uts: number | null;
  readonly ipc: number | null;
  readonly user: number | null;
  readonly cgroup: number | null;
  /** `null` also where the kernel has no such namespaces. */
  readonly time: number | null;
}

/**
 * The namespaces of a task.
 * Source: include/linux/nsproxy.h; `struct nsproxy *task_struct.nsproxy`, `unsigned int
 * ns_common.inum`; kernel/pid.c, task_active_pid_ns.
 */
export function namespaces(task: StructObject): Namespaces {
  const proxy = task.nsproxy as StructObject | null;
  const of = (name: string) => numberOf(proxy?.[name] as StructObject | null | undefined);
  const pid = task.thread_pid as StructObject | null;
  return {
    pid: numberOf(pid?.numbers.at(pid.level).ns),
    mnt: of('mnt_ns'),
    net: of('net_ns'),
    uts: of('uts_ns'),
    ipc: of('ipc_ns'),
    user: numberOf(task.cred?.user_ns),
    cgroup: of('cgroup_ns'),
    time: of('time_ns'),
  };
}

/**
 * A task's cgroup in the unified hierarchy: `/proc/PID/cgroup`, `0::/…`.
 *
 * Source: kernel/cgroup/cgroup.c, task_dfl_cgroup; `struct css_set *task_struct.cgroups`,
 * `struct kernfs_node { const char *name; struct kernfs_node *parent; }` (`__parent` since 6.15).
 * `undefined` for a kernel without cgroups.
 */
export function cgroup(task: StructObject): string | undefined {
  if (!task.$has('cgroups')) return undefined;
  let node = task.$follow('cgroups.dfl_cgrp.kn');
  const names: string[] = [];
  while (node !== null && names.length < MAX_DEPTH) {
    const name = node.name?.string(256) ?? '';
    if (name !== '' && name !== '/') names.push(name);
    node = node.$has('parent') ? node.parent : node.__parent;
  }
  return `/${names.reverse().join('/')}`;
}

function numberOf(namespace: StructObject | null | undefined): number | null {
  return namespace == null ? null : (namespace.ns.inum as number);
}
