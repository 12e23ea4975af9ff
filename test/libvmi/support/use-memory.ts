import { expect } from 'vitest';
import type { PhysicalMemory } from '../../../lib/memory/physical-memory.js';

export type Attempt = <T>(action: () => T | Promise<T>) => Promise<T | undefined>;

/** Runs actions, and collects what they throw. */
export function attempting(errors: unknown[]): Attempt {
  return async (action) => {
    try {
      return await action();
    } catch (error) {
      errors.push(error);
      return undefined;
    }
  };
}

/** Everything that can be done with memory of the stand-in's, once. */
export async function useMemory(memory: PhysicalMemory, attempt: Attempt): Promise<void> {
  await attempt(() => memory.begin());
  await attempt(() => expect(memory.readU64(0x1238)).toBe(0x1238n));
  await attempt(() => expect(memory.read(0x2000, 4096).readBigUInt64LE(8)).toBe(0x2008n));
  await attempt(() => {
    const { bytes, transferred } = memory.readMany(BigUint64Array.of(0x3000n, 0x5008n), 16);
    // What was not read is told, and the rest is right.
    expect(bytes.readBigUInt64LE(transferred[1] === 16 ? 24 : 0)).toBe(
      transferred[1] === 16 ? 0x5010n : 0x3000n,
    );
  });
  if (!memory.capabilities.registers) return;
  await attempt(async () => {
    const [first, second] = await memory.registers();
    expect([first?.cr3, second?.cr3]).toEqual([0x1000n, 0x2000n]);
  });
  await attempt(() => memory.pause());
  await attempt(() => memory.resume());
}
