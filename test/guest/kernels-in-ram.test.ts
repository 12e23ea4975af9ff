import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attach, type Guest } from '../../lib/index.js';
import { compareTasks } from '../lab/compare.mjs';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';
import type { Truth } from '../lab/truth.mjs';

/**
 * A kernel that crashed and started another one: both are whole in RAM, and the CPU that did not
 * crash is parked in the dead one, so that even registers lead to both.
 */
describe('a crashed kernel, and the one that it started', () => {
  let lab: LabGuest;
  let session: Guest;
  let before: Truth;
  let after: Truth;
  const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-kernels-'));
  const core = join(folder, 'core');

  beforeAll(async () => {
    lab = await bootGuest({
      suite: 'bookworm',
      flavour: 'cloud',
      append: 'crashkernel=192M',
      crashKernel: true,
      backend: 'file',
      memory: 640,
    });
    session = await attach(`qemu:${lab.pid}`, { cache: false });
    expect(session.kernel.inRam).toHaveLength(1);
    before = await lab.truth();
    await lab.crash();
  });
  afterAll(async () => {
    await session?.close();
    await lab?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it('a session that was there before says that the guest changed, and is well again', async () => {
    expect(() => session.tasks()).toThrow(expect.objectContaining({ code: 'VMI_CHANGED' }));
    await session.reattach();
    expect(session.kernel.cpuCount).toBe(1);
    after = await lab.truth({ freeze: 'halt' });
    await lab.stop();
    await lab.dumpElf(core);
  });

  const sources = () => [`qemu:${lab.pid}`, `image:${lab.memoryPath}`, `image:${core}`];
  const listing = (guest: Guest) => guest.tasks({ threads: true }).map((task) => task.toJSON());

  it('the one that runs is attached, from everywhere', async () => {
    for (const source of sources()) {
      const guest = await attach(source, { cache: false });
      const { inRam, provenance } = guest.kernel;
      expect(provenance.chosen, source).toMatch(/^(all others have ended|its clock moves)$/);
      expect(inRam.map(({ number }) => number)).toEqual([1, 2]);
      const dead = inRam.find(({ chosen }) => !chosen);
      expect(dead?.ended, source).toMatch(/^panicked on CPU [01]$/);
      expect(compareTasks(after, listing(guest)), source).toEqual([]);
      await guest.close();
    }
  });

  it('the dead one is there for whoever asks for it, with all of its tasks', async () => {
    const stayed = before.tasks.filter(
      ({ pid, kind, cr3 }) => pid !== 0 && kind !== undefined && cr3,
    );
    expect(stayed.length).toBeGreaterThan(40);
    for (const source of sources()) {
      const first = await attach(source, { cache: false });
      const dead = first.kernel.inRam.find(({ chosen }) => !chosen)!.number;
      await first.close();
      const guest = await attach(source, { cache: false, kernel: dead });
      expect(guest.kernel.provenance.chosen).toBe('it was asked for');
      expect(guest.kernel.inRam.find(({ chosen }) => chosen)?.number).toBe(dead);
      const found = new Map(listing(guest).map((task) => [task.pid, task]));
      for (const { pid, startTime, comm } of stayed.filter((one) => one.kind === 'process'))
        expect(found.get(pid)?.startTime, `${comm} in ${source}`).toBe(String(startTime));
      await guest.close();
      await expect(attach(source, { cache: false, kernel: 3 })).rejects.toMatchObject({
        code: 'VMI_ATTACH',
        message: expect.stringContaining('there is no kernel 3 in this memory'),
      });
    }
  });
});
