import { hex } from '../../errors.js';
import { cpuTable } from '../../text/task.js';
import { ATTACH_OPTIONS, type Command, JSON_OPTION, TARGET } from '../command.js';
import { EXIT } from '../exit-code.js';

export const cpus: Command = {
  name: 'cpus',
  summary: 'show what each CPU runs, and which CR3 it has loaded',
  operands: [TARGET],
  options: {
    registers: { summary: "all registers of each vCPU instead, by the hypervisor's numbers" },
    ...JSON_OPTION,
    ...ATTACH_OPTIONS,
  },
  details: [
    'Read from the guest\'s memory. PID 0 is a CPU\'s idle task; "-" for CR3 means that the CPU was in the middle of a switch. With "(switching)" it is known what the CPU has loaded, but not that it is the task\'s.',
  ],
  examples: ['vmi cpus qemu:4242', 'vmi cpus qemu:4242 --registers'],
  run({ has, out, withGuest }) {
    return withGuest(async (guest) => {
      if (has('registers')) {
        for (const { vcpu, ...registers } of await guest.registers()) {
          const named = Object.entries(registers).map(([name, value]) => [name, hex(value)]);
          if (has('json')) out.json([{ vcpu, ...Object.fromEntries(named) }]);
          else out.lines([`vCPU ${vcpu}`, ...named.map(([name, value]) => `  ${name} ${value}`)]);
        }
        return EXIT.done;
      }
      const found = guest.cpus();
      if (has('json')) {
        out.json(
          found.map(({ cpu, task, cr3, switching }) => ({
            cpu,
            cr3: cr3 === null ? null : hex(cr3),
            switching,
            pid: task.pid,
            tgid: task.tgid,
            comm: task.comm,
            task: hex(task.address),
          })),
        );
      } else {
        out.lines(cpuTable(found, out.styles, guest.memory.addressing));
      }
      return EXIT.done;
    });
  },
};
