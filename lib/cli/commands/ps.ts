import { ATTACH_OPTIONS, type Command, JSON_OPTION, TARGET } from '../command.js';
import { EXIT } from '../exit-code.js';
import { taskTable } from '../task-text.js';

/** Broken tasks that are named on standard error; the rest is counted. */
const MAX_NAMED = 5;

export const ps: Command = {
  name: 'ps',
  summary: 'list tasks, each with the value CR3 holds while it runs',
  operands: [TARGET],
  options: {
    threads: { short: 't', summary: 'every thread of every process, not only processes' },
    ...JSON_OPTION,
    ...ATTACH_OPTIONS,
  },
  details: [
    "SOURCE says where CR3 comes from: mm, the task's own; active_mm and loaded_mm, borrowed by a task that is on a CPU without one; thread, of a leader that exited before its threads; none, a kernel thread off the CPU; exited, a zombie. A kernel thread's name is in brackets.",
    'A task whose memory is damaged has the source "corrupt" and no CR3; the exit code is then 4.',
  ],
  examples: ['vmi ps qemu:4242', "vmi ps qemu:4242 --threads --json | jq -r '[.pid, .cr3] | @tsv'"],
  run({ has, out, withGuest }) {
    return withGuest((guest) => {
      const tasks = guest.tasks({ threads: has('threads') }).map((task) => task.toJSON());
      if (has('json')) out.json(tasks);
      else out.lines(taskTable(tasks, out.styles));
      const broken = tasks.filter((task) => task.error !== undefined);
      for (const task of broken.slice(0, MAX_NAMED)) out.error(task.error!);
      if (broken.length > MAX_NAMED) out.error(`… and ${broken.length - MAX_NAMED} more tasks like these`);
      return broken.length > 0 ? EXIT.memory : EXIT.done;
    });
  },
};
