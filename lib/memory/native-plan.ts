import type { Plan } from '../../types/addon.js';
import { addon } from '../addon.js';

const columnsOf = new WeakMap<Plan, Int32Array>();

/**
 * Makes the addon's plan of a gather, and remembers its columns for memories that are not read by
 * native code.
 * @param columns triples (from, offset, size)
 * @param expectations quadruples (column, mask, min, max)
 */
export function makePlan(columns: Int32Array, expectations?: BigUint64Array): Plan {
  const plan = new (addon().Plan)(columns, expectations);
  columnsOf.set(plan, columns.slice());
  return plan;
}

/** The columns that {@link makePlan} was given. */
export function planColumns(plan: Plan): Int32Array {
  return columnsOf.get(plan)!;
}
