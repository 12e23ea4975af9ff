import { hex } from '../../errors.js';
import type { CrossList, Guest, TaskJson, TaskList } from '../../index.js';
import { taskTable } from '../../text/task.js';
import type { CrossJson, TaskColumnName } from '../../text/task-columns.js';
import { onlyOne } from '../arguments.js';
import { ATTACH_OPTIONS, type Command, JSON_OPTION, TARGET } from '../command.js';
import { EXIT } from '../exit-code.js';
import type { Output } from '../output.js';
import { SELECTION_OPTIONS, taskSelection } from '../task-selection.js';

/** Broken tasks that are named on standard error; the rest is counted. */
const MAX_NAMED = 5;

export const ps: Command = {
  name: 'ps',
  summary: 'list tasks, each with the value CR3 holds while it runs',
  operands: [TARGET],
  options: {
    threads: { short: 't', summary: 'every thread of every process, not only processes' },
    cross: {
      summary: 'compare every list that the kernel keeps of its tasks; show those that one lacks',
    },
    ...SELECTION_OPTIONS,
    ...JSON_OPTION,
    ...ATTACH_OPTIONS,
  },
  details: [
    "SOURCE says where CR3 comes from: mm, the task's own; active_mm and loaded_mm, borrowed by a task that is on a CPU without one; thread, of a leader that exited before its threads; none, a kernel thread off the CPU; exited, a zombie. A kernel thread's name is in brackets.",
    'Of an image that was copied while its guest ran, every task that can be proven is listed; where its lists do not fit is said on standard error, and the exit code is 4.',
    'A task whose memory is damaged has the source "corrupt" and no CR3; the exit code is then 4.',
    'The exit code is 1 when no task is as --comm, --uid, --state and --only ask.',
    'With --cross the list of processes, the threads of each, the PID tree and what the CPUs run are joined. A task that its kind of list lacks, in MISSING, is one that something hides or that a bug has lost; FOUND is where it was met. The exit code is 1 when there is such a task. With --json every task and thread is printed, with the fields "views" and "missing".',
  ],
  examples: [
    'vmi ps qemu:4242',
    "vmi ps qemu:4242 --threads --json | jq -r '[.pid, .cr3] | @tsv'",
    'vmi ps qemu:4242 --cross',
    'vmi ps qemu:4242 --only user --tree',
    "vmi ps qemu:4242 --comm 'ssh*' --sort start --columns pid,start,cr3,comm",
  ],
  run(invocation) {
    const { has, out, withGuest } = invocation;
    onlyOne(invocation, 'cross', 'threads');
    for (const option of Object.keys(SELECTION_OPTIONS)) onlyOne(invocation, 'cross', option);
    const { columns, isFiltered, select } = taskSelection(invocation);
    return withGuest((guest) => {
      if (has('cross')) return cross(guest, out, has('json'));
      const list = guest.tasks({ threads: has('threads') });
      const tasks = select(list.map((task) => task.toJSON()));
      if (tasks.length > 0 || !isFiltered) print(tasks, out, has('json'), columns);
      else out.error(`none of ${list.length} tasks is as asked`);
      const none = tasks.length === 0 ? EXIT.no : EXIT.done;
      return Math.max(none, tellBroken(tasks, out), tellMisfits(list, out));
    });
  },
};

function cross(guest: Guest, out: Output, json: boolean): number {
  const rows = guest.crossView();
  const all = rows.map(
    ({ task, views, missing }): CrossJson => ({ ...task.toJSON(), views, missing }),
  );
  const hidden = all.filter(({ missing }) => missing.length > 0);
  if (json || hidden.length > 0) print(json ? all : hidden, out, json);
  const tasks = `${all.length} tasks and threads`;
  const { torn = [] } = rows;
  const whole = torn.length === 0 ? 'every view' : 'every view that is whole';
  out.note(
    hidden.length === 0
      ? `${tasks}: ${whole} has all of them`
      : `${tasks}, ${hidden.length} of them missing from a view`,
  );
  if (torn.length > 0) out.note(`not whole, so that nothing is said of it: ${torn.join(', ')}`);
  const code = hidden.length > 0 ? EXIT.no : EXIT.done;
  return Math.max(code, tellBroken(all, out), tellMisfits(rows, out));
}

function print(
  tasks: readonly TaskJson[],
  out: Output,
  json: boolean,
  columns?: readonly TaskColumnName[],
): void {
  if (json) out.json(tasks);
  else out.lines(taskTable(tasks, out.styles, columns));
}

/** Says where the lists of a copied memory do not fit. @returns the exit code */
function tellMisfits({ misfits, length }: TaskList | CrossList, out: Output): number {
  if (misfits === undefined || misfits.length === 0) return EXIT.done;
  out.error(
    `the lists of this image do not close, as in a copy of a guest that ran, or one that was cut short: these are the ${length} tasks that could be proven, there may have been others`,
  );
  for (const { address, why } of misfits.slice(0, MAX_NAMED)) out.error(`${hex(address)}: ${why}`);
  if (misfits.length > MAX_NAMED) out.error(`… and ${misfits.length - MAX_NAMED} more like these`);
  return EXIT.memory;
}

/** Names damaged tasks on standard error. @returns the exit code */
function tellBroken(tasks: readonly TaskJson[], out: Output): number {
  const broken = tasks.filter((task) => task.error !== undefined);
  for (const task of broken.slice(0, MAX_NAMED)) out.error(task.error!);
  if (broken.length > MAX_NAMED)
    out.error(`… and ${broken.length - MAX_NAMED} more tasks like these`);
  return broken.length > 0 ? EXIT.memory : EXIT.done;
}
