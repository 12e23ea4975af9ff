import { hex } from '../errors.js';
import type { TaskUsage, Usage } from '../monitor/task-usage.js';
import { printable, type Styles } from './printable.js';
import { cutText, padLeft } from './width.js';

export type TopSort = 'cpu' | 'switches' | 'pid' | 'name';

/** What the user of `vmi top` has chosen. */
export interface TopView {
  readonly sort: TopSort;
  /** Part of a name, or a PID; empty: all. */
  readonly filter: string;
  readonly tree: boolean;
  readonly threads: boolean;
  /** First row that is shown. */
  readonly scroll: number;
  /** Terminal columns and lines. */
  readonly width: number;
  readonly height: number;
  /** The line at the bottom; a question while one is asked. */
  readonly foot: string;
}

interface Row extends TaskUsage {
  readonly depth: number;
}

interface TopColumn {
  readonly heading: string;
  readonly width: number;
  /** Terminal columns from which on it is shown. */
  readonly from: number;
  readonly cell: (row: Row) => string;
}

const COLUMNS: readonly TopColumn[] = [
  { heading: 'PID', width: 7, from: 0, cell: ({ task }) => String(task.pid) },
  { heading: 'TGID', width: 7, from: 100, cell: ({ task }) => String(task.tgid) },
  { heading: 'PPID', width: 7, from: 90, cell: ({ task }) => String(task.ppid ?? '?') },
  { heading: 'UID', width: 6, from: 80, cell: ({ task }) => String(task.uid ?? '?') },
  { heading: 'S', width: 1, from: 50, cell: ({ task }) => task.state },
  { heading: '%CPU', width: 6, from: 0, cell: ({ share }) => (share * 100).toFixed(1) },
  { heading: 'SW/S', width: 7, from: 60, cell: ({ switches }) => switches.toFixed(0) },
  { heading: 'CR3', width: 12, from: 70, cell: ({ cr3 }) => (cr3 === null ? '-' : hex(cr3)) },
];
/** Lines above and below the tasks. */
const AROUND = 4;

/** Rows that fit. */
export function topRows(height: number): number {
  return Math.max(1, height - AROUND);
}

/** One picture of `vmi top`: as many lines as the terminal has, none longer than it is wide. */
export function topFrame(
  title: string,
  usage: Usage,
  view: TopView,
  styles?: Styles,
): { readonly lines: string[]; readonly count: number } {
  const rows = arrange(usage.tasks, view);
  const columns = COLUMNS.filter(({ from }) => view.width >= from);
  const rest = view.width - columns.reduce((sum, { width }) => sum + width + 1, 0);
  const shown = rows.slice(view.scroll, view.scroll + topRows(view.height));
  const line = (cells: readonly string[], name: string) =>
    cutText(
      [...cells.map((cell, k) => padLeft(cell, columns[k]!.width)), cutText(name, rest)].join(' '),
      view.width,
    );
  const busy = usage.tasks.reduce((sum, { share }) => sum + share, 0);
  const facts = [
    `${usage.tasks.length} ${view.threads ? 'threads' : 'processes'}`,
    `${usage.cpus} ${usage.cpus === 1 ? 'CPU' : 'CPUs'}`,
    `${((busy / usage.cpus) * 100).toFixed(0)} % busy`,
    ...(usage.switches === null ? [] : [`${usage.switches.toFixed(0)} switches/s`]),
  ].join(', ');
  const head = line(
    columns.map(({ heading }) => heading),
    'COMM',
  ).padEnd(view.width);
  const lines = [
    bold(cutText(printable(title), view.width), styles),
    cutText(usage.seconds === 0 ? 'measuring …' : facts, view.width),
    bold(head, styles),
    ...shown.map((row) =>
      line(
        columns.map(({ cell }) => cell(row)),
        nameOf(row),
      ),
    ),
  ];
  while (lines.length < view.height - 1) lines.push('');
  lines.push(dim(cutText(view.foot, view.width), styles));
  return { lines: lines.slice(0, view.height), count: rows.length };
}

function bold(text: string, styles: Styles | undefined): string {
  return styles?.bold(text) ?? text;
}

function dim(text: string, styles: Styles | undefined): string {
  return styles?.dim(text) ?? text;
}

function nameOf({ task, depth }: Row): string {
  const name = printable(task.kthread ? `[${task.comm}]` : task.comm);
  return `${'  '.repeat(depth)}${name}`;
}

const ORDERS: Readonly<Record<TopSort, (a: TaskUsage, b: TaskUsage) => number>> = {
  cpu: (a, b) => b.share - a.share || b.switches - a.switches || a.task.pid - b.task.pid,
  switches: (a, b) => b.switches - a.switches || a.task.pid - b.task.pid,
  pid: (a, b) => a.task.pid - b.task.pid,
  name: (a, b) => (a.task.comm < b.task.comm ? -1 : a.task.comm > b.task.comm ? 1 : 0),
};

/** The tasks that are wanted, in their order; as a tree, children follow their parent. */
function arrange(tasks: readonly TaskUsage[], view: TopView): Row[] {
  const filter = view.filter.toLowerCase();
  const wanted = tasks
    .filter(
      ({ task }) => task.comm.toLowerCase().includes(filter) || String(task.pid).startsWith(filter),
    )
    .sort(ORDERS[view.sort]);
  if (!view.tree) return wanted.map((one) => ({ ...one, depth: 0 }));
  const byParent = new Map<number, TaskUsage[]>();
  const pids = new Set(wanted.map(({ task }) => task.pid));
  for (const one of wanted) {
    // A thread hangs on its process, a process on its parent, an orphan of the filter on nobody.
    const parent = one.task.leader ? (one.task.ppid ?? 0) : one.task.tgid;
    const key = pids.has(parent) && parent !== one.task.pid ? parent : 0;
    byParent.set(key, [...(byParent.get(key) ?? []), one]);
  }
  const rows: Row[] = [];
  const stack = (byParent.get(0) ?? []).map((one) => ({ ...one, depth: 0 })).reverse();
  const done = new Set<number>();
  while (stack.length > 0) {
    const row = stack.pop()!;
    // Parents that are each other's children are a guest's to claim.
    if (done.has(row.task.pid)) continue;
    done.add(row.task.pid);
    rows.push(row);
    const children = byParent.get(row.task.pid) ?? [];
    for (const child of [...children].reverse()) stack.push({ ...child, depth: row.depth + 1 });
  }
  return rows;
}
