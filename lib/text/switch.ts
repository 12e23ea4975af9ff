import { hex } from '../errors.js';
import type { ReportedSwitch } from '../monitor/reported-switches.js';
import type { RunningTask, Switch } from '../monitor/switch.js';
import type { TaskEvent } from '../monitor/task-watch.js';
import { printable } from './printable.js';
import { cutText, padLeft, padRight } from './width.js';

/** A task as ps(1) names it; a CPU's idle task is `idle`. */
export function taskName(task: RunningTask): string {
  if (task.idle) return 'idle';
  return printable(task.kthread ? `[${task.comm}]` : task.comm);
}

/** Seconds with microseconds between two times on the host's clock, nanoseconds each. */
export function secondsText(from: bigint, to: bigint): string {
  return (Number(to - from) / 1e9).toFixed(6);
}

/** A column of lines that come one by one: it has a width of its own. */
interface LineColumn<Event> {
  readonly heading: string;
  readonly width: number;
  readonly left?: boolean;
  /** Terminal columns from which on it is shown. */
  readonly from: number;
  readonly cell: (event: Event, start: bigint) => string;
}

/** A switch of tasks, or of address spaces, whose task may not be known. */
type AnySwitch = Switch | ReportedSwitch;

const SWITCH_COLUMNS: readonly LineColumn<AnySwitch>[] = [
  { heading: 'TIME', width: 12, from: 0, cell: ({ time }, start) => secondsText(start, time) },
  { heading: 'CPU', width: 4, from: 0, cell: ({ cpu }) => String(cpu) },
  { heading: 'PID', width: 8, from: 0, cell: ({ task }) => String(task?.pid ?? '-') },
  { heading: 'TGID', width: 8, from: 100, cell: ({ task }) => String(task?.tgid ?? '-') },
  { heading: 'CR3', width: 14, from: 64, cell: ({ cr3 }) => (cr3 === null ? '-' : hex(cr3)) },
  { heading: 'MISSED', width: 7, from: 48, cell: ({ missed }) => missedText(missed) },
  { heading: 'COMM', width: 18, left: true, from: 0, cell: (event) => ownerText(event) },
  {
    ...{ heading: 'BEFORE', width: 0, left: true, from: 80 },
    cell: ({ previous }) => (previous === null ? '' : `${previous.pid} ${taskName(previous)}`),
  },
];

const TASK_COLUMNS: readonly LineColumn<TaskEvent>[] = [
  { heading: 'TIME', width: 12, from: 0, cell: ({ time }, start) => secondsText(start, time) },
  { heading: 'EVENT', width: 5, left: true, from: 0, cell: ({ kind }) => kind },
  { heading: 'PID', width: 8, from: 0, cell: ({ task }) => String(task.pid) },
  { heading: 'TGID', width: 8, from: 100, cell: ({ task }) => String(task.tgid) },
  { heading: 'PPID', width: 8, from: 72, cell: ({ task }) => String(task.ppid ?? '?') },
  {
    ...{ heading: 'CR3', width: 14, from: 64 },
    cell: ({ task }) => (task.cr3 === null ? '-' : hex(task.cr3)),
  },
  { heading: 'LOST', width: 6, from: 48, cell: ({ lost }) => String(lost ?? '?') },
  { heading: 'COMM', width: 0, left: true, from: 0, cell: (event) => namesText(event) },
];

function ownerText(event: AnySwitch): string {
  if (event.task !== null) return taskName(event.task);
  return 'kernel' in event && event.kernel ? '(kernel)' : '(gone)';
}

function missedText(missed: number | null): string {
  if (missed === null) return '?';
  return missed === 0 ? '' : `+${missed}`;
}

function namesText({ task, before }: TaskEvent): string {
  const comm = printable(task.kthread ? `[${task.comm}]` : task.comm);
  return before === undefined ? comm : `${comm} (was ${printable(before.comm)})`;
}

function joined<Event>(
  columns: readonly LineColumn<Event>[],
  width: number,
  cell: (column: LineColumn<Event>) => string,
): string {
  const cells = columns
    .filter(({ from }) => width >= from)
    .map((column) => (column.left ? padRight : padLeft)(cell(column), column.width));
  return cutText(cells.join(' ').trimEnd(), width);
}

/**
 * Headings of {@link switchLine}.
 * @param width terminal columns; what does not fit is left out
 */
export function switchHeadings(width = Number.POSITIVE_INFINITY): string {
  return joined(SWITCH_COLUMNS, width, ({ heading }) => heading);
}

/** One switch on a line. @param width as {@link switchHeadings} */
export function switchLine(
  event: AnySwitch,
  start: bigint,
  width = Number.POSITIVE_INFINITY,
): string {
  return joined(SWITCH_COLUMNS, width, ({ cell }) => cell(event, start));
}

/** Headings of {@link taskEventLine}. @param width as {@link switchHeadings} */
export function taskEventHeadings(width = Number.POSITIVE_INFINITY): string {
  return joined(TASK_COLUMNS, width, ({ heading }) => heading);
}

/** One birth, exec or exit on a line. @param width as {@link switchHeadings} */
export function taskEventLine(
  event: TaskEvent,
  start: bigint,
  width = Number.POSITIVE_INFINITY,
): string {
  return joined(TASK_COLUMNS, width, ({ cell }) => cell(event, start));
}
