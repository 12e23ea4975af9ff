import { VmiError } from '../../errors.js';
import type { TypeTable } from './table.js';

/**
 * An XArray as `AddressSpace.lookUp` takes it, but for what differs between kernels.
 * include/linux/xarray.h: xa_is_node, xa_to_node.
 */
export const XA_NODE = { tag: 2, tagMask: 3, maxInternal: 4096, maxShift: 60 } as const;
const NODE = BigInt(XA_NODE.tag);
const TAG_MASK = BigInt(XA_NODE.tagMask);
const MAX_INTERNAL = BigInt(XA_NODE.maxInternal);

/** Whether an entry is none that was stored: a node, or a mark. `xa_is_internal`. */
export function isXaInternal(entry: bigint): boolean {
  return (entry & TAG_MASK) === NODE;
}

/** Whether an entry is a node. `xa_is_node`; a maple tree's are the same. */
export function isXaNode(entry: bigint): boolean {
  return isXaInternal(entry) && entry > MAX_INTERNAL;
}

/** Address of the node that an entry is. `xa_to_node`. */
export function xaNodeAt(entry: bigint): bigint {
  return entry - NODE;
}

/** Bits of an index that one node of an XArray takes: 6, or 4 with CONFIG_BASE_SMALL. */
const SHIFTS = [6, 4] as const;

/**
 * XA_CHUNK_SHIFT of a kernel: log2 of the number of slots of an `xa_node`. include/linux/xarray.h.
 * @throws {VmiError} `VMI_TYPE`: there is no `xa_node`, or it has another number of slots
 */
export function xaChunkShift(types: TypeTable): number {
  const has = (slot: number) => types.findOffset('xa_node', `slots[${slot}]`) !== undefined;
  const shift = SHIFTS.find((shift) => has((1 << shift) - 1) && !has(1 << shift));
  if (shift !== undefined) return shift;
  types.offset('xa_node', 'slots');
  throw new VmiError(
    'VMI_TYPE',
    "the kernel's types have an xa_node whose number of slots is neither 64 nor 16: " +
      'they are damaged; give a profile instead',
  );
}
