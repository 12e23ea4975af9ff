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
    // Both ways into the tree: entry by entry, and with what it leads to.
    const { memory } = guest.kernel;
    const { lookUp, finder } = memory;
    memory.lookUp = (...args) => walk(BigInt, () => lookUp.apply(memory, args));
    memory.finder = (...args) => {
      const { row, find } = finder.apply(memory, args);
      return { row, find: (index) => walk(Number, () => find(index)) };
    };
  });
  afterAll(async () => {
    await guest?.close();
    await lab?.close();
  });

  /** Walks of the PID tree that are still to end in `outcome`. */
  let left = 0;
  let outcome = () => 0n;
  const walk = <T>(as: (entry: bigint) => T, really: () => T): T =>
    left-- > 0 ? as(outcome()) : really();

  /**
   * Does `work` while the first `times` walks of the PID tree end in `end`, as on a node that is
   * another's by now.
   */
  function spoilt<T>(
    times: number,
    end: () => bigint,
    work: () => T,
  ): { result: T; spoilt: number } {
    left = times;
    outcome = end;
    try {
      return { result: work(), spoilt: times - Math.max(left, 0) };
    } finally {
      left = 0;
    }
  }
  const absent = () => 0n;
  const broken = () => {
    throw new CorruptError('the tree holds nonsense', 0n);
  };

  it.each([
    ['empty', absent],
    ['broken', broken],
  ])('does not take a tree for %s that was so once', (_, end) => {
    const expected = truth.task(1)?.cr3;
    expect(expected).toBeTypeOf('bigint');
    for (const times of [1, 2]) {
      expect(spoilt(times, end, () => guest.findTask(1)?.cr3)).toEqual({
        result: expected,
        spoilt: times,
      });
      expect(spoilt(times, end, () => guest.pidToCr3(1))).toEqual({
        result: expected,
        spoilt: times,
      });
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
