import { describe, expect, it } from 'vitest';
import { running } from '../../../lib/kernel/clock.js';

/** A kernel with a wall clock, whose ticks move or do not. */
function kernel(name: string, wall: bigint, moves: boolean, live: boolean) {
  let ticks = 1000n;
  return {
    name,
    memory: {
      physical: { live },
      begin: () => {},
      readU64: (address: bigint) => {
        if (address !== 0x10n) return wall;
        if (moves) ticks++;
        return ticks;
      },
    },
    symbols: {
      find: (symbol: string) =>
        symbol === 'jiffies_64' ? 0x10n : symbol === 'tk_core' ? 0x20n : undefined,
    },
    types: { findOffset: () => undefined, offset: () => 0 },
  };
}
type Made = ReturnType<typeof kernel>;
const choose = async (all: Made[]) =>
  ((await running(all as unknown as Parameters<typeof running>[0])) as unknown as Made | undefined)
    ?.name;

/** After a crash the dead kernel may show the later time: its successor reads the clock anew. */
describe('of two whole kernels', () => {
  const walls = [
    [100n, 200n],
    [200n, 100n],
    [100n, 100n],
  ] as const;
  const cases = walls.flatMap(([alive, dead]) =>
    [true, false].map((first) => [alive, dead, first] as const),
  );

  it.each(cases)(
    'the one whose clock moves runs: %d, the dead %d, first %s',
    async (a, d, first) => {
      const alive = kernel('alive', a, true, true);
      const dead = kernel('dead', d, false, true);
      expect(await choose(first ? [alive, dead] : [dead, alive])).toBe('alive');
    },
  );

  it.each([true, false])('the later time counts where no clock moves, live: %s', async (live) => {
    const early = kernel('early', 100n, false, live);
    const late = kernel('late', 200n, false, live);
    expect(await choose([early, late])).toBe('late');
    expect(await choose([late, early])).toBe('late');
  });

  it('there is nothing to choose of one, or of none', async () => {
    expect(await choose([kernel('one', 1n, false, true)])).toBe('one');
    expect(await choose([])).toBeUndefined();
  });
});
