import { hex } from '../../errors.js';
import type { Task } from '../../index.js';
import { table } from '../../text/table.js';
import { whyCr3 } from '../../text/task.js';
import { parsePid } from '../arguments.js';
import { ATTACH_OPTIONS, type Command, JSON_OPTION, TARGET } from '../command.js';
import { answerEach } from '../each.js';

export const cr3: Command = {
  name: 'cr3',
  summary: 'PID to CR3: the value CR3 holds while a task runs',
  operands: [
    TARGET,
    {
      name: 'PID',
      many: true,
      summary: 'PID or TID in the initial PID namespace; - for those on standard input',
    },
  ],
  options: { ...JSON_OPTION, ...ATTACH_OPTIONS },
  details: [
    'One PID prints the value alone; several print PID, CR3 and where it comes from. "none" is an answer: a kernel thread off the CPU has no address space, and an exited task no longer has one.',
    "The value is the physical address of the page global directory, without PCID. Under page-table isolation it is the kernel's half; --json has the user's half as userCr3.",
    'In a PV guest of Xen it is the machine address of the page global directory that the kernel runs on; the one of user mode is userCr3.',
  ],
  examples: [
    'vmi cr3 qemu:4242 1',
    'vmi cr3 qemu:4242 1 2 871',
    'vmi cr3 image:/tmp/guest.elf 1 --json',
  ],
  async run({ words, has, out, withGuest }) {
    const pids = (await words(1)).map((text) => parsePid(text));
    return withGuest((guest) => {
      const found: { task: Task; value: bigint | null }[] = [];
      const code = answerEach(out, pids, (pid) => {
        const task = guest.task(pid);
        found.push({ task, value: task.cr3 });
      });
      if (has('json')) {
        out.json(found.map(({ task }) => task));
        return code;
      }
      if (pids.length === 1) out.lines(found.map(({ value }) => text(value)));
      else {
        out.lines(
          table(
            found,
            [
              { heading: 'PID', cell: ({ task }) => String(task.pid) },
              { heading: 'CR3', cell: ({ value }) => text(value) },
              { heading: 'SOURCE', cell: ({ task }) => task.cr3Source },
            ],
            { headings: false },
          ),
        );
      }
      if (found.length > 0 && guest.memory.addressing === 'machine')
        out.note('a PV guest of Xen: CR3 holds an address of the machine');
      for (const { task } of found) {
        const why = whyCr3(task, task.cr3Source);
        if (why !== undefined) out.note(why);
      }
      return code;
    });
  },
};

function text(value: bigint | null): string {
  return value === null ? 'none' : hex(value);
}
