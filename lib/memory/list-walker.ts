import type { ListWalker as NativeListWalker, NativeRows } from '../../types/addon.js';
import { fromNative } from '../errors.js';
import type { FoundRows, NamedPlan } from './plan.js';
import { type RowLayout, Rows } from './rows.js';
import type { VirtualMemory } from './virtual-memory.js';

/**
 * Walks circular lists (`struct list_head`) and gathers a plan's row at what each node is a part
 * of. Keeps the nodes that it found: the next walk of the same lists begins with them, and follows
 * every link anew.
 */
export class ListWalker<C extends string> {
  readonly #native: NativeListWalker;
  readonly #layout: RowLayout<C>;
  readonly #max: number;

  /**
   * @param link offset of the links in what the plan is gathered at
   * @param max most rows that all lists together can hold
   */
  constructor(memory: VirtualMemory, plan: NamedPlan<C>, link: number, max: number) {
    this.#native = memory.listWalker(plan.native, link);
    this.#layout = plan.layout;
    this.#max = max;
  }

  /**
   * Follows the list from each head; heads give no row.
   * @param into takes the rows if they fit
   * @throws {CorruptError} a list that is none, or that holds more than `max`
   */
  walk(heads: BigUint64Array, into?: ArrayBuffer): FoundRows<C> {
    const bytes = into === undefined ? undefined : new Uint8Array(into);
    const { buffer = into!, count, capacity, counts, retries } = this.#walk(heads, bytes);
    return { rows: new Rows(this.#layout, buffer, count, capacity), counts, retries };
  }

  #walk(heads: BigUint64Array, into?: Uint8Array): NativeRows {
    try {
      return this.#native.walk(heads, this.#max, into);
    } catch (error) {
      throw fromNative(error);
    }
  }
}
