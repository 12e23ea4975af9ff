import { hex } from '../../errors.js';
import { taskTable } from '../../text/task.js';
import { parseAddressOperand } from '../arguments.js';
import { ATTACH_OPTIONS, type Command, JSON_OPTION, TARGET } from '../command.js';
import { EXIT } from '../exit-code.js';

export const who: Command = {
  name: 'who',
  summary: 'CR3 to tasks: every task that runs on an address space',
  operands: [
    TARGET,
    {
      name: 'CR3',
      many: true,
      summary: 'any value a CR3 register or event can hold; - for standard input',
    },
  ],
  options: { ...JSON_OPTION, ...ATTACH_OPTIONS },
  details: [
    "PCID, no-flush and LAM bits are ignored, and the user's half of a page-table pair counts as its kernel half. Threads, vfork and CLONE_VM children share one CR3; a kernel thread that is on a CPU borrows one.",
    'With --json each task has the field "value": the CR3 it was asked for by.',
  ],
  examples: ['vmi who qemu:4242 0x3acec000', 'vmi who qemu:4242 $(vmi cr3 qemu:4242 1)'],
  async run({ words, has, out, withGuest }) {
    const values = (await words(1)).map((text) => parseAddressOperand(text, 'CR3'));
    return withGuest((guest) => {
      let code: number = EXIT.done;
      const lists = guest.cr3ToTasks(values);
      const found = values.flatMap((value, i) => {
        const running = lists[i]!;
        const tasks = running.map((task) => task.toJSON());
        if (running.corrupt.length > 0) {
          const pids = running.corrupt.map((task) => task.pid);
          out.error(
            `${pids.length} ${pids.length === 1 ? 'task names' : 'tasks name'} an address space that cannot be read, and may run on ${hex(value)} too: PID ${pids.slice(0, 16).join(', ')}${pids.length > 16 ? ', …' : ''}`,
          );
        }
        if (tasks.length === 0) {
          code = EXIT.no;
          const base = guest.cr3Base(value);
          out.error(
            running.kernel
              ? `no task runs on ${hex(value)}: it is the kernel's own page table, which a CPU without a task has loaded`
              : `no task runs on ${hex(value)} (page table at ${hex(base)})`,
          );
        }
        return tasks.map((task) => ({ value: hex(value), ...task }));
      });
      if (has('json')) out.json(found);
      else if (found.length > 0) out.lines(taskTable(found, out.styles));
      return code;
    });
  },
};
