import { hex } from '../../errors.js';
import { parsePlace, parseSpace } from '../arguments.js';
import { ATTACH_OPTIONS, type Command, JSON_OPTION, SPACE_OPTIONS, TARGET } from '../command.js';
import { EXIT } from '../exit-code.js';
import { entryFlags, walkText, whyNotMapped } from '../walk-text.js';

export const translate: Command = {
  name: 'translate',
  summary: 'virtual to physical: every level of the page walk',
  operands: [TARGET, { name: 'ADDRESS', summary: 'virtual address, or a symbol with or without +OFFSET' }],
  options: { ...SPACE_OPTIONS, ...JSON_OPTION, ...ATTACH_OPTIONS },
  details: [
    'The exit code is 1 when the address is not mapped; the levels that were walked are printed all the same.',
  ],
  examples: ['vmi translate qemu:4242 init_task', 'vmi translate qemu:4242 0x400000 --pid 871'],
  run(invocation) {
    const { operands, out, has, withGuest } = invocation;
    const space = parseSpace(invocation);
    const place = parsePlace(operands[1]!);
    return withGuest((guest) => {
      const walk = guest.translate(place(guest), space);
      if (has('json')) {
        out.json([
          {
            address: hex(walk.address),
            root: hex(walk.root),
            steps: walk.steps.map((step) => ({
              level: step.level,
              entryAddress: hex(step.entryAddress),
              entry: hex(step.entry),
              present: step.present,
              leaf: step.leaf,
              flags: entryFlags(step),
            })),
            physical: walk.physical === undefined ? null : hex(walk.physical),
            pageSize: walk.pageSize === undefined ? null : Number(walk.pageSize),
          },
        ]);
      } else {
        out.lines(walkText(walk, out.styles));
      }
      const why = whyNotMapped(walk, guest.kernel.levels);
      if (why === undefined) return EXIT.done;
      out.error(why);
      return EXIT.no;
    });
  },
};
