import { inspect, styleText } from 'node:util';

/**
 * What a terminal may act on or hide: control characters (C0 and C1), format characters, line
 * separators.
 */
const UNSAFE = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu;

/**
 * Text that is safe to print on one line. Names of symbols, types and guests come from elsewhere:
 * none of their bytes may reach a terminal as a command.
 */
export function printable(text: string): string {
  return text.replace(UNSAFE, escaped);
}

/** The same for text of several lines: line feeds stay. */
export function printableLines(text: string): string {
  return text.replace(UNSAFE, (char) => (char === '\n' ? char : escaped(char)));
}

/** One line of JSON that holds nothing a terminal acts on; `JSON.parse` gives `value` back. */
export function jsonLine(value: unknown): string {
  return escapedJson(JSON.stringify(value));
}

/** The same for JSON text of several lines. */
export function jsonSafe(text: string): string {
  return text.split('\n').map(escapedJson).join('\n');
}

function escapedJson(text: string): string {
  return text.replace(UNSAFE, (char) =>
    Array.from(
      { length: char.length },
      (_, i) => `\\u${char.charCodeAt(i).toString(16).padStart(4, '0')}`,
    ).join(''),
  );
}

/** Bytes for people: `512 MiB`, `3.5 GiB`. */
export function bytesText(bytes: bigint): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = Number(bytes);
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[unit]}`;
}

/** The styles that the faces use; each leaves text as it is where colours are off. */
export interface Styles {
  readonly bold: (text: string) => string;
  readonly dim: (text: string) => string;
  readonly green: (text: string) => string;
  readonly yellow: (text: string) => string;
  readonly red: (text: string) => string;
}

export function styles(colours: boolean): Styles {
  const style = (name: keyof Styles) => (colours ? (text: string) => paint(text, name) : plain);
  return {
    bold: style('bold'),
    dim: style('dim'),
    green: style('green'),
    yellow: style('yellow'),
    red: style('red'),
  };
}

/**
 * Text in one of Node's colours. Whether there are to be any is decided by then: by the stream that
 * the text goes to, which need not be standard output.
 */
export function paint(text: string, colour: string): string {
  if (!Object.hasOwn(inspect.colors, colour)) return text;
  const format = colour as Parameters<typeof styleText>[0];
  return styleText(format, text, { validateStream: false });
}

function plain(text: string): string {
  return text;
}

function escaped(char: string): string {
  const code = char.codePointAt(0)!;
  if (code === 0x0a) return '\\n';
  if (code === 0x09) return '\\t';
  return code <= 0xff ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u{${code.toString(16)}}`;
}
