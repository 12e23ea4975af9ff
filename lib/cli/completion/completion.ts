import type { Command, Option } from '../command.js';
import { bashCompletion } from './bash.js';
import { fishCompletion } from './fish.js';
import { zshCompletion } from './zsh.js';

export type Shell = 'bash' | 'zsh' | 'fish';

/**
 * A script that completes `vmi`'s commands, options, values of closed sets and targets in a shell.
 * @param instead what may stand where a command does
 */
export function completionScript(
  shell: Shell,
  commands: readonly Command[],
  instead: Readonly<Record<string, Option>>,
): string {
  switch (shell) {
    case 'bash':
      return bashCompletion(commands, instead);
    case 'zsh':
      return zshCompletion(commands, instead);
    case 'fish':
      return fishCompletion(commands, instead);
  }
}
