import { TARGETS } from '../target.js';
import { version } from '../version.js';
import { type Command, GLOBAL_OPTIONS, INSTEAD, type Option, operandsText } from './command.js';
import { EXIT_HELP } from './exit-code.js';

/** The manual page vmi(1) as troff source in ASCII, made of what the help is made of. */
export function manPage(commands: readonly Command[]): string {
  return [
    `.TH VMI 1 "" ${quoted(`node-libvmi ${version()}`)} "User Commands"`,
    '.SH NAME',
    text('vmi - PID to CR3 and back, from outside a running Linux guest'),
    '.SH SYNOPSIS',
    `.B vmi`,
    text('COMMAND [TARGET] [ARGUMENTS] [OPTIONS]'),
    '.SH TARGETS',
    text('A target is one word:'),
    ...TARGETS.flatMap(({ prefix, name, summary }) => item(`${prefix}:${name}`, summary)),
    '.SH OPTIONS',
    text('Every command takes these:'),
    ...Object.entries(GLOBAL_OPTIONS).flatMap(optionItem),
    '.PP',
    text('Instead of a command:'),
    ...Object.entries(INSTEAD).flatMap(optionItem),
    '.SH COMMANDS',
    ...commands.flatMap(section),
    '.SH EXIT STATUS',
    ...EXIT_HELP.flatMap(([code, meaning]) => item(String(code), meaning)),
    '',
  ].join('\n');
}

function section(command: Command): string[] {
  return [
    `.SS ${quoted(`vmi ${operandsText(command)}`)}`,
    text(`${command.summary.charAt(0).toUpperCase()}${command.summary.slice(1)}.`),
    ...command.operands.flatMap(({ name, summary }) => item(name, summary)),
    ...Object.entries(command.options).flatMap(optionItem),
    ...(command.details ?? []).flatMap((paragraph) => ['.PP', text(paragraph)]),
    '.PP',
    text('Examples:'),
    ...command.examples.flatMap((example) => ['.PP', '.RS 4', '.nf', text(example), '.fi', '.RE']),
  ];
}

function optionItem([name, { short, value, summary }]: [string, Option]): string[] {
  const spelling = `${short === undefined ? '' : `-${short}, `}--${name}`;
  return item(`${spelling}${value === undefined ? '' : ` ${value}`}`, summary);
}

function item(term: string, meaning: string): string[] {
  return ['.TP', `\\fB${escaped(term)}\\fR`, text(meaning)];
}

/** A line of text, whatever it begins with. */
function text(line: string): string {
  return `\\&${escaped(line)}`;
}

/** The argument of a macro. */
function quoted(word: string): string {
  return `"${escaped(word)}"`;
}

const ESCAPES: Readonly<Record<string, string>> = {
  '\\': '\\(rs',
  '"': '\\(dq',
  "'": '\\(aq',
  '`': '\\(ga',
  '^': '\\(ha',
  '~': '\\(ti',
  '-': '\\-',
};

/** Characters that stand for themselves on every terminal, and can be copied from there. */
function escaped(word: string): string {
  return Array.from(word, (character) => {
    const point = character.codePointAt(0)!;
    return ESCAPES[character] ?? (point < 0x7f ? character : `\\[u${hexPoint(point)}]`);
  }).join('');
}

function hexPoint(point: number): string {
  return point.toString(16).toUpperCase().padStart(4, '0');
}
