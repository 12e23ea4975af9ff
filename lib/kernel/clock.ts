import { setTimeout } from 'node:timers/promises';
import { wrap } from '../address.js';
import type { VirtualMemory } from '../memory/virtual-memory.js';
import type { SymbolTable } from './symbols/table.js';
import { tryAnswer } from './try-answer.js';
import type { TypeTable } from './types/table.js';

/** Seconds a running guest's clock may be off the host's; a reboot takes longer. */
const CLOCK_TOLERANCE = 2;

/** What a kernel's clock is read from. */
export interface Clocked {
  readonly memory: VirtualMemory;
  readonly symbols: SymbolTable;
  readonly types: TypeTable;
}

/** Milliseconds that the clocks of a running guest are watched, and between two looks. */
const WATCH = 2_000;
const STEP = 20;

/**
 * The kernels of a running guest whose clocks move while they are watched: a warm reset, a kexec
 * and a crash leave the old one in RAM, whole but with its clock stopped.
 */
export async function withMovingClock<T extends Clocked>(all: readonly T[]): Promise<T[]> {
  const before = all.map(ticks);
  for (let waited = 0; waited < WATCH; waited += STEP) {
    await setTimeout(STEP);
    all[0]!.memory.begin();
    const moved = all.filter((parts, i) => {
      const now = ticks(parts);
      return now !== undefined && now !== before[i];
    });
    if (moved.length > 0) return moved;
  }
  return [];
}

/** `jiffies_64`, which each tick of the clock moves. kernel/time/timer.c. */
function ticks({ memory, symbols }: Clocked): bigint | undefined {
  return tryAnswer(() => {
    const at = symbols.find('jiffies_64') ?? symbols.find('jiffies');
    return at === undefined ? undefined : memory.readU64(at);
  });
}

/** Whether the kernel's clock shows the host's time. */
export function runsNow(parts: Clocked): boolean {
  if (!parts.memory.physical.live) return false;
  const time = wallClock(parts);
  return time !== undefined && Math.abs(Number(time) - Date.now() / 1000) < CLOCK_TOLERANCE;
}

/**
 * Seconds since 1970 on the kernel's clock. kernel/time/timekeeping.c: `tk_core`, `timekeeper_data`
 * since 6.18.
 */
export function wallClock({ memory, symbols, types }: Clocked): bigint | undefined {
  return tryAnswer(() => {
    const core = symbols.find('tk_core') ?? symbols.find('timekeeper_data');
    if (core === undefined) return undefined;
    // Up to 6.12 the structure has no name: a 4-byte sequence count, then the timekeeper, which is
    // aligned to 8.
    const keeper = types.findOffset('tk_data', 'timekeeper') ?? 8;
    return memory.readU64(wrap(core + BigInt(keeper + types.offset('timekeeper', 'xtime_sec'))));
  });
}
