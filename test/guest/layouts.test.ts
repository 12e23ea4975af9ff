import { afterEach, describe, expect, it } from 'vitest';
import { attach } from '../../lib/index.js';
import { compareTasks } from '../lab/compare.mjs';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';
import { startStandIn } from '../lab/stand-in-vmm.mjs';

const MIB = 1n << 20n;
/** RAM that is split where no rule of a machine puts it, and no monitor that tells. */
describe('RAM split at any place', () => {
  let lab: LabGuest;
  afterEach(() => lab?.close());

  it.each([
    [1024n, 1600, []],
    [3072n, 3200, ['two-blocks', 'one-memfd', 'with-hole']],
  ] as const)(
    'at %i MiB, by the command line and by the page tables',
    async (low, memory, vmms) => {
      lab = await bootGuest({
        suite: 'bookworm',
        flavour: 'cloud',
        cpus: 1,
        memory,
        backend: 'file',
        // q35 has no more than 2 GiB below the hole.
        machine: `${low > 2048n ? 'pc' : 'q35'},max-ram-below-4g=${low}M`,
        qmp: false,
      });
      const truth = await lab.truth({ freeze: 'halt' });
      await lab.stop();
      const targets = [`qemu:${lab.pid}`, `process:${lab.pid}`, `image:${lab.memoryPath}`];
      const standIns = await Promise.all(
        vmms.map((layout) => startStandIn(layout, lab.memoryPath!, low * MIB)),
      );
      for (const target of [...targets, ...standIns.map(({ pid }) => `process:${pid}`)]) {
        const guest = await attach(target, { cache: false });
        expect(guest.memory.ranges, target).toEqual([
          { start: 0n, length: low * MIB },
          { start: 4096n * MIB, length: (BigInt(memory) - low) * MIB },
        ]);
        const tasks = guest.tasks({ threads: true }).map((task) => task.toJSON());
        expect(compareTasks(truth, tasks), target).toEqual([]);
        await guest.close();
      }
      for (const standIn of standIns) await standIn.end();
    },
  );
});
