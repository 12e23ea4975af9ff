import { hex } from '../errors.js';
import type { RunningTask, Switch } from '../monitor/switch.js';
import type { TaskEvent } from '../monitor/task-watch.js';
import { printable } from './printable.js';

/** A task as ps(1) names it; a CPU's idle task is `idle`. */
export function taskName(task: RunningTask): string {
  if (task.idle) return 'idle';
  return printable(task.kthread ? `[${task.comm}]` : task.comm);
}

/** Seconds with microseconds between two times on the host's clock, nanoseconds each. */
export function secondsText(from: bigint, to: bigint): string {
  return (Number(to - from) / 1e9).toFixed(6);
}

/** Headings of {@link switchLine}. */
export const SWITCH_HEADINGS = [
  'TIME'.padStart(12),
  'CPU'.padStart(4),
  'PID'.padStart(8),
  'TGID'.padStart(8),
  'CR3'.padStart(14),
  'MISSED'.padStart(7),
  'COMM'.padEnd(18),
  'BEFORE',
].join(' ');

/** One switch on a line: lines come one by one, so columns have widths of their own. */
export function switchLine(event: Switch, start: bigint): string {
  const { task, previous, missed } = event;
  return [
    secondsText(start, event.time).padStart(12),
    String(event.cpu).padStart(4),
    String(task.pid).padStart(8),
    String(task.tgid).padStart(8),
    (event.cr3 === null ? '-' : hex(event.cr3)).padStart(14),
    (missed === null ? '?' : missed === 0 ? '' : `+${missed}`).padStart(7),
    taskName(task).padEnd(18),
    previous === null ? '' : `${previous.pid} ${taskName(previous)}`,
  ]
    .join(' ')
    .trimEnd();
}

export const TASK_EVENT_HEADINGS = [
  'TIME'.padStart(12),
  'EVENT'.padEnd(5),
  'PID'.padStart(8),
  'TGID'.padStart(8),
  'PPID'.padStart(8),
  'CR3'.padStart(14),
  'LOST'.padStart(6),
  'COMM',
].join(' ');

/** One birth, exec or exit on a line. */
export function taskEventLine(event: TaskEvent, start: bigint): string {
  const { kind, task, before, lost } = event;
  const comm = printable(task.kthread ? `[${task.comm}]` : task.comm);
  const was = before === undefined ? '' : ` (was ${printable(before.comm)})`;
  return [
    secondsText(start, event.time).padStart(12),
    kind.padEnd(5),
    String(task.pid).padStart(8),
    String(task.tgid).padStart(8),
    String(task.ppid ?? '?').padStart(8),
    (task.cr3 === null ? '-' : hex(task.cr3)).padStart(14),
    String(lost ?? '?').padStart(6),
    comm + was,
  ].join(' ');
}
