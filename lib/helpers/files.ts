import { bitmap } from '../objects/bitmap.js';
import type { Pointer } from '../objects/pointer.js';
import type { StructObject } from '../objects/struct-object.js';
import { pathText } from './paths.js';

/**
 * Most descriptors a process can have: sysctl fs.nr_open at its highest. fs/file.c,
 * sysctl_nr_open_max.
 */
const MAX_DESCRIPTORS = 1 << 24;

/** An open file of a task. */
export interface OpenFile {
  readonly fd: number;
  /** As `/proc/PID/fd` shows it: a path, `pipe:[1166]`, `socket:[11163]`. */
  readonly path: string;
  /** `struct file` */
  readonly object: StructObject;
}

/**
 * A task's open files by descriptor: `/proc/PID/fd`. Empty for a task that has exited.
 *
 * Source: include/linux/fdtable.h; `struct fdtable { unsigned int max_fds; struct file **fd;
 * unsigned long *open_fds; }`.
 */
export function* files(task: StructObject): Generator<OpenFile> {
  const all = task.files as StructObject | null;
  if (all === null) return;
  const table = all.$follow('fdt') as StructObject;
  const open = (table.$follow('open_fds') as Pointer).cast('unsigned long[]');
  const count = Math.min(table.max_fds as number, MAX_DESCRIPTORS);
  for (const fd of bitmap(open, count)) {
    const file = (table.$follow('fd') as Pointer).at(fd) as StructObject | null;
    // A descriptor is reserved before its file is there.
    if (file !== null) yield { fd, path: pathText(file.f_path), object: file };
  }
}
