import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const CHURN = fileURLToPath(new URL('../soak/churn.mjs', import.meta.url));

it.each(['file', 'anonymous'])(
  'walks a guest with %s RAM that forks, executes and exits, and none is wrong',
  (backend) => {
    const { stdout, stderr } = spawnSync(
      process.execPath,
      [CHURN, '--walks', '1500', '--backend', backend],
      {
        encoding: 'utf8',
        timeout: 100_000,
      },
    );
    const line = stdout.trim().split('\n').at(-1) ?? '';
    if (!line.startsWith('{')) throw new Error(`the run did not end: ${stdout}${stderr}`);
    const result = JSON.parse(line);
    expect(result).toMatchObject({ backend, wrong: [] });
    expect(result.walks + result.errorCount).toBe(1500);
    expect(result.errorCount).toBeLessThanOrEqual(1);
    // There was something to be wrong about.
    expect(result.lived).toBeGreaterThan(100);
    expect(result.tasks).toBeGreaterThan(result.lived);
    expect(result.cpus).toBe(2 * 1500);
    expect(result.switching).toBeLessThan(300);
  },
);
