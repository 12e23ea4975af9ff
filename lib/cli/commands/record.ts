import { writeFile } from 'node:fs/promises';
import type { Recorder } from '../../index.js';
import { bytesText } from '../../text/printable.js';
import { UsageError } from '../arguments.js';
import { ATTACH_OPTIONS, type Command, TARGET } from '../command.js';
import { EXIT } from '../exit-code.js';
import { OutputError } from '../output.js';
import { checkWritable } from '../whole-file.js';

export const record: Command = {
  name: 'record',
  summary: 'run commands and keep the pages they read: a small file that answers them again',
  operands: [
    TARGET,
    {
      name: 'COMMAND',
      many: true,
      summary: "commands without their target, after '--'; a comma between two of them",
      values: 'commands',
    },
  ],
  options: {
    output: { short: 'o', value: 'FILE', values: 'files', summary: 'where the recording goes' },
    core: {
      summary: 'an ELF core for crash and drgn instead, of the pages that were read',
    },
    pause: { summary: 'stop the guest meanwhile, so that all pages are of one moment' },
    ...ATTACH_OPTIONS,
  },
  details: [
    "The commands print what they always do. 'vmi COMMAND replay:FILE' then prints the same with no guest there; a question that was not recorded is refused. The file holds what was read of the guest's memory, which may be secret.",
  ],
  examples: [
    'vmi record qemu:4242 -o guest.rec -- ps , explain 1 , stacks',
    'vmi explain replay:guest.rec 1',
    'vmi record qemu:4242 --core -o guest.core -- ps',
  ],
  run(invocation) {
    const { operands, has, value, out, withGuest, runOn } = invocation;
    const file = value('output');
    if (file === undefined) throw new UsageError('Expected --output FILE');
    const commands = split(operands.slice(1));
    return withGuest(async (guest) => {
      await checkWritable(file);
      // The API is loaded by then: attaching did.
      const { Recorder } = await import('../../index.js');
      const pause = has('pause') ? await guest.pause() : undefined;
      let worst: number = EXIT.done;
      let recorder: Recorder;
      let packed: Buffer;
      try {
        recorder = await Recorder.start(guest);
        for (const words of commands) {
          worst = Math.max(worst, await runOn(words, () => recorder.attach()));
        }
        packed = has('core') ? recorder.packCore() : recorder.pack();
      } finally {
        await pause?.resume();
      }
      try {
        await writeFile(file, packed, { mode: 0o600 });
      } catch (error) {
        throw new OutputError(file, error);
      }
      const [pages, bytes] = [recorder.size, packed.length].map((size) => bytesText(BigInt(size)));
      out.note(`${file}: ${bytes}, of ${pages} that were read`);
      return worst;
    });
  },
};

/** @throws {UsageError} nothing before, between or after commas */
function split(words: readonly string[]): string[][] {
  const commands: string[][] = [[]];
  for (const word of words) {
    if (word === ',') commands.push([]);
    else commands.at(-1)!.push(word);
  }
  if (commands.some(({ length }) => length === 0)) {
    throw new UsageError("Expected commands with a comma between two of them, as in 'ps , stacks'");
  }
  return commands;
}
