import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const SWITCHES = fileURLToPath(new URL('../soak/switches.mjs', import.meta.url));

// How many switches are seen depends on the host; that every other one is counted, and that none
// has a wrong name, does not.
it.each([
  ['memfd', 'full'],
  ['anonymous', '500'],
])(
  'names and counts the switches of a guest with %s RAM as its own trace does',
  (backend, rate) => {
    const args = ['--seconds', '3', '--backend', backend, '--rate', rate, '--cpus', '2'];
    const { stdout, stderr } = spawnSync(process.execPath, [SWITCHES, ...args], {
      encoding: 'utf8',
      timeout: 110_000,
    });
    const line = stdout.trim().split('\n').at(-1) ?? '';
    if (!line.startsWith('{')) throw new Error(`the run did not end: ${stdout}${stderr}`);
    const result = JSON.parse(line);
    expect(result).toMatchObject({ backend, wrong: [], overrun: 0, dropped: 0 });
    expect(result.compared).toBeGreaterThan(20);
  },
);
