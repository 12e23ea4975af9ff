import { ATTACH_OPTIONS, type Command, TARGET } from '../command.js';
import { EXIT } from '../exit-code.js';

export const types: Command = {
  name: 'types',
  summary: "the kernel's structures as TypeScript declarations, for an editor",
  operands: [TARGET],
  options: {
    output: {
      short: 'o',
      value: 'FILE',
      values: 'files',
      summary: 'write to a file instead of standard output',
    },
    ...ATTACH_OPTIONS,
  },
  details: [
    "With the file in a project's tsconfig.json, guest.object('task_struct', …) completes and is checked.",
  ],
  examples: ['vmi types qemu:4242 -o guest.d.ts'],
  run({ value, out, withGuest }) {
    const file = value('output');
    return withGuest(async (guest) => {
      const pieces = guest.editorTypes();
      if (file === undefined) {
        for (const piece of pieces) {
          out.text(piece);
          await out.drained();
        }
      } else {
        const { writeWhole } = await import('../whole-file.js');
        await writeWhole(file, pieces);
      }
      return EXIT.done;
    });
  },
};
