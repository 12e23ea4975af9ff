import { afterEach, describe, expect, it } from 'vitest';
import { attach } from '../../lib/index.js';
import { compareTasks } from '../lab/compare.mjs';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';

const MIB = 1n << 20n;

/** RAM that is split where no rule of a machine puts it, and no monitor that tells. */
describe('RAM split at any place', () => {
  let lab: LabGuest;
  afterEach(() => lab?.close());

  it.each([
    [1024n, 1600],
    [2048n, 2300],
  ])('at %i MiB, by the command line and by the page tables', async (low, memory) => {
    lab = await bootGuest({
      suite: 'bookworm',
      flavour: 'cloud',
      cpus: 1,
      memory,
      backend: 'file',
      machine: `q35,max-ram-below-4g=${low}M`,
      qmp: false,
    });
    const truth = await lab.truth({ freeze: 'halt' });
    await lab.stop();
    for (const target of [`qemu:${lab.pid}`, `image:${lab.memoryPath}`]) {
      const guest = await attach(target, { cache: false });
      expect(guest.memory.ranges, target).toEqual([
        { start: 0n, length: low * MIB },
        { start: 4096n * MIB, length: (BigInt(memory) - low) * MIB },
      ]);
      const tasks = guest.tasks({ threads: true }).map((task) => task.toJSON());
      expect(compareTasks(truth, tasks), target).toEqual([]);
      await guest.close();
    }
  });
});
