import { hex } from '../../errors.js';
import type { Guest } from '../../index.js';
import { hexdump } from '../../text/hexdump.js';
import {
  onlyOne,
  parseAddressOperand,
  parseBytes,
  parsePlace,
  parseSpace,
  UsageError,
} from '../arguments.js';
import { ATTACH_OPTIONS, type Command, SPACE_OPTIONS, TARGET } from '../command.js';
import { EXIT } from '../exit-code.js';

/** Most bytes that are written at once: a command line is no way to load a file. */
const MOST = 65_536;

export const write: Command = {
  name: 'write',
  summary: "write the guest's memory, with --yes; without, show what would be written",
  operands: [
    TARGET,
    {
      name: 'ADDRESS',
      summary: 'virtual address, or a symbol with or without +OFFSET; physical with --physical',
    },
    { name: 'BYTES', summary: 'pairs of hex digits: 90 90, 0f0b; text with --text' },
  ],
  options: {
    yes: { summary: 'write; the guest is opened read-only without' },
    text: { summary: 'BYTES is text, written as UTF-8 without a NUL' },
    physical: { summary: 'ADDRESS is guest-physical' },
    'read-only': { summary: 'write also where the guest maps the page read-only' },
    ...SPACE_OPTIONS,
    ...ATTACH_OPTIONS,
  },
  details: [
    'All bytes are written, or none where a page of them is not mapped. A page that the guest maps read-only may be shared with others (code, a page that is copied when it is written) and is refused.',
  ],
  examples: [
    'vmi write qemu:4242 panic_timeout 05000000 --yes',
    'vmi write qemu:4242 0x7ffd5c3a1000 hello --text --pid 871 --yes',
  ],
  run(invocation) {
    const { operands, out, has, withGuest } = invocation;
    onlyOne(invocation, 'physical', 'pid', 'cr3');
    onlyOne(invocation, 'physical', 'read-only');
    const space = parseSpace(invocation);
    const physical = has('physical');
    const address = physical ? parseAddressOperand(operands[1]!) : undefined;
    const place = address === undefined ? parsePlace(operands[1]!) : () => address;
    const bytes = has('text') ? Buffer.from(operands[2]!) : parseBytes(operands[2]!);
    if (bytes.length < 1 || bytes.length > MOST)
      throw new UsageError(`Expected 1 to ${MOST} bytes but received ${bytes.length}`);
    return withGuest((guest: Guest) => {
      const at = place(guest);
      const old = physical
        ? guest.readPhysical(at, bytes.length)
        : guest.read(at, bytes.length, space);
      if (has('yes') && physical) guest.writePhysical(at, bytes);
      else if (has('yes')) guest.write(at, bytes, { ...space, readOnly: has('read-only') });
      out.lines(hexdump(old, at).map((line) => `- ${line}`));
      out.lines(hexdump(bytes, at).map((line) => `+ ${line}`));
      if (!has('yes')) out.note(`nothing was written at ${hex(at)}: repeat it with --yes`);
      return EXIT.done;
    });
  },
};
