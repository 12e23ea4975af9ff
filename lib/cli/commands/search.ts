import { hex } from '../../errors.js';
import { parseBytes, parseLength, parsePid, UsageError } from '../arguments.js';
import { ATTACH_OPTIONS, type Command, JSON_OPTION, TARGET } from '../command.js';
import { EXIT } from '../exit-code.js';

export const search: Command = {
  name: 'search',
  summary: 'search RAM, or a process, for text or bytes',
  operands: [TARGET, { name: 'TEXT', summary: 'text in UTF-8; with --hex, bytes as hex digits' }],
  options: {
    hex: { summary: 'TEXT is bytes: 7f454c46' },
    pid: { value: 'PID', summary: "search this process's user memory, as far as it is present" },
    max: { value: 'N', summary: 'stop after so many places' },
    ...JSON_OPTION,
    ...ATTACH_OPTIONS,
  },
  details: [
    "Each line has the physical address, and the virtual one: the process's with --pid, in the kernel's direct map otherwise. The exit code is 1 when nothing is found.",
  ],
  examples: [
    "vmi search qemu:4242 'BEGIN RSA PRIVATE KEY'",
    'vmi search qemu:4242 7f454c46 --hex --pid 871',
  ],
  run({ operands, has, value, out, withGuest }) {
    const pattern = has('hex') ? parseBytes(operands[1]!) : Buffer.from(operands[1]!);
    if (pattern.length < 1 || pattern.length > 256) {
      throw new UsageError(`Expected 1 to 256 bytes to search for but received ${pattern.length}`);
    }
    const pid = value('pid');
    const most = value('max');
    const space = pid === undefined ? {} : { pid: parsePid(pid, '--pid') };
    const max = most === undefined ? Number.POSITIVE_INFINITY : parseLength(most, '--max');
    return withGuest(async (guest) => {
      let count = 0;
      for await (const { address, physical } of guest.search(pattern, space)) {
        if (has('json')) out.json([{ physical: hex(physical), address: hex(address) }]);
        else out.line(`${hex(physical)}  ${hex(address)}`);
        await out.drained();
        if (++count >= max) break;
      }
      return count === 0 ? EXIT.no : EXIT.done;
    });
  },
};
