import { hex } from '../../errors.js';
import type { Fact } from '../../index.js';
import { printable } from '../../text/printable.js';
import { table } from '../../text/table.js';
import { parsePid, parsePlace } from '../arguments.js';
import { ATTACH_OPTIONS, type Command, JSON_OPTION, TARGET } from '../command.js';
import { EXIT } from '../exit-code.js';

export const what: Command = {
  name: 'what',
  summary: 'what an address is: symbol, task, stack, object of a cache, module, file',
  operands: [
    TARGET,
    { name: 'ADDRESS', summary: 'virtual address, or a symbol with or without +OFFSET' },
  ],
  options: {
    pid: { value: 'PID', summary: "ADDRESS is in this process's user memory" },
    ...JSON_OPTION,
    ...ATTACH_OPTIONS,
  },
  examples: [
    'vmi what qemu:4242 0xffff888003a40910',
    'vmi what qemu:4242 0x7ffd5c3a1000 --pid 871',
  ],
  run({ operands, has, value, out, withGuest }) {
    const place = parsePlace(operands[1]!);
    const pid = value('pid');
    const space = pid === undefined ? {} : { pid: parsePid(pid, '--pid') };
    return withGuest((guest) => {
      const facts = guest.whatIs(place(guest), space);
      if (has('json')) out.json(facts.map(toJson));
      else {
        const columns = [
          { heading: 'KIND', cell: ({ kind }: Fact) => kind },
          { heading: 'WHAT', cell: ({ text }: Fact) => printable(text) },
        ];
        out.lines(table(facts, columns, { headings: false }));
      }
      return facts.every(({ kind }) => kind === 'not mapped') ? EXIT.no : EXIT.done;
    });
  },
};

function toJson({ kind, text, object }: Fact): unknown {
  if (object === undefined) return { kind, text };
  return { kind, text, type: object.$type, address: hex(object.$address) };
}
