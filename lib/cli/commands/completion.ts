import { UsageError } from '../arguments.js';
import { type Command, INSTEAD } from '../command.js';
import type { Shell } from '../completion/completion.js';
import { EXIT } from '../exit-code.js';

/** Every shell: the help does not load what writes its script. */
const SHELLS: Readonly<Record<Shell, true>> = { bash: true, zsh: true, fish: true };
const NAMES = Object.keys(SHELLS) as Shell[];

export const completion: Command = {
  name: 'completion',
  summary: 'print what makes a shell complete commands, options and targets of vmi',
  operands: [{ name: 'SHELL', values: NAMES, summary: `one of ${NAMES.join(', ')}` }],
  options: {},
  details: [
    'bash: a line in ~/.bashrc. zsh: a file _vmi in a directory of $fpath, or a line in ~/.zshrc behind compinit. fish: a file vmi.fish in ~/.config/fish/completions.',
  ],
  examples: [
    'eval "$(vmi completion bash)"',
    'eval "$(vmi completion zsh)"',
    'vmi completion fish > ~/.config/fish/completions/vmi.fish',
  ],
  async run({ operands: [given], commands, out }) {
    const shell = NAMES.find((name) => name === given);
    if (shell === undefined)
      throw new UsageError(`Expected SHELL as one of ${NAMES.join(', ')} but received '${given}'`);
    const { completionScript } = await import('../completion/completion.js');
    out.text(completionScript(shell, commands, INSTEAD));
    return EXIT.done;
  },
};
