// @ts-check
/**
 * Questions about a guest that does not change, each with its whole answer, and what an answer may
 * lack when reads fail.
 */

import { codeOf } from '../hostile/operations.mjs';
import { FOR_EVER } from './failing.mjs';

/** @typedef {import('../../lib/guest/guest.ts').Guest} Guest */
/** @typedef {import('../../lib/tasks/task.ts').TaskJson} TaskJson */

/**
 * Rows by what they are about, each as JSON would have it. A failed read may turn a row into one
 * that says that it cannot be told; rows never go, and none comes.
 *
 * @typedef {Map<string, Record<string, unknown>>} Answer
 */

/** @typedef {{ name: string, ask: (guest: Guest) => Answer }} Question */

/** @param {Iterable<{ toJSON(): TaskJson }>} tasks @returns {Answer} */
function rowsOf(tasks) {
  /** @type {Answer} */ const answer = new Map();
  for (const task of tasks) {
    const row = {
      .../** @type {Record<string, unknown>} */ (/** @type {unknown} */ (task.toJSON())),
    };
    answer.set(String(row.task), row);
  }
  return answer;
}

/** @param {unknown} value @returns {Answer} */
function answerOf(value) {
  return new Map([
    [
      'value',
      { value: value instanceof Uint8Array ? Buffer.from(value).toString('hex') : String(value) },
    ],
  ]);
}

/**
 * @param {Guest} guest whose reads do not fail
 * @returns {Question[]}
 */
export function questions(guest) {
  const all = guest.tasks({ threads: true });
  /**
   * One task of each kind there is: how its CR3 is found, whether it leads, its depth of
   * namespaces.
   */
  const kinds = new Map(
    all.map((task) => [`${task.cr3Source} ${task.leader} ${task.nsPids.length}`, task]),
  );
  const address = all[0]?.address ?? 0n;
  /** @type {Question[]} */
  const list = [
    { name: 'tasks', ask: (it) => rowsOf(it.tasks()) },
    { name: 'tasks of threads', ask: (it) => rowsOf(it.tasks({ threads: true })) },
    { name: 'taskColumns', ask: columnsOf },
    { name: 'cpus', ask: cpusOf },
    { name: 'crossView', ask: crossOf },
    { name: 'read', ask: (it) => answerOf(it.read(address, 8192)) },
    {
      name: 'read of a process',
      ask: (it) => answerOf(it.read(address, 4097, { pid: 1 })),
    },
    {
      name: 'translate',
      ask: (it) => {
        const { physical, unreadable } = it.walk(address);
        return unreadable === undefined
          ? answerOf(physical)
          : new Map([['value', { unreadable: ['value'] }]]);
      },
    },
    { name: 'readString', ask: (it) => answerOf(it.readString(it.symbol('linux_banner'))) },
    { name: 'findTask of no task', ask: (it) => answerOf(it.findTask(0x3f_fff0)?.pid) },
  ];
  for (const [kind, { pid, cr3 }] of kinds) {
    list.push({ name: `task(${pid}), ${kind}`, ask: (it) => rowsOf([it.task(pid)]) });
    if (cr3 === null) continue;
    list.push({ name: `cr3ToTasks of ${pid}, ${kind}`, ask: (it) => tasksOf(it, cr3) });
  }
  for (const { pid } of all)
    list.push({ name: `pidToCr3(${pid})`, ask: (it) => answerOf(it.pidToCr3(pid)) });
  return list;
}

/** @param {Guest} guest @param {bigint} cr3 */
function tasksOf(guest, cr3) {
  const tasks = guest.cr3ToTasks(cr3);
  const answer = rowsOf(tasks);
  // Those of which nobody can say whether they belong here.
  for (const [key, row] of rowsOf(tasks.corrupt)) answer.set(key, { ...row, mayBelong: true });
  return answer;
}

/** @param {Guest} guest @returns {Answer} */
function columnsOf(guest) {
  const { count, mode: _, retries: __, ...columns } = guest.taskColumns({ threads: true });
  /** @type {Answer} */ const answer = new Map();
  for (let row = 0; row < count; row++) {
    const values = Object.entries(columns).map(([name, column]) => [name, String(column[row])]);
    answer.set(String(columns.task[row]), Object.fromEntries(values));
  }
  return answer;
}

/** @param {Guest} guest @returns {Answer} */
function cpusOf(guest) {
  return new Map(
    guest.cpus().map((row) => {
      const { cpu, task, cr3, ...rest } = row;
      return [`cpu ${cpu}`, { ...JSON.parse(JSON.stringify(task)), loaded: String(cr3), ...rest }];
    }),
  );
}

/** @param {Guest} guest @returns {Answer} */
function crossOf(guest) {
  return new Map(
    guest.crossView().map(({ task, views, missing }) => {
      const row = JSON.parse(JSON.stringify(task));
      return [row.task, { ...row, views: [...views].sort().join(), missing: missing.join() }];
    }),
  );
}

/**
 * Of a column: corrupt, and no number. lib/tasks/listing.ts, CR3_SOURCES; lib/tasks/columns.ts,
 * UNREADABLE.
 */
const CORRUPT = '6';
const UNREADABLE = String(0xffff_ffff);

/**
 * What is wrong with an answer that was given although reads failed.
 *
 * @param {Answer} expected
 * @param {Answer} got
 * @returns {string[]}
 */
export function wrongs(expected, got) {
  const wrong = [];
  for (const [key, right] of expected) {
    const row = got.get(key);
    if (row === undefined) {
      wrong.push(`${right.pid ?? ''} at ${key} is missing`);
      continue;
    }
    // A row that cannot be told says so.
    if (row.cr3Source === 'corrupt' || row.cr3Source === CORRUPT || row.mayBelong === true)
      continue;
    const unreadable = Array.isArray(row.unreadable) ? row.unreadable : [];
    for (const [field, value] of Object.entries(right)) {
      if (JSON.stringify(row[field]) === JSON.stringify(value)) continue;
      if (unreadable.includes(field === 'commHex' ? 'comm' : field)) continue;
      if ((field === 'ppid' || field === 'uid') && row[field] === UNREADABLE) continue;
      wrong.push(
        `${right.pid ?? ''} at ${key} has ${field} ${JSON.stringify(row[field])}, not ${JSON.stringify(value)}`,
      );
    }
  }
  for (const [key, row] of got)
    if (!expected.has(key) && row.mayBelong !== true)
      wrong.push(`${row.pid ?? ''} at ${key} does not exist`);
  return wrong;
}

/**
 * Asks a question again and again, each time with other reads failed: from each of `points` on, one
 * alone and all after it, whole and short.
 *
 * @param {Question} question
 * @param {Guest} guest
 * @param {ReturnType<typeof import('./failing.mjs').failingLibrary>['order']} order
 * @param {(reads: number) => Iterable<number>} points which reads, of so many
 */
export function askWithFaults(question, guest, order, points) {
  const outcome = () => {
    try {
      return question.ask(guest);
    } catch (error) {
      const code = codeOf(error);
      if (code === undefined) throw error;
      return code;
    }
  };
  order();
  const expected = outcome();
  const reads = order();
  if (typeof expected === 'string') throw new Error(`${question.name} ends with ${expected}`);
  /** @type {string[]} */ const wrong = [];
  let runs = 0;
  let errors = 0;
  for (const first of points(reads)) {
    for (const count of [1, FOR_EVER]) {
      for (const short of [false, true]) {
        order(first, count, short);
        const got = outcome();
        order();
        runs++;
        const how = `${short ? 'short' : 'failed'} read ${first}${count > 1 ? ' and all after' : ''}`;
        if (typeof got === 'string') errors++;
        else wrong.push(...wrongs(expected, got).map((line) => `${how}: ${line}`));
      }
    }
    const after = outcome();
    if (typeof after === 'string' || wrongs(expected, after).length > 0)
      wrong.push(`after read ${first} the guest answers otherwise`);
  }
  return { reads, runs, errors, wrong };
}
