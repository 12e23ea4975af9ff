import { describe, expect, it } from 'vitest';
import { hexdump } from '../../../lib/text/hexdump.js';
import {
  bytesText,
  jsonLine,
  printable,
  printableLines,
  styles,
} from '../../../lib/text/printable.js';
import { pairs, table } from '../../../lib/text/table.js';

describe('printable', () => {
  it.each([
    ['plain text, ünïcode 漢字', 'plain text, ünïcode 漢字'],
    ['\u001b]0;owned\u0007', '\\x1b]0;owned\\x07'],
    ['\u009b31m', '\\x9b31m'],
    ['a\nb\tc\r', 'a\\nb\\tc\\x0d'],
    ['abc\u202edef', 'abc\\u{202e}def'],
    ['\ud800', '\\u{d800}'],
  ])('%j', (text, safe) => {
    expect(printable(text)).toBe(safe);
    expect(JSON.parse(jsonLine({ text }))).toEqual({ text });
    expect(jsonLine(text)).not.toMatch(/[\p{Cc}\p{Cf}]/u);
  });

  it('keeps line feeds where lines are meant', () => {
    expect(printableLines('a\nb\u001b')).toBe('a\nb\\x1b');
  });
});

describe('hexdump', () => {
  it('starts rows at the address it is given, across the end of the address space', () => {
    expect(hexdump(Buffer.from('0123456789abcdefgh\n'), 0xfffffffffffffff0n)).toEqual([
      '0xfffffffffffffff0  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  |0123456789abcdef|',
      '0x0                 67 68 0a                                          |gh.|',
    ]);
  });

  it('is empty for no bytes', () => {
    expect(hexdump(new Uint8Array(0))).toEqual([]);
  });
});

describe('table', () => {
  const columns = [
    { heading: 'N', align: 'right' as const, cell: (row: [number, string]) => String(row[0]) },
    { heading: 'TEXT', cell: (row: [number, string]) => row[1] },
  ];

  it('aligns, and lets no control character through', () => {
    expect(
      table(
        [
          [1, 'a'],
          [100, '\u001b[31m'],
        ],
        columns,
      ),
    ).toEqual(['  N  TEXT', '  1  a', '100  \\x1b[31m']);
    expect(table([[1, 'a']], columns, { headings: false })).toEqual(['1  a']);
    expect(table([], columns)).toEqual(['N  TEXT']);
  });

  it('colours the headings only', () => {
    expect(table([[1, 'a']], columns, { styles: styles(true) })).toEqual([
      '\u001b[1mN  TEXT\u001b[22m',
      '1  a',
    ]);
  });

  it('aligns pairs', () => {
    expect(
      pairs([
        ['a', '1'],
        ['long', '2'],
      ]),
    ).toEqual(['a     1', 'long  2']);
  });
});

describe('bytesText', () => {
  it.each([
    [0n, '0 B'],
    [4096n, '4 KiB'],
    [512n << 20n, '512 MiB'],
    [(7n << 30n) / 2n, '3.5 GiB'],
  ])('%s', (bytes, text) => {
    expect(bytesText(bytes)).toBe(text);
  });
});
