import { hex } from '../errors.js';
import type { GuestCpu } from '../guest/guest-cpu.js';
import type { Addressing } from '../memory/physical-memory.js';
import type { Cr3Source } from '../tasks/cr3.js';
import type { Task } from '../tasks/task.js';
import type { Styles } from './printable.js';
import { table } from './table.js';
import {
  TASK_COLUMNS,
  type TaskColumn,
  type TaskColumnName,
  type TaskRow,
  usualColumns,
} from './task-columns.js';

/**
 * Tasks as lines: the columns of `vmi ps`, addresses of the machine named so, the user half of each
 * pair where the guest has one, and the views that lack a task where that was asked.
 * @param chosen columns, in their order; the usual ones when left out
 */
export function taskTable(
  tasks: Iterable<TaskRow>,
  styles?: Styles,
  chosen?: readonly TaskColumnName[],
): string[] {
  const rows = [...tasks];
  const machine = rows.some((row) => row.addressing === 'machine');
  const columns = (chosen ?? usualColumns(rows)).map((name): TaskColumn => {
    const column = TASK_COLUMNS[name];
    const named = machine && (name === 'cr3' || name === 'usercr3');
    return named ? { ...column, heading: `MACHINE ${column.heading}` } : column;
  });
  return table(rows, columns, styles === undefined ? {} : { styles });
}

/** CPUs as lines: what each runs and has loaded, which may be an address of the machine. */
export function cpuTable(
  cpus: Iterable<GuestCpu>,
  styles?: Styles,
  addressing?: Addressing,
): string[] {
  return table(
    cpus,
    [
      { heading: 'CPU', align: 'right', cell: ({ cpu }) => String(cpu) },
      {
        heading: addressing === 'machine' ? 'MACHINE CR3' : 'CR3',
        align: 'right',
        cell: ({ cr3, switching }) =>
          cr3 === null ? '-' : `${hex(cr3)}${switching ? ' (switching)' : ''}`,
      },
      { heading: 'PID', align: 'right', cell: ({ task }) => String(task.pid) },
      { heading: 'TGID', align: 'right', cell: ({ task }) => String(task.tgid) },
      { heading: 'COMM', cell: ({ task }) => (task.kthread ? `[${task.comm}]` : task.comm) },
    ],
    styles === undefined ? {} : { styles },
  );
}

/**
 * Why a task has no CR3 of its own, or why its CR3 is another's; `undefined` when it is simply its
 * own.
 */
export function whyCr3(task: Pick<Task, 'pid' | 'comm'>, source: Cr3Source): string | undefined {
  const who = `task ${task.pid} (${task.comm})`;
  switch (source) {
    case 'mm':
      return undefined;
    case 'none':
      return `${who} is a kernel thread off the CPU: it has no address space, and will run on whatever is loaded when it wakes`;
    case 'exited':
      return `${who} has exited and waits for its parent: it will not run again`;
    case 'active_mm':
      return `${who} has no address space of its own: it is on a CPU and borrows this one`;
    case 'loaded_mm':
      return `${who} has no address space of its own: this is what its CPU has loaded`;
    case 'thread':
      return `${who} has exited, but threads of its process live: this is theirs`;
  }
}
