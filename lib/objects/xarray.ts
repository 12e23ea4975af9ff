import { CorruptError, hex } from '../errors.js';
import { isXaInternal, isXaNode, XA_NODE, xaNodeAt } from '../kernel/types/xarray.js';
import { MAX_NODES, tooMany } from './list.js';
import type { Pointer } from './pointer.js';
import type { StructObject } from './struct-object.js';

/** include/linux/xarray.h: xa_is_value. */
const VALUE = 1n;
/** XA_CHUNK_SHIFT with CONFIG_BASE_SMALL and without. */
const CHUNK_SHIFTS = [4, 6];

/** One entry of an XArray. */
export interface XarrayEntry {
  readonly index: bigint;
  /** The pointer that is stored, its tag bits included; `undefined` for a value. */
  readonly pointer: bigint | undefined;
  /** The integer that is stored instead of a pointer (`xa_mk_value`). */
  readonly value: bigint | undefined;
}

/**
 * The entries of an XArray or radix tree by ascending index: `xa_for_each`. Nodes must lie below
 * each other by their shift and name the parent that led to them.
 *
 * @param xa `struct xarray`; a `struct radix_tree_root` is the same. Source: lib/xarray.c
 * @throws {CorruptError} no tree, or more than `max` entries
 * @throws {FaultError} a node that is not there
 */
export function* xarray(xa: StructObject, max = MAX_NODES): Generator<XarrayEntry> {
  const head = (xa.xa_head as Pointer | null)?.value ?? 0n;
  let left = max;
  const visit = function* (
    entry: bigint,
    index: bigint,
    above: number,
    parent: bigint,
  ): Generator<XarrayEntry> {
    if (!isXaNode(entry)) {
      if (entry === 0n || isXaInternal(entry)) return;
      if (left-- === 0) throw tooMany('XArray', xa, max);
      const isValue = (entry & VALUE) !== 0n;
      yield {
        index,
        pointer: isValue ? undefined : entry,
        value: isValue ? entry >> 1n : undefined,
      };
      return;
    }
    const node = xa.$object('struct xa_node', xaNodeAt(entry)) as StructObject;
    const shift = checkedShift(xa, node, above, parent);
    const slots = node.$member('slots').bytes();
    for (let i = 0; i * 8 < slots.length; i++) {
      const below = index + (BigInt(i) << BigInt(shift));
      yield* visit(slots.readBigUInt64LE(i * 8), below, shift, node.$address);
    }
  };
  yield* visit(head, 0n, XA_NODE.maxShift + 1, 0n);
}

/**
 * The entries of an IDR: `idr_for_each_entry`.
 * @param idr `struct idr`. Source: lib/idr.c, include/linux/idr.h
 * @throws as {@link xarray}
 */
export function* idr(idr: StructObject, max = MAX_NODES): Generator<XarrayEntry> {
  const base = BigInt(idr.idr_base as number);
  for (const entry of xarray(idr.idr_rt as StructObject, max)) {
    yield { ...entry, index: entry.index + base };
  }
}

function checkedShift(xa: StructObject, node: StructObject, above: number, parent: bigint): number {
  const shift = node.shift as number;
  const up = (node.parent as StructObject | null)?.$address ?? 0n;
  if (shift < above && CHUNK_SHIFTS.some((chunk) => shift % chunk === 0) && up === parent) {
    return shift;
  }
  throw new CorruptError(
    `the XArray at ${hex(xa.$address)} (${xa.$path}) is broken: its node at ${hex(node.$address)} has the shift ${shift} below ${above} and the parent ${hex(up)}, not ${hex(parent)}`,
    node.$address,
  );
}
