import { CorruptError, hex } from '../../errors.js';

/**
 * Looks an entry up in a radix tree of the kernel, as the addon's `AddressSpace.lookUp` does.
 *
 * @param read exactly so many bytes, or it throws
 * @param tree (tag, tag mask, max internal, shift offset, slots offset, chunk shift, max shift)
 * @returns 0 where there is none
 * @throws {CorruptError} a shift that no such tree has, or an entry above the slots of the last
 *   level
 */
export function lookUp(
  read: (address: bigint, length: number) => Buffer,
  tree: Int32Array,
  head: bigint,
  index: number,
): bigint {
  const [tag, tagMask, maxInternal, shiftOffset, slotsOffset, chunkShift, maxShift] = Array.from(
    tree,
    BigInt,
  ) as [bigint, bigint, bigint, bigint, bigint, bigint, bigint];
  const isNode = (entry: bigint) => (entry & tagMask) === tag && entry > maxInternal;
  let entry = read(head, 8).readBigUInt64LE();
  if (!isNode(entry)) return index === 0 ? entry : 0n;
  let shift = BigInt(read(entry - tag + shiftOffset, 1)[0]!);
  if (shift > maxShift || shift % chunkShift !== 0n)
    throw new CorruptError(
      `the top node of the tree at ${hex(head)} has the shift ${shift}`,
      entry - tag,
    );
  const wanted = BigInt(index);
  if (wanted >> (shift + chunkShift) !== 0n) return 0n;
  const mask = (1n << chunkShift) - 1n;
  while (true) {
    const slot = (wanted >> shift) & mask;
    entry = read(entry - tag + slotsOffset + slot * 8n, 8).readBigUInt64LE();
    if (shift === 0n) return entry;
    if (!isNode(entry)) break;
    shift -= chunkShift;
  }
  if (entry === 0n || (entry & tagMask) !== 0n) return entry;
  throw new CorruptError(
    `the tree at ${hex(head)} holds ${hex(entry)} above the slot of ${index}`,
    head,
  );
}
