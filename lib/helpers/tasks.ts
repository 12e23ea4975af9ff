import { escapeBytes } from '../escape.js';
import type { KernelObjects } from '../objects/kernel-objects.js';
import { list } from '../objects/list.js';
import type { StructObject } from '../objects/struct-object.js';
import { pathText } from './paths.js';

/** Most bytes of arguments or environment: a third of the stack limit, at most 6 MiB. fs/exec.c. */
const MAX_ARGUMENTS = 6 << 20;

/**
 * Every process's leader, `init_task` left out: `for_each_process`.
 * Source: include/linux/sched/signal.h; `struct list_head task_struct.tasks`.
 */
export function processes(objects: KernelObjects): Generator<StructObject> {
  return list(objects.variable('init_task').tasks, 'struct task_struct', 'tasks');
}

/**
 * The threads of a process, its leader first: `for_each_thread`.
 * Source: include/linux/sched/signal.h; `struct list_head signal_struct.thread_head`.
 */
export function threads(task: StructObject): Generator<StructObject> {
  return list(task.$follow('signal').thread_head, 'struct task_struct', 'thread_node');
}

/**
 * The processes that a task started and that live, or wait for it.
 * Source: include/linux/sched.h; `struct list_head task_struct.children`, `.sibling`.
 */
export function children(task: StructObject): Generator<StructObject> {
  return list(task.children, 'struct task_struct', 'sibling');
}

/**
 * A task's parents, the nearest first, up to PID 0.
 * Source: include/linux/sched.h; `struct task_struct *task_struct.real_parent`.
 */
export function parents(task: StructObject): StructObject[] {
  const all: StructObject[] = [];
  const seen = new Set<bigint>([task.$address]);
  for (let up = task.real_parent as StructObject | null; up !== null; up = up.real_parent) {
    if (seen.has(up.$address)) break;
    seen.add(up.$address);
    all.push(up);
  }
  return all;
}

/**
 * The arguments a process was started with, as it has them now: `/proc/PID/cmdline`. `null` for a
 * task without an address space.
 *
 * Source: fs/proc/base.c, get_mm_cmdline; `unsigned long mm_struct.arg_start`, `.arg_end`.
 * @throws {FaultError} user memory that is swapped out, or was never touched
 */
export function cmdline(objects: KernelObjects, task: StructObject): string[] | null {
  const mm = task.mm as StructObject | null;
  return mm === null ? null : strings(objects, mm, mm.arg_start, mm.arg_end);
}

/**
 * The environment a process was started with, as it has it now: `/proc/PID/environ`. `null` for a
 * task without an address space.
 *
 * Source: fs/proc/base.c, environ_read; `unsigned long mm_struct.env_start`, `.env_end`.
 * @throws {FaultError} user memory that is swapped out, or was never touched
 */
export function environ(objects: KernelObjects, task: StructObject): string[] | null {
  const mm = task.mm as StructObject | null;
  return mm === null ? null : strings(objects, mm, mm.env_start, mm.env_end);
}

/**
 * Path of the program that a process runs: `/proc/PID/exe`. `null` for a kernel thread.
 * Source: kernel/fork.c, get_mm_exe_file; `struct file *mm_struct.exe_file`.
 */
export function exe(task: StructObject): string | null {
  const file = (task.mm as StructObject | null)?.exe_file as StructObject | null | undefined;
  return file == null ? null : pathText(file.f_path);
}

/**
 * Path of a task's working directory: `/proc/PID/cwd`. `null` once it has exited.
 * Source: include/linux/fs_struct.h; `struct path fs_struct.pwd`.
 */
export function cwd(task: StructObject): string | null {
  const fs = task.fs as StructObject | null;
  return fs === null ? null : pathText(fs.pwd);
}

/**
 * Path of what a task sees as `/`: `/proc/PID/root`. `null` once it has exited.
 * Source: include/linux/fs_struct.h; `struct path fs_struct.root`.
 */
export function root(task: StructObject): string | null {
  const fs = task.fs as StructObject | null;
  return fs === null ? null : pathText(fs.root);
}

function strings(objects: KernelObjects, mm: StructObject, start: bigint, end: bigint): string[] {
  if (end <= start) return [];
  const length = Number(end - start < MAX_ARGUMENTS ? end - start : MAX_ARGUMENTS);
  const bytes = objects.inProcess(mm).memory.read(start, length);
  const all: string[] = [];
  for (let at = 0; at < bytes.length; ) {
    const nul = bytes.indexOf(0, at);
    const stop = nul < 0 ? bytes.length : nul;
    all.push(escapeBytes(bytes.subarray(at, stop)));
    at = stop + 1;
  }
  return all;
}
