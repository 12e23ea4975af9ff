import type { ArrayObject } from './array.js';
import type { StructObject } from './struct-object.js';

/** Most bits of a bitmap that are looked at: a process has at most 2^20 descriptors by default. */
const MAX_BITS = 1 << 24;

/**
 * Numbers of the bits that are set, ascending: `for_each_set_bit`.
 * @param words `unsigned long[]`
 * @param count bits to look at; all of the array when left out
 * @throws {FaultError}
 * @throws {VmiError} `VMI_TYPE`: a flexible array, and no count
 */
export function* bitmap(words: ArrayObject, count?: number): Generator<number> {
  const bits = count === undefined ? undefined : Math.min(count, MAX_BITS);
  const bytes = (bits === undefined ? words : words.take(Math.ceil(bits / 64))).bytes();
  const end = bits ?? bytes.length * 8;
  for (let at = 0; at * 8 < end; at++) {
    for (let byte = bytes[at]!, bit = 0; byte !== 0; byte >>>= 1, bit++) {
      if ((byte & 1) === 1 && at * 8 + bit < end) yield at * 8 + bit;
    }
  }
}

/**
 * The CPUs in a mask: `for_each_cpu`.
 * @param mask `struct cpumask`
 */
export function cpumask(mask: StructObject, count?: number): number[] {
  return [...bitmap(mask.bits as ArrayObject, count)];
}
