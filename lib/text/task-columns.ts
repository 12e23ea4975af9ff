import type { CrossRow } from '../tasks/cross-view.js';
import type { TaskJson } from '../tasks/task.js';
import type { Column } from './table.js';

/** A task as `vmi ps --cross --json` prints it. */
export type CrossJson = TaskJson & Pick<CrossRow, 'views' | 'missing'>;

/** A task as it is printed, and how deep it stands in a tree. */
export type TaskRow = (TaskJson | CrossJson) & { readonly depth?: number };

/** A column of a task, and what to sort tasks by it with. */
export interface TaskColumn extends Column<TaskRow> {
  readonly value: (row: TaskRow) => number | bigint | string;
}

/** An address or a count as a number; what is not known comes first. */
const number = (text: string | number | null | undefined) =>
  text === null || text === undefined ? -1n : BigInt(text);

function numeric(heading: string, of: (row: TaskRow) => number | null): TaskColumn {
  return {
    heading,
    align: 'right',
    cell: (row) => String(of(row) ?? '?'),
    value: (row) => number(of(row)),
  };
}

function address(heading: string, of: (row: TaskRow) => string | null | undefined): TaskColumn {
  return {
    heading,
    align: 'right',
    cell: (row) => of(row) ?? '-',
    value: (row) => number(of(row)),
  };
}

function text(heading: string, of: (row: TaskRow) => string): TaskColumn {
  return { heading, cell: of, value: of };
}

/** A kernel thread's name in brackets, as ps(1) writes it. */
const comm = (row: TaskRow) => (row.kthread ? `[${row.comm}]` : row.comm);

/** Every column that a list of tasks can have, by its name. */
export const TASK_COLUMNS = {
  pid: numeric('PID', ({ pid }) => pid),
  tgid: numeric('TGID', ({ tgid }) => tgid),
  ppid: numeric('PPID', ({ ppid }) => ppid),
  uid: numeric('UID', ({ uid }) => uid),
  state: text('S', ({ state }) => state),
  cr3: address('CR3', ({ cr3 }) => cr3),
  usercr3: address('USERCR3', ({ userCr3 }) => userCr3),
  source: text('SOURCE', ({ cr3Source }) => cr3Source),
  task: address('TASK', ({ task }) => task),
  mm: address('MM', ({ mm }) => mm),
  activemm: address('ACTIVEMM', ({ activeMm }) => activeMm),
  pgd: address('PGD', ({ pgd }) => pgd),
  start: {
    heading: 'START',
    align: 'right',
    cell: ({ startTime }) => (Number(startTime) / 1e9).toFixed(3),
    value: ({ startTime }) => BigInt(startTime),
  },
  nspids: text('NSPIDS', ({ nsPids }) => nsPids.join(',')),
  missing: text('MISSING', (row) => ('missing' in row ? row.missing.join(',') : '')),
  found: text('FOUND', (row) => ('views' in row ? row.views.join(',') : '')),
  comm: {
    heading: 'COMM',
    cell: (row) => '  '.repeat(row.depth ?? 0) + comm(row),
    value: (row) => row.comm,
  },
} as const satisfies Record<string, TaskColumn>;

export type TaskColumnName = keyof typeof TASK_COLUMNS;

/** The columns of a list where none were chosen. */
export function usualColumns(rows: readonly TaskRow[]): TaskColumnName[] {
  const crossed = rows.some((row) => 'missing' in row);
  const pti = rows.some((row) => row.userCr3 !== undefined);
  return [
    ...(['pid', 'tgid', 'ppid', 'uid', 'state', 'cr3'] as const),
    ...(pti ? (['usercr3'] as const) : []),
    'source',
    ...(crossed ? (['missing', 'found'] as const) : []),
    'comm',
  ];
}
