import { ATTACH_OPTIONS, type Command, TARGET, WRITE_OPTION } from '../command.js';
import { EXIT } from '../exit-code.js';

export const repl: Command = {
  name: 'repl',
  summary: "Node's REPL with the guest loaded",
  operands: [TARGET],
  options: { ...WRITE_OPTION, ...ATTACH_OPTIONS },
  details: [
    'Lines that are piped in are run, and their results printed; the exit code is then 0. History is kept in $NODE_LIBVMI_HISTORY, by default ~/.local/state/node-libvmi/repl_history; an empty value keeps none.',
  ],
  examples: ['vmi repl qemu:4242', "echo 'hex(cr3(1))' | vmi repl qemu:4242"],
  run({ withGuest, env }) {
    return withGuest(async (guest) => {
      // Node's repl is loaded by this command only: it doubles the start-up time of the others.
      const { startRepl } = await import('../../repl/repl.js');
      await startRepl(guest, { input: process.stdin, output: process.stdout, env });
      return EXIT.done;
    });
  },
};
