import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attach, type Guest } from '../../lib/index.js';
import { libvmiReport } from '../../lib/libvmi/report.js';
import { compareTasks, expectedCr3 } from '../lab/compare.mjs';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';
import type { Truth } from '../lab/truth.mjs';

const report = libvmiReport();
const reason = report.loaded ? '' : ` – skipped: ${report.error ?? 'libvmi is not installed'}`;
if (!report.loaded) console.warn(`libvmi tests${reason}`);

describe.skipIf(!report.loaded).each(['bookworm', 'trixie'] as const)(
  `through libvmi's file driver, Debian %s${reason}`,
  (suite) => {
    let lab: LabGuest;
    let guest: Guest;
    let truth: Truth;

    beforeAll(async () => {
      lab = await bootGuest({ suite, flavour: 'cloud', backend: 'file', memory: 512 });
      guest = await attach(`libvmi:${lab.memoryPath}`);
      truth = await lab.truth({ freeze: 'halt' });
    });
    afterAll(async () => {
      await guest?.close();
      await lab?.close();
    });

    it('lists every task and thread as the oracle does', () => {
      const tasks = guest.tasks({ threads: true }).map((task) => task.toJSON());
      expect(compareTasks(truth, tasks)).toEqual([]);
    });

    it('answers for every PID and the way back', () => {
      for (const task of truth.tasks.filter(
        ({ kind }) => kind === 'process' || kind === 'thread',
      )) {
        const { cr3 } = expectedCr3(truth, task);
        expect(guest.pidToCr3(task.pid), `PID ${task.pid}`).toBe(cr3);
      }
      const { cr3 } = guest.task(1);
      expect(guest.cr3ToTasks(cr3!).some((task) => task.pid === 1)).toBe(true);
    });

    it('sees what changed since the last look', async () => {
      await lab.thaw();
      const before = guest.tasks().length;
      await lab.command('tasks 25');
      expect(guest.tasks().length).toBe(before + 25);
    });
  },
);
