import { type AddressLike, toAddress } from '../../address.js';
import { hex } from '../../errors.js';
import { checkOptions, describe } from '../../options.js';
import type { PhysicalRange } from '../physical-memory.js';

/** End of what an entry of a page table can hold. SDM vol. 3A, 4.4. */
const MAX_PHYSICAL = 1n << 52n;

/**
 * Checks where RAM is.
 * @returns the ranges, ascending
 * @throws {TypeError} no list of ranges
 * @throws {RangeError} none at all, no whole pages, beyond 52 bits, or two of the same address
 */
export function checkRanges(
  ranges: readonly { readonly start: AddressLike; readonly length: AddressLike }[],
): PhysicalRange[] {
  if (!Array.isArray(ranges) || ranges.length === 0)
    throw new TypeError(
      `Expected ranges as a list of { start, length } but received ${Array.isArray(ranges) ? 'an empty one' : describe(ranges)}`,
    );
  // Not by map: it passes over holes.
  const checked = Array.from(ranges, (range, i) => {
    checkOptions(range, { start: true, length: true }, `range ${i}`);
    return {
      start: toPages(range.start, `start of range ${i}`),
      length: toPages(range.length, `length of range ${i}`),
    };
  });
  return inOrder(checked);
}

/** @throws {RangeError} a range is empty or too far up, or two overlap */
export function inOrder<Range extends PhysicalRange>(ranges: readonly Range[]): Range[] {
  const sorted = [...ranges].sort((a, b) => (a.start < b.start ? -1 : 1));
  let end = 0n;
  for (const { start, length } of sorted) {
    if (length === 0n) throw new RangeError(`Expected RAM at ${hex(start)} but received 0 bytes`);
    if (start < end)
      throw new RangeError(`Expected RAM once at every address but ${hex(start)} is in two parts`);
    end = start + length;
    if (end > MAX_PHYSICAL)
      throw new RangeError(
        `Expected RAM below ${hex(MAX_PHYSICAL)} but received some up to ${hex(end)}`,
      );
  }
  return sorted;
}

/** @throws {RangeError} no whole pages @throws {TypeError} no address */
export function toPages(value: AddressLike, name: string): bigint {
  const address = toAddress(value, name);
  if ((address & 0xfffn) === 0n) return address;
  throw new RangeError(`Expected ${name} as a multiple of 4096 but received ${hex(address)}`);
}
