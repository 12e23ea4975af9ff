import { FaultError, hex } from '../../errors.js';
import { hexdump } from '../../text/hexdump.js';
import { onlyOne, parseAddressOperand, parseLength, parsePlace, parseSpace } from '../arguments.js';
import { ATTACH_OPTIONS, type Command, JSON_OPTION, SPACE_OPTIONS, TARGET } from '../command.js';
import { EXIT } from '../exit-code.js';
import type { Output } from '../output.js';

/** Bytes that are read at once: a dump of any size takes this much memory. */
const PIECE = 1 << 20;

export const read: Command = {
  name: 'read',
  summary: "dump the guest's memory",
  operands: [
    TARGET,
    {
      name: 'ADDRESS',
      summary: 'virtual address, or a symbol with or without +OFFSET; physical with --physical',
    },
    { name: 'LENGTH', summary: 'bytes, decimal or 0x…' },
  ],
  options: {
    physical: { summary: 'ADDRESS is guest-physical' },
    ...SPACE_OPTIONS,
    raw: { summary: 'write the bytes themselves to standard output' },
    ...JSON_OPTION,
    ...ATTACH_OPTIONS,
  },
  details: [
    'Where memory ends before LENGTH, what was read before it is printed, and the exit code is 4.',
    'With --json each object has address, length and the bytes in hex, at most 1 MiB an object.',
  ],
  examples: [
    'vmi read qemu:4242 linux_banner 64',
    'vmi read qemu:4242 0x7ffd5c3a1000 0x100 --pid 871',
    'vmi read qemu:4242 0 4096 --physical --raw > page',
  ],
  run(invocation) {
    const { operands, out, has, withGuest } = invocation;
    onlyOne(invocation, 'raw', 'json');
    onlyOne(invocation, 'physical', 'pid', 'cr3');
    const physical = has('physical');
    const space = parseSpace(invocation);
    const place = physical ? constant(parseAddressOperand(operands[1]!)) : parsePlace(operands[1]!);
    const length = parseLength(operands[2]!);
    const print = has('raw') ? printRaw : has('json') ? printJson : printDump;
    return withGuest(async (guest) => {
      const start = place(guest);
      const take = (address: bigint, bytes: number) =>
        physical ? guest.readPhysical(address, bytes) : guest.read(address, bytes, space);
      for (let done = 0; done < length; done += PIECE) {
        const address = start + BigInt(done);
        const want = Math.min(PIECE, length - done);
        try {
          print(out, take(address, want), address);
          await out.drained();
        } catch (error) {
          if (error instanceof FaultError && error.transferred > 0) {
            print(out, take(address, error.transferred), address);
          }
          throw error;
        }
      }
      return EXIT.done;
    });
  },
};

function constant(address: bigint): () => bigint {
  return () => address;
}

function printRaw(out: Output, bytes: Uint8Array): void {
  out.bytes(bytes);
}

function printJson(out: Output, bytes: Buffer, address: bigint): void {
  out.json([{ address: hex(address), length: bytes.length, bytes: bytes.toString('hex') }]);
}

function printDump(out: Output, bytes: Uint8Array, address: bigint): void {
  out.lines(hexdump(bytes, address));
}
