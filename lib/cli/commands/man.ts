import type { Command } from '../command.js';
import { EXIT } from '../exit-code.js';

export const man: Command = {
  name: 'man',
  summary: 'print the manual page of vmi, for man and groff',
  operands: [],
  options: {},
  details: ["A package that npm installed globally has it where 'man vmi' finds it."],
  examples: ['vmi man | man -l -', 'vmi man > /usr/local/share/man/man1/vmi.1'],
  async run({ commands, out }) {
    const { manPage } = await import('../man-page.js');
    out.text(manPage(commands));
    return EXIT.done;
  },
};
