import { CorruptError, hex } from '../errors.js';
import { MAX_NODES, tooMany } from './list.js';
import type { StructObject } from './struct-object.js';

/** Deepest red-black tree: twice the logarithm of 2^22 nodes, and some. */
const MAX_DEPTH = 64;
/** RB_BLACK and the bit beside it. include/linux/rbtree.h, rb_parent. */
const COLOUR = 3n;

/**
 * The structures in a red-black tree, in its order: what `rb_first` and `rb_next` go through. Each
 * node must name the parent that led to it, so that no node can come twice.
 *
 * @param root `struct rb_root`, or `struct rb_root_cached`
 * @param type of the structures: `struct vmap_area`
 * @param member of it that is in the tree: `rb_node`
 * @throws {CorruptError} no tree, or more than `max` nodes
 * @throws {FaultError} a node that is not there
 */
export function* rbtree(
  root: StructObject,
  type: string,
  member: string,
  max = MAX_NODES,
): Generator<StructObject> {
  const plain = root.$has('rb_root') ? (root.rb_root as StructObject) : root;
  const path: StructObject[] = [];
  const descend = (from: StructObject | null, above: bigint) => {
    let parent = above;
    for (let node = from; node !== null; node = node.rb_left as StructObject | null) {
      checkParent(root, node, parent);
      if (path.length === MAX_DEPTH) throw tooDeep(root, node);
      path.push(node);
      parent = node.$address;
    }
  };
  descend(plain.rb_node as StructObject | null, 0n);
  for (let count = 0; ; count++) {
    const node = path.pop();
    if (node === undefined) return;
    if (count === max) throw tooMany('tree', root, max);
    yield node.$containerOf(type, member);
    descend(node.rb_right as StructObject | null, node.$address);
  }
}

function checkParent(root: StructObject, node: StructObject, above: bigint): void {
  const parent = (node.__rb_parent_color as bigint) & ~COLOUR;
  if (parent === above) return;
  throw new CorruptError(
    `the tree at ${hex(root.$address)} (${root.$path}) is broken: ${hex(above)} leads to the node at ${hex(node.$address)}, whose parent is ${hex(parent)}`,
    node.$address,
  );
}

function tooDeep(root: StructObject, node: StructObject): CorruptError {
  return new CorruptError(
    `the tree at ${hex(root.$address)} (${root.$path}) is deeper than ${MAX_DEPTH}`,
    node.$address,
  );
}
