import { CorruptError, FaultError, hex } from '../errors.js';
import type { StructObject } from './struct-object.js';

/** Most nodes of any collection: a kernel has at most 2^22 tasks, and less of most other things. */
export const MAX_NODES = 1 << 22;
/**
 * A live list changes under the reader: so often is a link read again before it counts as broken.
 */
const ATTEMPTS = 8;

/**
 * The structures on a list, in its order: `list_for_each_entry(entry, head, member)`.
 *
 * Every link is checked by the back pointer of where it leads, so a list that passes is no cycle
 * without its head. Where a running guest changed a link under the walk it is read again, and a
 * node that was taken off is stepped back from.
 *
 * @param head `struct list_head`
 * @param type of the structures: `struct task_struct`
 * @param member of it that is on the list: `tasks`
 * @throws {CorruptError} no list, or more than `max` nodes
 * @throws {FaultError} a node that is not there
 * @throws {VmiError} `VMI_TYPE`
 * @example for (const task of list(init.tasks, 'struct task_struct', 'tasks'))
 * console.log(task.comm);
 */
export function* list(
  head: StructObject,
  type: string,
  member: string,
  max = MAX_NODES,
): Generator<StructObject> {
  for (const node of listNodes(head, max)) yield node.$containerOf(type, member);
}

/** The nodes of a list themselves: {@link list} without what they are members of. */
export function* listNodes(head: StructObject, max = MAX_NODES): Generator<StructObject> {
  let before = head;
  let node = head;
  for (let count = 0; ; count++) {
    const next = linked(node) ?? (before === node ? undefined : linked(before));
    if (next === undefined) throw broken(head, node);
    if (next.$address === head.$address) return;
    if (count === max) throw tooMany('list', head, max);
    before = node;
    node = next;
    yield node;
  }
}

/** The node after one, once its back pointer agrees; `undefined` when it never does. */
function linked(node: StructObject): StructObject | undefined {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    try {
      const next = node.next as StructObject | null;
      if (next?.prev?.$address === node.$address) return next as StructObject;
    } catch (error) {
      if (!(error instanceof FaultError)) throw error;
    }
  }
  return undefined;
}

function broken(head: StructObject, node: StructObject): CorruptError | FaultError {
  const where = `the list at ${hex(head.$address)} (${head.$path})`;
  try {
    const next = node.next as StructObject | null;
    const back = next === null ? null : (next.prev as StructObject | null);
    return new CorruptError(
      `${where} is broken: the node at ${hex(node.$address)} leads to ${place(next)}, which leads back to ${place(back)}`,
      node.$address,
    );
  } catch (error) {
    if (!(error instanceof FaultError)) throw error;
    return new CorruptError(`${where} is broken: ${error.message}`, node.$address, 0, {
      cause: error,
    });
  }
}

function place(object: StructObject | null): string {
  return object === null ? 'NULL' : hex(object.$address);
}

/** The error for a collection that goes on for longer than any can. */
export function tooMany(what: string, head: StructObject, max: number): CorruptError {
  return new CorruptError(
    `the ${what} at ${hex(head.$address)} (${head.$path}) has more than ${max} nodes`,
    head.$address,
    max,
  );
}
