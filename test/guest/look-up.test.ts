import { attach, CorruptError, type Guest } from 'node-libvmi';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';
import type { Truth } from '../lab/truth.mjs';

/** More than any look-up starts again. */
const ALWAYS = 1000;

describe.each(['anonymous', 'file'] as const)('a look-up in a guest with %s RAM', (backend) => {
  let lab: LabGuest;
  let truth: Truth;
  let guest: Guest;

  beforeAll(async () => {
    lab = await bootGuest({ backend, memory: 256, cpus: 1 });
    truth = await lab.truth();
    guest = await attach(`qemu:${lab.pid}`);
  });
  afterAll(async () => {
    await guest?.close();
    await lab?.close();
  });

  /** Does `work` while the first `times` walks of the PID tree end in `outcome`, as on a node that is another's by now. */
  function spoilt<T>(times: number, outcome: () => bigint, work: () => T): { result: T; spoilt: number } {
    const { memory } = guest.kernel;
    const { lookUp } = memory;
    let left = times;
    memory.lookUp = (...args) => (left-- > 0 ? outcome() : lookUp.apply(memory, args));
    try {
      return { result: work(), spoilt: times - Math.max(left, 0) };
    } finally {
      memory.lookUp = lookUp;
    }
  }
  const absent = () => 0n;
  const broken = () => {
    throw new CorruptError('the tree holds nonsense', 0n);
  };

  it.each([
    ['empty', absent],
    ['broken', broken],
  ])('does not take a tree for %s that was so once', (_, outcome) => {
    const expected = truth.task(1)?.cr3;
    expect(expected).toBeTypeOf('bigint');
    for (const times of [1, 2]) {
      expect(spoilt(times, outcome, () => guest.findTask(1)?.cr3)).toEqual({
        result: expected,
        spoilt: times,
      });
      expect(spoilt(times, outcome, () => guest.pidToCr3(1))).toEqual({ result: expected, spoilt: times });
    }
  });

  it('ends on one that stays so', () => {
    const gone = spoilt(ALWAYS, absent, () => guest.findTask(1));
    expect(gone.result).toBeUndefined();
    expect(gone.spoilt).toBeLessThan(8);
    expect(() => spoilt(ALWAYS, absent, () => guest.pidToCr3(1))).toThrow(
      expect.objectContaining({ code: 'VMI_NO_TASK' }),
    );
    expect(() => spoilt(ALWAYS, broken, () => guest.findTask(1))).toThrow(CorruptError);
    expect(() => spoilt(ALWAYS, broken, () => guest.pidToCr3(1))).toThrow(CorruptError);
  });
});
