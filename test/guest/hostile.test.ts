import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const BENT = fileURLToPath(new URL('../soak/bent.mjs', import.meta.url));

/**
 * The short form of the soak test: a child does the work, so that a crash or a hang fails a test
 * and not the run.
 */
function bent(...args: string[]): { lines: string[]; totals: Record<string, number> } {
  const { stdout, stderr } = spawnSync(process.execPath, [BENT, ...args], {
    encoding: 'utf8',
    timeout: 110_000,
    maxBuffer: 1 << 26,
  });
  const lines = stdout.trim().split('\n');
  const last = lines.pop() ?? '';
  if (!last.startsWith('{"suite"')) throw new Error(`the run did not end: ${last}\n${stderr}`);
  return { lines, totals: JSON.parse(last) as Record<string, number> };
}

describe('a guest whose memory lies', () => {
  it('never gets another answer than a right one or an error of its own', () => {
    const { lines, totals } = bent('--bends', '270', '--attaches', '0', '--jobs', '2');
    expect(lines).toEqual([]);
    expect(totals).toMatchObject({ failures: 0, bends: 270 });
    expect(totals.operations).toBeGreaterThan(3000);
  });

  it('is attached to rightly, or not at all', () => {
    const { lines, totals } = bent(
      '--bends',
      '30',
      '--attaches',
      '100',
      '--jobs',
      '2',
      '--from',
      '7000',
    );
    expect(lines).toEqual([]);
    expect(totals).toMatchObject({ failures: 0, bends: 30, attaches: 30 });
    // Most bends are not in the way: were none attached to, nothing was tested.
    expect(totals.attached).toBeGreaterThan(5);
  });
});
