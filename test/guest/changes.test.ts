import { afterEach, describe, expect, it } from 'vitest';
import { attach, ChangedError, type Guest } from '../../lib/index.js';
import { compareTasks } from '../lab/compare.mjs';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';

/** Every question of a guest that reads its memory. */
const QUESTIONS: Readonly<Record<string, (guest: Guest) => unknown>> = {
  tasks: (guest) => guest.tasks({ threads: true }),
  taskColumns: (guest) => guest.taskColumns(),
  task: (guest) => guest.task(1),
  findTask: (guest) => guest.findTask(1),
  pidToCr3: (guest) => guest.pidToCr3(1),
  cr3ToTasks: (guest) => guest.cr3ToTasks(guest.kernel.root),
  crossView: (guest) => guest.crossView(),
  cpus: (guest) => guest.cpus(),
  read: (guest) => guest.read(guest.symbol('linux_banner'), 8),
  readPhysical: (guest) => guest.readPhysical(0x1000n, 8),
  readString: (guest) => guest.readString(guest.symbol('linux_banner')),
  translate: (guest) => guest.translate(guest.symbol('linux_banner')),
};

describe('a guest that changes under a session', () => {
  let lab: LabGuest;
  let guest: Guest;
  afterEach(async () => {
    await guest?.close();
    await lab?.close();
  });

  const everyQuestionSays = (what: string) => {
    for (const [name, ask] of Object.entries(QUESTIONS)) {
      let error: unknown;
      try {
        ask(guest);
      } catch (thrown) {
        error = thrown;
      }
      expect(error, name).toBeInstanceOf(ChangedError);
      expect(error, name).toMatchObject({ code: 'VMI_CHANGED' });
      expect((error as Error).message, name).toContain(what);
    }
  };
  const isWellAgain = async () => {
    await guest.reattach();
    const truth = await lab.truth({ freeze: 'halt' });
    await lab.stop();
    const tasks = guest.tasks({ threads: true }).map((task) => task.toJSON());
    expect(compareTasks(truth, tasks)).toEqual([]);
    for (const [name, ask] of Object.entries(QUESTIONS))
      expect(() => ask(guest), name).not.toThrow();
    await lab.cont();
  };

  it.each(['monitor', 'no monitor'])('is reset, with %s', async (how) => {
    lab = await bootGuest({
      suite: 'bookworm',
      flavour: 'cloud',
      reboot: true,
      qmp: how === 'monitor',
    });
    guest = await attach(`qemu:${lab.pid}`);
    expect(guest.tasks().length).toBeGreaterThan(50);
    await lab.reboot();
    everyQuestionSays('was reset');
    await isWellAgain();
  });

  it('gets memory plugged, in which new tasks are', async () => {
    lab = await bootGuest({
      suite: 'bookworm',
      flavour: 'cloud',
      append: 'memhp_default_state=online',
      extraArgs: ['-m', '512M,slots=2,maxmem=2G'],
    });
    guest = await attach(`qemu:${lab.pid}`);
    const before = guest.memory.size;
    const memory = { 'qom-type': 'memory-backend-ram', id: 'more', size: 512 << 20 };
    await lab.qmp('object-add', memory);
    await lab.qmp('device_add', { driver: 'pc-dimm', id: 'dimm', memdev: 'more' });
    // All that is asked still has its answer, as long as nothing of it is in the new memory.
    expect(guest.pidToCr3(1)).not.toBeNull();
    await lab.command('tasks 3000');
    everyQuestionSays('memory was plugged into it');
    await isWellAgain();
    expect(guest.memory.size).toBe(before + BigInt(512 << 20));
  });
});
