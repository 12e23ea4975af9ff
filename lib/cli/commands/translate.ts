import { hex } from '../../errors.js';
import { entryFlags, walkText, whyNotMapped } from '../../text/walk.js';
import { onlyOne, parseAddressOperand, parsePlace, parseSpace } from '../arguments.js';
import {
  ATTACH_OPTIONS,
  type Command,
  type Invocation,
  JSON_OPTION,
  SPACE_OPTIONS,
  TARGET,
} from '../command.js';
import { EXIT } from '../exit-code.js';

export const translate: Command = {
  name: 'translate',
  summary:
    'virtual to physical: every level of the page walk; of a PV guest of Xen, machine addresses both ways',
  operands: [
    TARGET,
    { name: 'ADDRESS', summary: 'virtual address, or a symbol with or without +OFFSET' },
  ],
  options: {
    machine: {
      summary: "ADDRESS is the machine's: print what a PV guest of Xen calls its physical address",
    },
    physical: {
      summary: 'ADDRESS is what a PV guest of Xen calls physical: print the machine address',
    },
    ...SPACE_OPTIONS,
    ...JSON_OPTION,
    ...ATTACH_OPTIONS,
  },
  details: [
    'The exit code is 1 when the address is not mapped; the levels that were walked are printed all the same.',
    'Page tables and CR3 of a PV guest of Xen hold machine addresses. The last line is then the guest\'s own number of that page, which the guest calls physical ("pseudo-physical" in Xen\'s words).',
  ],
  examples: [
    'vmi translate qemu:4242 init_task',
    'vmi translate qemu:4242 0x400000 --pid 871',
    'vmi translate xen:web --machine $(vmi cr3 xen:web 1)',
  ],
  run(invocation) {
    const { operands, out, has, withGuest } = invocation;
    const space = parseSpace(invocation);
    onlyOne(invocation, 'machine', 'physical', 'pid', 'cr3');
    if (has('machine') || has('physical')) return translateFrame(invocation, has('machine'));
    const place = parsePlace(operands[1]!);
    return withGuest((guest) => {
      const walk = guest.walk(place(guest), space);
      const own =
        walk.physical === undefined || guest.kernel.p2m === undefined
          ? undefined
          : { pseudoPhysical: guest.toPhysical(walk.physical) };
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
            ...(own === undefined
              ? {}
              : {
                  pseudoPhysical: own.pseudoPhysical === undefined ? null : hex(own.pseudoPhysical),
                }),
          },
        ]);
      } else {
        out.lines(walkText(walk, out.styles, own));
      }
      const why = whyNotMapped(walk, guest.kernel.levels);
      if (why === undefined) return EXIT.done;
      out.error(why);
      return EXIT.no;
    });
  },
};

/** Machine to pseudo-physical, or back. */
function translateFrame(
  { operands, out, has, withGuest }: Invocation,
  fromMachine: boolean,
): Promise<number> {
  const address = parseAddressOperand(operands[1]!, 'ADDRESS');
  return withGuest((guest) => {
    const found = fromMachine ? guest.toPhysical(address) : guest.toMachine(address);
    const [machine, physical] = fromMachine ? [address, found] : [found, address];
    const text = (value: bigint | undefined) => (value === undefined ? null : hex(value));
    if (has('json')) out.json([{ machine: text(machine), physical: text(physical) }]);
    else if (found !== undefined) out.lines([hex(found)]);
    if (found !== undefined) return EXIT.done;
    out.error(
      fromMachine
        ? `the frame at ${hex(address)} of the machine is none of this guest's`
        : `the guest has no frame of its own at ${hex(address)}`,
    );
    return EXIT.no;
  });
}
