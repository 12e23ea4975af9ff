import {
  TASK_COLUMNS,
  type TaskColumn,
  type TaskColumnName,
  type TaskRow,
} from '../text/task-columns.js';
import { onlyOne, UsageError } from './arguments.js';
import type { Invocation, Option } from './command.js';

const NAMES = (Object.keys(TASK_COLUMNS) as TaskColumnName[]).filter(
  (name) => name !== 'missing' && name !== 'found',
);
const STATES = /^[RSDTtXZPI?]+$/;
/** A tree is not indented further: a guest can make one of any depth. */
const MAX_DEPTH = 32;

/** Options that choose which tasks are listed, and how. */
export const SELECTION_OPTIONS: Readonly<Record<string, Option>> = {
  columns: {
    value: 'NAMES',
    values: NAMES,
    summary: `print these columns, with commas between them: ${NAMES.join(', ')}`,
  },
  comm: {
    value: 'NAME',
    many: true,
    summary: 'list tasks of this name, in which * stands for anything; may be repeated',
  },
  uid: { value: 'UID', many: true, summary: 'list tasks of this user; may be repeated' },
  state: {
    value: 'LETTERS',
    summary: 'list tasks in one of these states: R, S, D, T, t, X, Z, P, I',
  },
  only: {
    value: 'KIND',
    values: ['user', 'kernel'],
    summary: 'list kernel threads alone (kernel), or none of them (user)',
  },
  sort: { value: 'COLUMN', values: NAMES, summary: 'list in the order of this column' },
  reverse: { short: 'r', summary: 'list the other way round' },
  tree: { summary: 'list each task below its parent, its name indented' },
};

/** Which tasks are listed, and how. */
export interface TaskSelection {
  /** `undefined`: the usual ones. */
  readonly columns: readonly TaskColumnName[] | undefined;
  /** Whether some tasks may be left out. */
  readonly isFiltered: boolean;
  select<Row extends TaskRow>(rows: readonly Row[]): Row[];
}

/** @throws {UsageError} no such column, user or state, or options that exclude each other */
export function taskSelection(invocation: Invocation): TaskSelection {
  const { has, value } = invocation;
  onlyOne(invocation, 'tree', 'sort');
  onlyOne(invocation, 'tree', 'reverse');
  onlyOne(invocation, 'tree', 'json');
  onlyOne(invocation, 'columns', 'json');
  const columns = value('columns')?.split(',').map(columnNamed);
  const order = value('sort');
  const key: TaskColumn['value'] | undefined =
    order === undefined ? undefined : TASK_COLUMNS[columnNamed(order)].value;
  const filters = filtersOf(invocation);
  return {
    columns,
    isFiltered: filters.length > 0,
    select(rows) {
      const kept = rows.filter((row) => filters.every((filter) => filter(row)));
      if (has('tree')) return inTree(kept);
      if (key !== undefined) kept.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
      return has('reverse') ? kept.reverse() : kept;
    },
  };
}

function filtersOf({ value, values }: Invocation): ((row: TaskRow) => boolean)[] {
  const filters: ((row: TaskRow) => boolean)[] = [];
  const names = values('comm').map((name) => new RegExp(`^${pattern(name)}$`, 's'));
  if (names.length > 0) filters.push(({ comm }) => names.some((name) => name.test(comm)));
  const uids = values('uid').map(parseUid);
  if (uids.length > 0) filters.push(({ uid }) => uid !== null && uids.includes(uid));
  const states = value('state');
  if (states !== undefined) {
    if (!STATES.test(states))
      throw new UsageError(`Expected --state as letters of RSDTtXZPI but received '${states}'`);
    filters.push(({ state }) => states.includes(state));
  }
  const only = value('only');
  if (only !== undefined) {
    if (only !== 'user' && only !== 'kernel')
      throw new UsageError(`Expected --only as user or kernel but received '${only}'`);
    filters.push(({ kthread }) => kthread === (only === 'kernel'));
  }
  return filters;
}

/** A name in which `*` stands for anything; a name has at most 15 bytes, so that stars are few. */
function pattern(name: string): string {
  if (name.length > 64) throw new UsageError(`Expected --comm as a name but received '${name}'`);
  const parts = name.split(/\*+/).map((part) => part.replace(/[\\^$.+?()[\]{}|]/g, '\\$&'));
  return parts.join('.*');
}

function parseUid(text: string): number {
  const uid = Number(text);
  if (!/^[0-9]+$/.test(text) || uid > 0xffff_ffff)
    throw new UsageError(`Expected --uid as the number of a user but received '${text}'`);
  return uid;
}

function columnNamed(text: string): TaskColumnName {
  const name = NAMES.find((one) => one === text.trim().toLowerCase());
  if (name === undefined)
    throw new UsageError(`there is no column '${text}'; columns are ${NAMES.join(', ')}`);
  return name;
}

/** Each task below its parent, threads below their leader; what has none in the list is a root. */
function inTree<Row extends TaskRow>(rows: readonly Row[]): Row[] {
  const pids = new Set(rows.map(({ pid }) => pid));
  const children = new Map<number, Row[]>();
  const roots: Row[] = [];
  for (const row of rows) {
    const parent = row.pid === row.tgid ? row.ppid : row.tgid;
    if (parent === null || parent === row.pid || !pids.has(parent)) roots.push(row);
    else {
      const siblings = children.get(parent);
      if (siblings === undefined) children.set(parent, [row]);
      else siblings.push(row);
    }
  }
  const seen = new Set<Row>();
  const found: Row[] = [];
  // A guest may lie of parents: what is reached from no root is one.
  for (const root of [...roots, ...rows]) {
    const stack = [{ row: root, depth: 0 }];
    for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
      const { row, depth } = next;
      if (seen.has(row)) continue;
      seen.add(row);
      found.push({ ...row, depth });
      const below = children.get(row.pid) ?? [];
      for (const child of below.toReversed())
        stack.push({ row: child, depth: Math.min(depth + 1, MAX_DEPTH) });
    }
  }
  return found;
}
