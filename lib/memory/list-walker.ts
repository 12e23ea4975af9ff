import type { FoundRows, NamedPlan } from './plan.js';
import { Rows } from './rows.js';
import type { VirtualMemory } from './virtual-memory.js';

/**
 * Walks circular lists (`struct list_head`) and gathers a plan's row at what each node is a part
 * of.
 */
export class ListWalker<C extends string> {
  readonly #memory: VirtualMemory;
  readonly #plan: NamedPlan<C>;
  readonly #link: number;
  readonly #max: number;

  /**
   * @param link offset of the links in what the plan is gathered at
   * @param max most rows that all lists together can hold
   */
  constructor(memory: VirtualMemory, plan: NamedPlan<C>, link: number, max: number) {
    this.#memory = memory;
    this.#plan = plan;
    this.#link = link;
    this.#max = max;
  }

  /**
   * Follows the list from each head; heads give no row.
   * @param into takes the rows if they fit
   * @throws {CorruptError} a list that is none, or that holds more than `max`
   */
  walk(heads: BigUint64Array, into?: ArrayBuffer): FoundRows<C> {
    const bytes = into === undefined ? undefined : new Uint8Array(into);
    const { native, layout } = this.#plan;
    const found = this.#memory.lists(native, heads, this.#link, this.#max, bytes);
    const { buffer = into!, count, capacity, counts, retries } = found;
    return { rows: new Rows(layout, buffer, count, capacity), counts, retries };
  }
}
