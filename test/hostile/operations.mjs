// @ts-check
/** Everything that can be asked of a guest, and what an answer must be whatever the guest does. */
import { inspect } from 'node:util';

/** @typedef {import('../../lib/guest/guest.ts').Guest} Guest */
/** @typedef {import('../../lib/tasks/task.ts').Task} Task */
/** @typedef {import('../../lib/tasks/task.ts').TaskJson} TaskJson */
/** @typedef {import('./survey.mjs').Survey} Survey */
/**
 * Tasks by the address of their `task_struct`.
 * @typedef {Map<bigint, TaskJson> & { partial?: boolean }} Rows partial: the listing itself says
 *   that it may lack some
 */

/**
 * @typedef {object} Operation
 * @property {string} name
 * @property {(guest: Guest) => Rows | undefined | Promise<undefined>} run gives tasks where it
 *   lists them
 * @property {'all' | 'processes' | undefined} [lists] which tasks it must list
 */

const TEXT_ENTRY = 511n * 8n;
const PHYSICAL = 0x000f_ffff_ffff_f000n;

class WrongAnswer extends Error {}

/** @param {boolean} condition @param {() => string} why @returns {asserts condition} */
function must(condition, why) {
  if (!condition) throw new WrongAnswer(why());
}

/** @type {WeakMap<Guest, bigint>} */
const textEntries = new WeakMap();

/**
 * The entry for the kernel's text, as it was when this was first asked of a guest: ask right after
 * attaching, before the guest is bent.
 * @param {Guest} guest
 */
export function textEntry(guest) {
  const known = textEntries.get(guest);
  if (known !== undefined) return known;
  const entry = guest.memory.readU64(guest.kernel.root + TEXT_ENTRY);
  textEntries.set(guest, entry);
  return entry;
}

/**
 * A CR3 that is told is a page table of this kernel.
 * @param {Guest} guest
 * @param {bigint | null} cr3
 * @param {string} what
 */
function checkCr3(guest, cr3, what) {
  if (cr3 === null) return;
  const { memory } = guest;
  must(
    cr3 !== 0n && (cr3 & 0xfffn) === 0n && memory.contains(cr3, 4096n),
    () => `${what} is 0x${cr3.toString(16)}`,
  );
  const entry = memory.readU64(cr3 + TEXT_ENTRY);
  must(
    ((entry ^ textEntry(guest)) & PHYSICAL) === 0n,
    () => `${what} is 0x${cr3.toString(16)}, no page table of this kernel`,
  );
}

/** @param {Guest} guest @param {Task} task @returns {TaskJson} */
function checkTask(guest, task) {
  const row = task.toJSON();
  const who = `PID ${row.pid} at ${row.task}`;
  must(
    !/[\u0000-\u001f\u007f-\u009f]/.test(row.comm),
    () => `comm of ${who} is ${JSON.stringify(row.comm)}`,
  );
  must(row.commHex.length <= 32, () => `comm of ${who} has ${row.commHex.length / 2} bytes`);
  must(
    row.nsPids.length >= 1 && row.nsPids.length <= 33,
    () => `${who} is in ${row.nsPids.length} namespaces`,
  );
  must(
    (row.cr3 === null) === (row.pgd === null),
    () => `${who} has cr3 ${row.cr3} and pgd ${row.pgd}`,
  );
  must(
    (row.error === undefined) === (row.cr3Source !== 'corrupt'),
    () => `${who} has source ${row.cr3Source} and error ${row.error}`,
  );
  checkCr3(guest, row.cr3 === null ? null : BigInt(row.cr3), `cr3 of ${who}`);
  inspect(task);
  return row;
}

/** @param {Guest} guest @param {Iterable<Task>} tasks @returns {Rows} */
function rowsOf(guest, tasks) {
  /** @type {Rows} */ const rows = new Map();
  for (const task of tasks) rows.set(task.address, checkTask(guest, task));
  // A copied memory whose lists do not fit is listed by what can be proven, and says where it does
  // not.
  rows.partial = 'misfits' in tasks && /** @type {unknown[]} */ (tasks.misfits).length > 0;
  return rows;
}

/**
 * Structures, symbols and members that are asked of a guest whose kernel is described otherwise by
 * now.
 */
const TYPES = ['task_struct', 'mm_struct', 'list_head', 'pid', 'xa_node'];
const SYMBOLS = ['init_task', 'jiffies', 'no_such_symbol', 'schedule'];

/**
 * @param {Survey} survey
 * @param {import('./random.mjs').Random} random
 * @param {boolean} asking whether to ask for symbols and types too
 * @returns {Operation[]}
 */
export function operations(survey, random, asking) {
  const pid = random.pick(survey.pids);
  const cr3 = random.pick(survey.cr3s);
  const address = random.pick(survey.addresses);
  const none = (/** @type {unknown} */ _) => undefined;
  /** @type {Operation[]} */
  const list = [
    { name: 'tasks', run: (guest) => rowsOf(guest, guest.tasks()), lists: 'processes' },
    {
      name: 'tasks threads',
      run: (guest) => rowsOf(guest, guest.tasks({ threads: true })),
      lists: 'all',
    },
    {
      name: 'taskColumns',
      run: (guest) => {
        const columns = guest.taskColumns({ threads: true });
        must(columns.pid.length === columns.count, () => 'columns of several lengths');
        for (let row = 0; row < columns.count; row++) {
          const value = columns.cr3[row] ?? 0n;
          const source = columns.cr3Source[row] ?? 255;
          must(
            (value !== 0n) === (source >= 1 && source <= 4),
            () => `column cr3 0x${value.toString(16)} of source ${source}`,
          );
          checkCr3(guest, value || null, `column cr3 of PID ${columns.pid[row]}`);
        }
        return undefined;
      },
    },
    {
      name: 'task',
      run: (guest) => {
        const task = guest.task(pid);
        must(task.pid === pid, () => `task(${pid}) has PID ${task.pid}`);
        return rowsOf(guest, [task]);
      },
    },
    {
      name: 'findTask',
      run: (guest) =>
        none(guest.findTask(random.pick([1, 2, 3, 4096, 0x7fff_ffff, 1 + random.below(1 << 22)]))),
    },
    {
      name: 'pidToCr3',
      run: (guest) => {
        for (let i = 0; i < 4; i++) {
          const one = random.pick(survey.pids);
          checkCr3(guest, guest.pidToCr3(one), `pidToCr3(${one})`);
        }
        return undefined;
      },
    },
    {
      name: 'cr3ToTasks',
      run: (guest) => {
        for (const row of rowsOf(guest, guest.cr3ToTasks(cr3)).values())
          must(
            row.cr3 === `0x${cr3.toString(16)}`,
            () => `cr3ToTasks(0x${cr3.toString(16)}) has ${row.cr3}`,
          );
        return undefined;
      },
    },
    {
      name: 'cpus',
      run: (guest) => {
        for (const { task } of guest.cpus()) checkTask(guest, task);
        return undefined;
      },
    },
    {
      name: 'crossView',
      run: (guest) => {
        for (const { task, views } of guest.crossView()) {
          must(views.length > 0, () => 'a task that no view has');
          checkTask(guest, task);
        }
        return undefined;
      },
    },
    { name: 'read', run: (guest) => none(guest.read(address, 256)) },
    {
      name: 'read of a process',
      run: (guest) =>
        none(guest.read(random.pick([0x40_0000n, address, random.u64()]), 4097, { pid })),
    },
    {
      name: 'readString',
      run: (guest) =>
        none(guest.readString(random.pick(survey.addresses) + BigInt(random.below(4096)), 65_536)),
    },
    {
      name: 'translate',
      run: (guest) => {
        const { steps } = guest.walk(random.chance(50) ? address : random.u64(), { cr3 });
        must(steps.length <= guest.kernel.levels, () => `a walk of ${steps.length} levels`);
        guest.walk(address);
        return undefined;
      },
    },
    {
      name: 'mappings',
      run: (guest) =>
        none(guest.kernel.memory.mappings(0xffff_ffff_8000_0000n, 0xffff_ffff_c000_0000n)),
    },
  ];
  if (asking) {
    list.push(
      {
        name: 'symbols',
        run: (guest) => {
          for (const name of SYMBOLS) none(guest.kernel.symbols.find(name));
          none(
            guest.symbolAt(random.pick([0xffff_ffff_8100_0000n, 0n, survey.addresses[0] ?? 0n])),
          );
          guest.kernel.symbols.complete('sched_', 20);
          guest.symbol('no_such_symbol');
          return undefined;
        },
      },
      {
        name: 'types',
        run: (guest) => {
          for (const name of TYPES) {
            const type = guest.kernel.types.find(name);
            if (type === undefined) continue;
            for (const member of type.members.slice(0, 400)) {
              inspect(member.type, { depth: 1 });
              none(member.type.name);
              if (member.type.kind === 'enum') none(member.type.values.size);
            }
          }
          guest.type('no_such_type');
          return undefined;
        },
      },
    );
  }
  return list;
}

const NAMES = ['VmiError', 'FaultError', 'CorruptError'];

/**
 * The code of an error that an operation may end with.
 * @param {unknown} error
 * @returns {string | undefined}
 */
export function codeOf(error) {
  if (!(error instanceof Error) || !NAMES.includes(error.name)) return undefined;
  const { code } = /** @type {{ code?: unknown }} */ (/** @type {unknown} */ (error));
  return typeof code === 'string' && code.startsWith('VMI_') ? code : undefined;
}

/**
 * Tasks whose answer depends on nothing that was bent, and that are missing from a listing, or in
 * it with another answer.
 *
 * @param {Survey} survey
 * @param {import('./bend.mjs').Bend} bend
 * @param {Rows} baseline
 * @param {Rows} rows
 * @param {boolean} complete whether the listing must have all of the baseline's
 * @returns {string[]}
 */
export function differences(survey, bend, baseline, rows, complete) {
  const wrong = [];
  for (const { address, pid, reads } of survey.tasks) {
    const expected = baseline.get(address);
    if (expected === undefined) continue;
    const actual = rows.get(address);
    if (actual === undefined) {
      if (complete && !bend.hides) wrong.push(`PID ${pid} is missing`);
      continue;
    }
    const bent = bend.patches.some(({ at, bytes }) =>
      reads.some(({ start, end }) => at < end && at + BigInt(bytes.length) > start),
    );
    if (!bent && JSON.stringify(expected) !== JSON.stringify(actual))
      wrong.push(`PID ${pid} is ${JSON.stringify(actual)}, not ${JSON.stringify(expected)}`);
  }
  if (!bend.hides)
    for (const [address, row] of rows)
      if (!baseline.has(address)) wrong.push(`PID ${row.pid} at ${row.task} does not exist`);
  return wrong;
}
