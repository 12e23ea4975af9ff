import { CorruptError, hex } from '../errors.js';
import { isXaInternal, isXaNode } from '../kernel/types/xarray.js';
import type { ArrayObject } from './array.js';
import { MAX_NODES, tooMany } from './list.js';
import type { Pointer } from './pointer.js';
import type { StructObject } from './struct-object.js';

/*
 * A maple tree holds ranges of indexes. Source: lib/maple_tree.c, include/linux/maple_tree.h.
 *
 * A pointer to a node has the node's type in bits 3 to 6 (mte_node_type), since nodes are aligned
 * to 256 bytes; the tree's root and the slots of nodes that are not leaves hold such pointers. A
 * node of n slots has n - 1 pivots: slot i holds what is between the pivot before it and its own,
 * both ends included. A pivot of 0 beyond the first slot means that the node ends there
 * (ma_data_end, mas_logical_pivot).
 */
/** MAPLE_NODE_MASK. */
const NODE_MASK = 255n;
const TYPE_SHIFT = 3n;
const TYPE_MASK = 15n;
/** MA_ROOT_PARENT: the root's parent is no node. */
const ROOT_PARENT = 1n;
/** MAPLE_HEIGHT_MAX. */
const MAX_DEPTH = 31;
const MAX_INDEX = (1n << 64n) - 1n;

/** Kinds of nodes by their number (enum maple_type), and where each has its pivots and slots. */
const KINDS = ['', 'mr64', 'mr64', 'ma64'] as const;
const LEAF_64 = 1;

/** A range of indexes, and the pointer that is stored for all of them. */
export interface MapleEntry {
  readonly first: bigint;
  readonly last: bigint;
  readonly pointer: bigint;
}

/**
 * The ranges of a maple tree in ascending order, those that hold nothing left out: `mt_for_each`.
 * Since Linux 6.1 an address space's VMAs are in one (commit 524e00b36e8c).
 *
 * @param tree `struct maple_tree`
 * @throws {CorruptError} no tree, or more than `max` entries
 * @throws {FaultError} a node that is not there
 */
export function* mapleTree(tree: StructObject, max = MAX_NODES): Generator<MapleEntry> {
  let left = max;
  const emit = (first: bigint, last: bigint, pointer: bigint): MapleEntry => {
    if (left-- === 0) throw tooMany('maple tree', tree, max);
    return { first, last, pointer };
  };
  const visit = function* (
    pointer: bigint,
    min: bigint,
    most: bigint,
    parent: bigint | undefined,
    depth: number,
  ): Generator<MapleEntry> {
    const { leaf, pivots, slots, address } = readNode(tree, pointer, parent, depth);
    let first = min;
    for (let i = 0; i * 8 < slots.length; i++) {
      const pivot = i * 8 < pivots.length ? pivots.readBigUInt64LE(i * 8) : most;
      const last = pivot === 0n && i > 0 ? most : pivot;
      if (last < first || last > most) {
        throw broken(
          tree,
          address,
          `has the pivot ${hex(last)} between ${hex(first)} and ${hex(most)}`,
        );
      }
      const slot = slots.readBigUInt64LE(i * 8);
      if (leaf) {
        if (slot !== 0n && !isXaInternal(slot)) yield emit(first, last, slot);
      } else if (slot !== 0n) {
        yield* visit(slot, first, last, address, depth + 1);
      }
      if (last === most) return;
      first = last + 1n;
    }
  };
  const root = (tree.ma_root as Pointer | null)?.value ?? 0n;
  if (isXaNode(root)) {
    yield* visit(root, 0n, MAX_INDEX, undefined, 1);
  } else if (root !== 0n && !isXaInternal(root)) {
    yield emit(0n, 0n, root);
  }
}

interface Node {
  readonly address: bigint;
  readonly leaf: boolean;
  readonly pivots: Buffer;
  readonly slots: Buffer;
}

function readNode(
  tree: StructObject,
  pointer: bigint,
  parent: bigint | undefined,
  depth: number,
): Node {
  const address = pointer & ~NODE_MASK;
  const type = Number((pointer >> TYPE_SHIFT) & TYPE_MASK);
  const kind = KINDS[type];
  if (kind === undefined || kind === '') throw broken(tree, address, `is of the type ${type}`);
  if (depth > MAX_DEPTH) throw broken(tree, address, `is deeper than ${MAX_DEPTH}`);
  const node = tree.$object('struct maple_node', address) as StructObject;
  const up = (node.$member('parent').value as Pointer | null)?.value ?? 0n;
  const isRoot = parent === undefined;
  if (isRoot ? (up & ROOT_PARENT) === 0n : (up & ~NODE_MASK) !== parent) {
    throw broken(tree, address, `has the parent ${hex(up)}`);
  }
  const of = node[kind] as StructObject;
  return {
    address,
    leaf: type <= LEAF_64,
    pivots: (of.pivot as ArrayObject).bytes(),
    slots: (of.slot as ArrayObject).bytes(),
  };
}

function broken(tree: StructObject, node: bigint, why: string): CorruptError {
  return new CorruptError(
    `the maple tree at ${hex(tree.$address)} (${tree.$path}) is broken: its node at ${hex(node)} ${why}`,
    node,
  );
}
