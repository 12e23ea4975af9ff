import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  fullTable,
  type MatrixRow,
  parseTable,
  readmeTable,
  withTable,
} from '../lab/matrix-table.mjs';

const text = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

describe('the guest matrix', () => {
  const rows = parseTable(text('docs/matrix.md'));

  it('agrees with the oracle in every cell', () => {
    expect(rows.length).toBeGreaterThanOrEqual(40);
    expect(rows.filter(({ verdict }) => verdict !== 'agrees')).toEqual([]);
    expect(text('docs/matrix.md')).toContain(`\n${rows.length} of ${rows.length} cells agree`);
  });

  it('is the one that the README shows', () => {
    expect(withTable(text('README.md'), rows)).toBe(text('README.md'));
  });

  const some: MatrixRow[] = [
    {
      guest: 'bookworm: a | b, 5 levels',
      kernel: '6.1.0-50-cloud-amd64',
      sources: 'qemu',
      tasks: 3,
      verdict: 'agrees',
    },
    {
      guest: 'bookworm: PTI by CPU model',
      kernel: '6.1.0-50-amd64',
      sources: 'qemu, image',
      tasks: 4,
      verdict: 'PID 1: no',
    },
    { guest: 'sid: 8 GiB', kernel: '–', sources: '', tasks: 0, verdict: 'skipped: needs 8192 MiB' },
  ];

  it('is read back as it was written', () => {
    expect(parseTable(fullTable(some))).toEqual(some);
  });

  it('counts what differs as differing, and what was skipped not at all', () => {
    const [head, , line, ...more] = readmeTable(some).split('\n');
    const cells = (row = '') => row.split('|').map((cell) => cell.trim());
    const of = Object.fromEntries(cells(head).map((name, at) => [name, cells(line)[at]]));
    expect(of).toMatchObject({
      kernel: '6.1 cloud, generic',
      '4 levels': '0 of 1',
      '5 levels': '1',
      PTI: '0 of 1',
      'no KASLR': '–',
      'by `qemu`': '1 of 2',
      all: '1 of 2',
    });
    expect(more).toEqual([]);
  });

  it('has a place in the README', () => {
    expect(() => withTable('# README', some)).toThrow('has no place for the matrix');
  });
});
