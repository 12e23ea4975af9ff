import { MAX_ADDRESS } from '../../address.js';
import { checkObject, describe } from '../../options.js';
import type { VcpuRegisters } from '../machine.js';

/** Registers that every vCPU has. */
const NEEDED = ['cr0', 'cr3', 'cr4', 'rip', 'efer'] as const;

/**
 * Checks what a user's function says the registers are.
 * @throws {TypeError} no list of registers @throws {RangeError} one of more than 64 bits
 */
export function checkRegisters(given: unknown): VcpuRegisters[] {
  const what = 'registers to return';
  if (!Array.isArray(given))
    throw new TypeError(
      `Expected ${what} an array, one of a vCPU, but received ${describe(given)}`,
    );
  for (const [i, vcpu] of given.entries()) {
    checkObject(vcpu, `${what} [${i}]`);
    const number: unknown = vcpu.vcpu;
    if (!Number.isSafeInteger(number) || (number as number) < 0)
      throw new TypeError(
        `Expected ${what} [${i}].vcpu as the number of a vCPU but received ${describe(number)}`,
      );
    const { vcpu: _, ...registers } = vcpu;
    const names = new Set<string>([...NEEDED, ...Object.keys(registers)]);
    for (const name of names) {
      const value: unknown = registers[name];
      const isNeeded = (NEEDED as readonly string[]).includes(name);
      if (value === undefined && !isNeeded) continue;
      if (typeof value !== 'bigint')
        throw new TypeError(
          `Expected ${what} [${i}].${name} as a bigint but received ${describe(value)}`,
        );
      if (value < 0n || value > MAX_ADDRESS)
        throw new RangeError(
          `Expected ${what} [${i}].${name} between 0 and 2^64 - 1 but received ${value}n`,
        );
    }
  }
  return given;
}
