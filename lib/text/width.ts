import { eastAsianWidth } from 'get-east-asian-width';

const ASCII = /^[\x20-\x7e]*$/;
/** Marks that stand on the character before them. */
const MARK = /\p{Mn}|\p{Me}/u;

/** Columns that a character takes in a terminal: two of Chinese, Japanese, Korean and emoji. */
function charWidth(char: string): number {
  return MARK.test(char) ? 0 : eastAsianWidth(char.codePointAt(0)!);
}

/** Columns that a line takes in a terminal; it has no control characters, as `printable` gives. */
export function textWidth(text: string): number {
  if (ASCII.test(text)) return text.length;
  let width = 0;
  for (const char of text) width += charWidth(char);
  return width;
}

/** The text with spaces before it up to so many columns. */
export function padLeft(text: string, width: number): string {
  return ' '.repeat(Math.max(0, width - textWidth(text))) + text;
}

/** The text with spaces after it up to so many columns. */
export function padRight(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - textWidth(text)));
}

/** Text of at most so many columns; that some was left out shows. */
export function cutText(text: string, width: number): string {
  if (textWidth(text) <= width) return text;
  if (width < 1) return '';
  let kept = '';
  let rest = width - 1;
  for (const char of text) {
    rest -= charWidth(char);
    if (rest < 0) break;
    kept += char;
  }
  return `${kept}…`;
}
