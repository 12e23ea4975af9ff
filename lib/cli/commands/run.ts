import { existsSync } from 'node:fs';
import { VmiError } from '../../errors.js';
import { UsageError } from '../arguments.js';
import { ATTACH_OPTIONS, type Command, TARGET, WRITE_OPTION } from '../command.js';
import { EXIT } from '../exit-code.js';

export const run: Command = {
  name: 'run',
  summary: 'run a script with the guest and every helper as globals',
  operands: [
    TARGET,
    {
      name: 'SCRIPT',
      many: true,
      optional: true,
      values: 'files',
      summary: 'an ES module, and what it finds in process.argv',
    },
  ],
  options: {
    eval: { short: 'e', value: 'CODE', summary: 'run this code instead; an expression is printed' },
    ...WRITE_OPTION,
    ...ATTACH_OPTIONS,
  },
  details: [
    "The script has the globals of the REPL: guest, ps(), task(), variable(), vmas() and so on. It may await at its top level, and print with console.log. What it throws ends it: a failure of the guest's with the exit codes of vmi, anything else with 1.",
  ],
  examples: [
    'vmi run qemu:4242 ./watch.mjs 871',
    `vmi run qemu:4242 -e "variable('init_task').comm"`,
    `vmi run qemu:4242 -e 'for (const { fd, path } of files(1)) console.log(fd, path)'`,
  ],
  run({ operands, value, out, withGuest }) {
    const code = value('eval');
    const [, script, ...rest] = operands;
    if ((code === undefined) === (script === undefined)) {
      throw new UsageError('Expected either SCRIPT or --eval CODE');
    }
    if (script !== undefined && !existsSync(script))
      throw new UsageError(`there is no script ${script}`);
    return withGuest(async (guest) => {
      // Node's repl is loaded by few commands only: it doubles the start-up time of the others.
      const { runScript } = await import('../../repl/script.js');
      try {
        const shown = await runScript(guest, { path: script, code, args: rest });
        if (shown !== undefined) out.line(shown);
      } catch (error) {
        if (error instanceof VmiError) throw error;
        out.error(error instanceof Error ? (error.stack ?? error.message) : String(error));
        return EXIT.no;
      }
      return Number(process.exitCode ?? EXIT.done);
    });
  },
};
