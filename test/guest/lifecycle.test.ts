import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';

const CHILD = fileURLToPath(new URL('../lifecycle/child.mjs', import.meta.url));
const STEPS = ['attach', 'tasks', 'pause', 'resume', 'close'] as const;
/** How a child ends after its last step, and how that looks from outside. */
const ENDS = {
  return: { status: 0, signal: null },
  exit: { status: 0, signal: null },
  throw: { status: 1, signal: null },
  SIGTERM: { status: null, signal: 'SIGTERM' },
  SIGKILL: { status: null, signal: 'SIGKILL' },
} as const;

describe.each(['anonymous', 'file'] as const)(
  'a process that reads a guest with %s RAM',
  (backend) => {
    let lab: LabGuest;
    const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-test-'));

    beforeAll(async () => {
      lab = await bootGuest({ backend, memory: 256, cpus: 2, tasks: 10 });
    });
    afterAll(async () => {
      await lab?.close();
      rmSync(folder, { recursive: true, force: true });
    });

    const running = async () => ((await lab.qmp('query-status')) as { running: boolean }).running;

    /**
     * Whether the guest runs, soon: the guard of a pause takes a moment to see that a process died.
     */
    async function runsAgain(): Promise<boolean> {
      for (let tries = 0; tries < 100; tries++) {
        if (await running()) return true;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      return false;
    }

    function child(...args: string[]) {
      const { status, signal, stdout, stderr } = spawnSync(
        process.execPath,
        ['--expose-gc', CHILD, String(lab.pid), ...args],
        { encoding: 'utf8', timeout: 60_000, env: { ...process.env, XDG_CACHE_HOME: folder } },
      );
      return { status, signal, said: stdout.trim().split('\n'), stderr };
    }

    // How RAM is reached matters little to a process that is killed.
    const ends = (Object.keys(ENDS) as (keyof typeof ENDS)[]).filter(
      (end) => backend === 'anonymous' || end === 'return' || end === 'SIGKILL',
    );
    describe.each(ends)('that ends by %s', (end) => {
      it.each(STEPS)('after %s, lets go of the guest', async (last) => {
        const { status, signal, said, stderr } = child('steps', last, end);
        expect({ status, signal, stderr }).toEqual({
          ...ENDS[end],
          stderr: end === 'throw' ? expect.stringContaining('thrown on purpose') : '',
        });
        expect(said.at(-1)).toBe(last);
        expect(await runsAgain()).toBe(true);
      });
    });

    it('has the guest stopped while it is paused', async () => {
      // Were the guest never stopped, the tests above would prove nothing.
      const { said } = child('paused');
      expect(said).toEqual(['false']);
      expect(await runsAgain()).toBe(true);
    });

    it('ends worker threads in mid-read', () => {
      const { status, signal, said, stderr } = child('workers');
      expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: '' });
      expect(said).toEqual(['8 terminated, 0 descriptors more']);
    });

    it('leaves no descriptor when a guest is forgotten, not closed', () => {
      const { status, said, stderr } = child('forget');
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      expect(said).toEqual(['0 descriptors more, 0 mappings more']);
    });
  },
);
