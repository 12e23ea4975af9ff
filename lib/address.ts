import { hex } from './errors.js';

/** An address as callers may write it: a bigint, or a number that is a safe integer. */
export type AddressLike = bigint | number;

/** Bytes of the smallest page. SDM vol. 3A, 4.3. */
export const PAGE_SIZE = 4096;
export const PAGE_MASK = 0xfffn;
/**
 * Bits 51:12 of a paging-structure entry: the physical address it holds. SDM vol. 3A, table 4-15
 * ff.
 */
export const PHYSICAL_MASK = 0x000f_ffff_ffff_f000n;
/** The highest address. */
export const MAX_ADDRESS = 0xffff_ffff_ffff_ffffn;

/**
 * Checks an address and returns it as a bigint.
 * @throws {TypeError} neither a bigint nor a number
 * @throws {RangeError} negative, above 2^64 - 1, or a number that is no safe integer
 */
export function toAddress(value: AddressLike, name = 'address'): bigint {
  if (typeof value === 'bigint') {
    if (value < 0n || value > MAX_ADDRESS) {
      throw new RangeError(
        `Expected ${name} between 0 and 2^64 - 1 but received ${signedHex(value)}`,
      );
    }
    return value;
  }
  if (typeof value !== 'number') {
    throw new TypeError(`Expected ${name} as a bigint or a number but received ${typeof value}`);
  }
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new RangeError(
      `Expected ${name} as a bigint or a safe integer of 0 or more but received ${value}; write large addresses as bigint (0xffff888000000000n)`,
    );
  }
  return BigInt(value);
}

/**
 * Checks a length in bytes.
 * @throws {TypeError} not a number
 * @throws {RangeError} not an integer between 0 and `max`
 */
export function toLength(value: number, max = 0x7fff_ffff, name = 'length'): number {
  if (typeof value !== 'number')
    throw new TypeError(`Expected ${name} as a number but received ${typeof value}`);
  if (!Number.isInteger(value) || value < 0 || value > max) {
    throw new RangeError(
      `Expected ${name} as an integer between 0 and ${max} but received ${value}`,
    );
  }
  return value;
}

/**
 * Parses an address that a person wrote: `0x…`, decimal, or hex digits that hold a letter.
 * @throws {RangeError} not a number, or beyond 64 bits
 */
export function parseAddress(text: string, name = 'address'): bigint {
  const clean = text.trim().replaceAll('_', '').replace(/n$/, '');
  if (/^0x[0-9a-f]+$/i.test(clean) || /^[0-9]+$/.test(clean)) return toAddress(BigInt(clean), name);
  if (/^[0-9a-f]+$/i.test(clean)) return toAddress(BigInt(`0x${clean}`), name);
  throw new RangeError(`Expected ${name} like 0xffff888000000000 or 4096 but received '${text}'`);
}

/** Makes a bigint a canonical 64-bit value (kernel addresses computed mod 2^64). */
export function wrap(value: bigint): bigint {
  return BigInt.asUintN(64, value);
}

function signedHex(value: bigint): string {
  return value < 0n ? `-${hex(-value)}` : hex(value);
}
