import { CorruptError, hex } from '../errors.js';
import { MAX_NODES, tooMany } from './list.js';
import type { Pointer } from './pointer.js';
import type { StructObject } from './struct-object.js';

/**
 * The structures on a hash chain: `hlist_for_each_entry(entry, head, member)`. Each node's `pprev`
 * must name the pointer that led to it, which no cycle can.
 *
 * @param head `struct hlist_head`
 * @throws {CorruptError} no chain, or more than `max` nodes
 * @throws {FaultError} a node that is not there
 */
export function* hlist(
  head: StructObject,
  type: string,
  member: string,
  max = MAX_NODES,
): Generator<StructObject> {
  for (const node of chain(head, max, false)) yield node.$containerOf(type, member);
}

/**
 * The same for a chain that ends in an odd number instead of NULL (`struct hlist_nulls_head`), as
 * those of TCP do. Source: include/linux/list_nulls.h.
 */
export function* hlistNulls(
  head: StructObject,
  type: string,
  member: string,
  max = MAX_NODES,
): Generator<StructObject> {
  for (const node of chain(head, max, true)) yield node.$containerOf(type, member);
}

/** @param hasNulls whether a pointer with the lowest bit set ends it: is_a_nulls */
function* chain(head: StructObject, max: number, hasNulls: boolean): Generator<StructObject> {
  let link = head.$member('first').address;
  let next = head.first as StructObject | null;
  for (let count = 0; next !== null; count++) {
    if (hasNulls && (next.$address & 1n) !== 0n) return;
    if (count === max) throw tooMany('chain', head, max);
    checkBack(head, next, link);
    yield next;
    link = next.$member('next').address;
    next = next.next as StructObject | null;
  }
}

/**
 * The structures on a lock-less list: `llist_for_each_entry`. It has no back pointers: a node that
 * comes twice is found by Brent's algorithm, within twice the length of the list.
 *
 * @param head `struct llist_head`
 * @throws {CorruptError} a cycle, or more than `max` nodes
 * @throws {FaultError} a node that is not there
 */
export function* llist(
  head: StructObject,
  type: string,
  member: string,
  max = MAX_NODES,
): Generator<StructObject> {
  let node = head.first as StructObject | null;
  let marked = -1n;
  let until = 1;
  for (let count = 0; node !== null; count++) {
    if (count === max) throw tooMany('list', head, max);
    if (node.$address === marked) {
      throw new CorruptError(
        `the list at ${hex(head.$address)} (${head.$path}) leads to ${hex(marked)} twice`,
        node.$address,
        count,
      );
    }
    if (count === until) {
      marked = node.$address;
      until *= 2;
    }
    yield node.$containerOf(type, member);
    node = node.next as StructObject | null;
  }
}

function checkBack(head: StructObject, node: StructObject, link: bigint): void {
  // A live chain changes under the reader: the second look decides.
  const back = () => (node.pprev as Pointer | null)?.value;
  if (back() === link || back() === link) return;
  throw new CorruptError(
    `the chain at ${hex(head.$address)} (${head.$path}) is broken: ${hex(link)} leads to the node at ${hex(node.$address)}, whose pprev is ${hex(back() ?? 0n)}`,
    node.$address,
  );
}
