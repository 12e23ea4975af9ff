import { describe, expect, it } from 'vitest';
import { VmiError } from '../../../lib/errors.js';
import { chooseKernel, kernelsText } from '../../../lib/kernel/choose.js';

const JIFFIES = 0x10n;
const CLOCK = 0x20n;
const PANIC_CPU = 0x30n;
const STATE = 0x40n;
const SYMBOLS: Readonly<Record<string, bigint>> = {
  jiffies_64: JIFFIES,
  tk_core: CLOCK,
  panic_cpu: PANIC_CPU,
  system_state: STATE,
};
const SYSTEM_RESTART = 5;

interface Facts {
  readonly wall?: bigint;
  readonly moves?: boolean;
  readonly live?: boolean;
  readonly panicked?: boolean;
  readonly restarted?: boolean;
  readonly source?: string;
}

let placed = 0n;
/** A kernel with a wall clock, whose ticks move or do not. */
function kernel(release: string, facts: Facts = {}) {
  const { wall = 100n, moves = false, live = false, source = 'vmcoreinfo' } = facts;
  let ticks = 1000n;
  placed += 0x20_0000n;
  return {
    release,
    candidate: { source, image: { physical: placed } },
    image: { root: 0n, pageOffset: 0n },
    memory: {
      physical: { live },
      begin: () => {},
      readU64: (address: bigint) => {
        if (address !== JIFFIES) return wall;
        if (moves) ticks++;
        return ticks;
      },
      readU32: (address: bigint) => {
        if (address === PANIC_CPU) return facts.panicked ? 1 : 0xffff_ffff;
        return facts.restarted ? SYSTEM_RESTART : 2;
      },
    },
    symbols: {
      find: (symbol: string) => SYMBOLS[symbol],
      address: (symbol: string) => {
        throw new VmiError('VMI_SYMBOL', symbol);
      },
    },
    types: {
      findOffset: () => undefined,
      offset: () => 0,
      findConstant: (name: string) =>
        name === 'SYSTEM_RESTART' ? BigInt(SYSTEM_RESTART) : undefined,
    },
  };
}
type Made = ReturnType<typeof kernel>;
type Given = Parameters<typeof chooseKernel>[0];
const choose = (all: Made[], wanted?: number) =>
  chooseKernel(all as unknown as Given, wanted) as Promise<
    | { chosen: Made; why: string | undefined; all: { number: number; chosen: boolean }[] }
    | undefined
  >;
/** What is chosen of two, whichever of them is found first. */
async function bothWays(make: () => [Made, Made]): Promise<string[]> {
  const [a, b] = [await choose(make()), await choose(make().reverse())];
  expect(a?.why).toBe(b?.why);
  return [a!.chosen.release, b!.chosen.release];
}

/** After a crash the dead kernel may show the later time: its successor reads the clock anew. */
describe('of two whole kernels', () => {
  const walls = [
    [100n, 200n],
    [200n, 100n],
    [100n, 100n],
  ] as const;

  it.each(walls)('the one whose clock moves runs: %d, the dead %d', async (alive, dead) => {
    const chosen = await bothWays(() => [
      kernel('alive', { wall: alive, moves: true, live: true }),
      kernel('dead', { wall: dead, live: true }),
    ]);
    expect(chosen).toEqual(['alive', 'alive']);
  });

  it.each(walls)('the one that has not ended ran last: %d, the dead %d', async (alive, dead) => {
    for (const end of [{ panicked: true }, { restarted: true }]) {
      const chosen = await bothWays(() => [
        kernel('alive', { wall: alive }),
        kernel('dead', { wall: dead, ...end }),
      ]);
      expect(chosen).toEqual(['alive', 'alive']);
    }
  });

  it.each([true, false])(
    'the later time counts where nothing else tells, live: %s',
    async (live) => {
      const chosen = await bothWays(() => [
        kernel('early', { live }),
        kernel('late', { wall: 200n, live }),
      ]);
      expect(chosen).toEqual(['late', 'late']);
    },
  );

  it('the one that the CPUs map counts, whatever else tells', async () => {
    const mapped = kernel('mapped', { panicked: true, source: 'registers' });
    const other = kernel('other', { wall: 200n });
    expect((await choose([other, mapped]))?.chosen).toBe(mapped);
  });

  it('both are named with their numbers, and either can be asked for', async () => {
    const two = [kernel('6.1', { panicked: true }), kernel('6.12', { wall: 200n })];
    const found = await choose([...two].reverse());
    expect(found).toMatchObject({ chosen: { release: '6.12' }, why: 'all others have ended' });
    expect(kernelsText(found!.all as never)).toBe(
      `kernel 1 is 6.1 at 0x${two[0]!.candidate.image.physical.toString(16)}, its clock at 1970-01-01T00:01:40.000Z, panicked on CPU 1; ` +
        `kernel 2 is 6.12 at 0x${two[1]!.candidate.image.physical.toString(16)}, its clock at 1970-01-01T00:03:20.000Z`,
    );
    for (const number of [1, 2]) {
      const asked = await choose(two, number);
      expect(asked?.chosen).toBe(two[number - 1]);
      expect(asked?.all.map((one) => one.chosen)).toEqual([number === 1, number === 2]);
    }
    await expect(choose(two, 3)).rejects.toMatchObject({
      code: 'VMI_ATTACH',
      message: expect.stringContaining('there is no kernel 3 in this memory: kernel 1 is 6.1'),
    });
  });

  it('there is nothing to choose of one, or of none', async () => {
    expect(await choose([kernel('one', { live: true })])).toMatchObject({
      chosen: { release: 'one' },
      why: undefined,
    });
    expect(await choose([])).toBeUndefined();
    expect((await choose([], 1)) ?? 'none').toBe('none');
  });
});
