import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, vi } from 'vitest';
import { GuestWatch } from '../../../lib/guest/guest-watch.js';
import { Kernel } from '../../../lib/kernel/kernel.js';
import { buildGuest } from '../kernel/support/build-guest.js';
import { fakeAddon, fakePhysicalMemory } from '../support/fake-memory.js';

vi.mock('../../../lib/addon.js', () => ({ addon: () => fakeAddon }));

/** Longer than the time between two looks at whether the guest is the same. */
const NEXT_LOOK = 30;

async function watched() {
  const built = buildGuest({ tasks: true });
  const look = () => ({ sameRam: true, registers: undefined, running: true });
  const memory = fakePhysicalMemory(built.memory, undefined, { look });
  const kernel = await Kernel.load(memory, { cache: false });
  return { built, kernel, watch: new GuestWatch(kernel) };
}

describe('the watch over a guest', () => {
  it('takes no failed read for a reset', async () => {
    const { built, watch } = await watched();
    for (const nth of [1, 2]) {
      await sleep(NEXT_LOOK);
      const { log } = built.memory;
      built.memory.emptyAt = log.length + nth;
      expect(watch.ask(() => 'an answer')).toBe('an answer');
      built.memory.emptyAt = 0;
    }
    await sleep(NEXT_LOOK);
    expect(watch.ask(() => 'an answer')).toBe('an answer');
  });

  it('says of another banner that the guest was reset, and goes on saying so', async () => {
    const { built, watch } = await watched();
    await sleep(NEXT_LOOK);
    built.ram.write('Linux version 6.9.9', Number(built.at('linux_banner')));
    const reset = expect.objectContaining({ code: 'VMI_CHANGED' });
    expect(() => watch.ask(() => 'an answer')).toThrow(reset);
    expect(() => watch.ask(() => 'an answer')).toThrow(reset);
  });
});
