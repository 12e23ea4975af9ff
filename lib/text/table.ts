import { printable, type Styles } from './printable.js';
import { padLeft, padRight, textWidth } from './width.js';

/** A column: its heading, and which side its cells stand on. */
export interface Column<Row> {
  readonly heading: string;
  readonly align?: 'right';
  readonly cell: (row: Row) => string;
}

/**
 * Rows as lines of aligned text; the last column is not padded. `headings: false` leaves the first
 * line out.
 */
export function table<Row>(
  rows: Iterable<Row>,
  columns: readonly Column<Row>[],
  options: { readonly headings?: boolean; readonly styles?: Styles } = {},
): string[] {
  const cells = Array.from(rows, (row) => columns.map((column) => printable(column.cell(row))));
  const headings = columns.map((column) => column.heading);
  const lines = options.headings === false ? cells : [headings, ...cells];
  const widths = columns.map((_, k) =>
    lines.reduce((width, line) => Math.max(width, textWidth(line[k]!)), 0),
  );
  const text = lines.map((line) =>
    line
      .map((cell, k) => {
        if (columns[k]!.align === 'right') return padLeft(cell, widths[k]!);
        return k === columns.length - 1 ? cell : padRight(cell, widths[k]!);
      })
      .join('  ')
      .trimEnd(),
  );
  if (options.headings !== false && options.styles !== undefined)
    text[0] = options.styles.bold(text[0]!);
  return text;
}

/** Names and values, one a line, values aligned. */
export function pairs(
  rows: readonly (readonly [name: string, value: string])[],
  styles?: Styles,
): string[] {
  const width = rows.reduce((most, [name]) => Math.max(most, textWidth(name)), 0);
  return rows.map(([name, value]) => {
    const label = padRight(name, width);
    return `${styles?.bold(label) ?? label}  ${printable(value)}`.trimEnd();
  });
}
