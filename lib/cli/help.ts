import { TARGETS } from '../target.js';
import { pairs } from '../text/table.js';
import { type Command, GLOBAL_OPTIONS, INSTEAD, type Option, operandsText } from './command.js';
import { COMMANDS } from './commands.js';
import { EXIT_HELP } from './exit-code.js';

const WIDTH = 92;

/** `vmi --help`. */
export function generalHelp(): string[] {
  return [
    'vmi: PID to CR3 and back, from outside a running Linux guest',
    '',
    'usage: vmi COMMAND [TARGET] [ARGUMENTS] [OPTIONS]',
    '',
    ...pairs(COMMANDS.map((command) => [`  ${operandsText(command)}`, command.summary])),
    '',
    'A target is one word:',
    ...pairs(TARGETS.map(({ prefix, name, summary }) => [`  ${prefix}:${name}`, summary])),
    '',
    'Options of every command:',
    ...optionLines(GLOBAL_OPTIONS),
    '',
    'Instead of a command:',
    ...optionLines(INSTEAD),
    '',
    'Exit codes:',
    ...pairs(EXIT_HELP.map(([code, meaning]) => [String(code).padStart(5), meaning])),
    '',
    "Start with 'vmi doctor' and 'vmi list'; 'vmi COMMAND --help' says more of each.",
  ];
}

/** `vmi COMMAND --help`. */
export function commandHelp(command: Command): string[] {
  const lines = [
    `vmi ${command.name}: ${command.summary}`,
    '',
    `usage: vmi ${operandsText(command)} [OPTIONS]`,
    '',
  ];
  if (command.operands.length > 0) {
    lines.push(
      ...pairs(command.operands.map((operand) => [`  ${operand.name}`, operand.summary])),
      '',
    );
  }
  lines.push('Options:', ...optionLines({ ...command.options, ...GLOBAL_OPTIONS }), '');
  for (const paragraph of command.details ?? []) lines.push(...wrapText(paragraph), '');
  lines.push('Examples:', ...command.examples.map((example) => `  ${example}`));
  return lines;
}

function optionLines(options: Readonly<Record<string, Option>>): string[] {
  return pairs(
    Object.entries(options).map(([name, option]) => {
      const short = option.short === undefined ? '    ' : `-${option.short}, `;
      return [
        `  ${short}--${name}${option.value === undefined ? '' : ` ${option.value}`}`,
        option.summary,
      ];
    }),
  );
}

function wrapText(text: string): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + word.length >= WIDTH) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}
