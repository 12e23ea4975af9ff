// @ts-check
/**
 * The results of the guest matrix as tables: all of it for docs/matrix.md, and what the README
 * shows of it.
 */

/**
 * @typedef {{ guest: string, kernel: string, sources: string, tasks: number, verdict: string }}
 * MatrixRow
 */

export const AGREES = 'agrees';
const START = '<!-- matrix: written by npm run test:matrix -- --write -->';
const END = '<!-- /matrix -->';

/**
 * What the README counts a guest under; some are under several. @type {[string, (row: MatrixRow) =>
 * boolean][]}
 */
const COLUMNS = [
  ['4 levels', ({ guest }) => !guest.includes('5 levels')],
  ['5 levels', ({ guest }) => guest.includes('5 levels')],
  ['PTI', ({ guest }) => /isolation|PTI/.test(guest)],
  ['no KASLR', ({ guest }) => guest.includes('no KASLR')],
  ['3–8 GiB', ({ guest }) => /\b[3-8] GiB/.test(guest)],
  ['NUMA, DIMMs', ({ guest }) => /NUMA|DIMM/.test(guest)],
  ['warm resets', ({ guest }) => guest.includes('resets')],
  ['no monitor', ({ guest }) => guest.includes('no monitor')],
  ['by `qemu`', ({ sources }) => sources.includes('qemu')],
  ['by `image`', ({ sources }) => sources.includes('image')],
  ['all', () => true],
];

/** @param {MatrixRow[]} rows @returns {string} a Markdown table with a line for each guest */
export function fullTable(rows) {
  return table(
    ['guest', 'kernel', 'sources', 'tasks', 'verdict'],
    '|---|---|---|---:|---|',
    rows.map(({ guest, kernel, sources, tasks, verdict }) => [
      guest,
      kernel,
      sources,
      String(tasks),
      verdict,
    ]),
  );
}

/** Reads back what {@link fullTable} wrote. @param {string} markdown @returns {MatrixRow[]} */
export function parseTable(markdown) {
  const lines = markdown.split('\n').filter((line) => line.startsWith('| '));
  return lines.slice(1).map((line) => {
    const [guest = '', kernel = '', sources = '', tasks = '', verdict = ''] = line
      .slice(2, -2)
      .split(/ (?<!\\)\| /)
      .map((cell) => cell.replaceAll('\\|', '|'));
    return { guest, kernel, sources, tasks: Number(tasks), verdict };
  });
}

/** How many guests of every kernel and layout agree with the oracle. @param {MatrixRow[]} rows */
export function readmeTable(rows) {
  const ran = rows.filter(({ verdict }) => !verdict.startsWith('skipped'));
  /** @type {Map<string, MatrixRow[]>} */
  const kernels = new Map();
  for (const row of ran) {
    const kernel = /^\d+\.\d+/.exec(row.kernel)?.[0] ?? row.kernel;
    kernels.set(kernel, [...(kernels.get(kernel) ?? []), row]);
  }
  const count = (/** @type {MatrixRow[]} */ some) => {
    const agreeing = some.filter(({ verdict }) => verdict === AGREES).length;
    if (some.length === 0) return '–';
    return agreeing === some.length ? String(agreeing) : `${agreeing} of ${some.length}`;
  };
  const line = (/** @type {string} */ name, /** @type {MatrixRow[]} */ some) => [
    name,
    ...COLUMNS.map(([, counts]) => count(some.filter(counts))),
  ];
  return table(
    ['kernel', ...COLUMNS.map(([name]) => name)],
    `|---|${'---:|'.repeat(COLUMNS.length)}`,
    [
      ...[...kernels].map(([kernel, some]) => line(flavours(kernel, some), some)),
      ...(kernels.size > 1 ? [line('all', ran)] : []),
    ],
  );
}

/** Debian's builds of a kernel. @param {string} kernel @param {MatrixRow[]} rows */
function flavours(kernel, rows) {
  const flavour = (/** @type {string} */ release) => /-(cloud|rt)-/.exec(release)?.[1] ?? 'generic';
  return `${kernel} ${[...new Set(rows.map((row) => flavour(row.kernel)))].sort().join(', ')}`;
}

/**
 * Puts the table where the README has one.
 * @param {string} readme
 * @param {MatrixRow[]} rows
 * @returns {string}
 */
export function withTable(readme, rows) {
  const start = readme.indexOf(START);
  const end = readme.indexOf(END);
  if (start < 0 || end < start)
    throw new Error(`README.md has no place for the matrix: ${START} … ${END}`);
  return `${readme.slice(0, start + START.length)}\n${readmeTable(rows)}\n${readme.slice(end)}`;
}

/** @param {string[]} head @param {string} rule @param {string[][]} rows */
function table(head, rule, rows) {
  const line = (/** @type {string[]} */ cells) =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), rule, ...rows.map(line)].join('\n');
}
