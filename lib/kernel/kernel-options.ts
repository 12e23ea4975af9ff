import { PhysicalMemory, type VcpuRegisters } from '../memory/physical-memory.js';
import { checkOptions, checkSignal, describe, type OptionNames } from '../options.js';
import { KernelCache } from './cache.js';
import { checkProfile, type Profile } from './profile/profile.js';

/** How a kernel is found in a memory. */
export interface KernelOptions {
  readonly signal?: AbortSignal | undefined;
  /**
   * Symbols and types from the user's files, used in place of the guest's own where they have an
   * answer.
   */
  readonly profile?: Profile | undefined;
  /** `false`: no cache; a path: a folder other than the default one. */
  readonly cache?: boolean | string | undefined;
  /**
   * Which of several kernels in RAM to take, by its number in `kernel.inRam`; the one that
   * runs, or ran last, when left out.
   */
  readonly number?: number | undefined;
  /** @internal The cache that `cache` names, where it is open already. */
  readonly opened?: KernelCache | undefined;
  /**
   * Registers of the vCPUs, or when they are there; asked of the memory's machine when left out.
   */
  readonly registers?: readonly VcpuRegisters[] | Promise<readonly VcpuRegisters[]> | undefined;
}

/** The cache that an option names; `undefined`: none is to be used. */
export function openCache(option: boolean | string | undefined): KernelCache | undefined {
  return option === false
    ? undefined
    : new KernelCache(typeof option === 'string' ? option : undefined);
}

const NAMES: OptionNames<KernelOptions> = {
  signal: true,
  profile: true,
  cache: true,
  number: true,
  opened: true,
  registers: true,
};

/**
 * Checks what `Kernel.load` is given.
 * @throws {TypeError} @throws {RangeError}
 */
export function checkLoading(memory: unknown, options: KernelOptions): void {
  if (!(memory instanceof PhysicalMemory))
    throw new TypeError(
      `Expected memory as a PhysicalMemory (openMemory makes one) but received ${describe(memory)}`,
    );
  checkOptions(options, NAMES);
  const { signal, profile, cache, number, registers } = options;
  checkSignal(signal);
  if (profile !== undefined) checkProfile(profile);
  checkCache(cache);
  checkNumber(number, 'number');
  if (registers === undefined || registers instanceof Promise || Array.isArray(registers)) return;
  throw new TypeError(
    `Expected registers as an array, or a promise of one, but received ${describe(registers)}`,
  );
}

/** @throws {TypeError} */
export function checkCache(cache: unknown): void {
  if (['undefined', 'boolean', 'string'].includes(typeof cache)) return;
  throw new TypeError(
    `Expected cache as true, false or the path of a folder but received ${describe(cache)}`,
  );
}

/** @throws {RangeError} */
export function checkNumber(number: unknown, name: string): void {
  if (number === undefined || (Number.isSafeInteger(number) && (number as number) >= 1)) return;
  throw new RangeError(
    `Expected ${name} as a number of 1 and more but received ${describe(number)}`,
  );
}
