import { CorruptError, hex } from '../../errors.js';

/** The guest's memory as a walk of lists sees it. */
export interface ListMemory {
  /** The link at an address, `undefined` where it cannot be read. */
  link(address: bigint): { readonly next: bigint; readonly prev: bigint } | undefined;
  /** Forgets what was read: from now on the guest is asked again. */
  refresh(): void;
  /** Whether an address can be a kernel's at all. */
  isKernel(address: bigint): boolean;
  /** @throws {FaultError} the link at a list's head cannot be read */
  fault(address: bigint): never;
}

export interface WalkedLists {
  /** Nodes of all lists, in order. */
  readonly nodes: readonly bigint[];
  /** Nodes of each list. */
  readonly counts: Uint32Array;
  readonly retries: number;
}

/** Times a place is looked at again before it counts as broken. */
const ATTEMPTS = 10;
/** Times a list begins anew since the walk left it for another. */
const RESTARTS = 3;
/** `prev` of a node that list_del_rcu took out. include/linux/poison.h. */
const LIST_POISON2 = 0xdead_0000_0000_0122n;

/**
 * Walks circular doubly linked lists (`struct list_head`) of a kernel that may be running, by the
 * rules of native/core/lists: a node counts as linked when its `prev` is the node it was reached
 * from. Where it is not, the walk goes back to the last node that still is where it was.
 *
 * @param max nodes in all lists
 * @throws {CorruptError} a list is broken for good, or the lists are longer than `max`
 */
export function walkLists(memory: ListMemory, heads: BigUint64Array, max: number): WalkedLists {
  const seen = new Set<bigint>();
  for (const head of heads) {
    if (!memory.isKernel(head))
      throw new CorruptError(`the list head ${hex(head)} is not a kernel address`, head);
    if (seen.has(head)) throw new CorruptError(`two lists have the same head, ${hex(head)}`, head);
    seen.add(head);
  }
  const walker = new ListWalker(memory, new Set(heads), max);
  const counts = Uint32Array.from(heads, (head) => walker.walk(head));
  return { nodes: walker.nodes, counts, retries: walker.retries };
}

class ListWalker {
  readonly nodes: bigint[] = [];
  retries = 0;
  readonly #memory: ListMemory;
  readonly #heads: ReadonlySet<bigint>;
  readonly #max: number;
  readonly #seen = new Set<bigint>();
  #dropped = 0;
  /** The list that is walked, and where its nodes begin. */
  #head = 0n;
  #first = 0;

  constructor(memory: ListMemory, heads: ReadonlySet<bigint>, max: number) {
    this.#memory = memory;
    this.#heads = heads;
    this.#max = max;
  }

  /** @returns nodes of this list */
  walk(head: bigint): number {
    this.#head = head;
    this.#first = this.nodes.length;
    let next = (this.#memory.link(head) ?? this.#memory.fault(head)).next;
    let attempts = 0;
    let restarts = 0;
    while (true) {
      const at = this.#last(0);
      const link = this.#memory.isKernel(next) ? this.#memory.link(next) : undefined;
      // The guest may have been stopped with half of the pointers of `at` set: all others agree.
      const halfDone = attempts >= ATTEMPTS && at !== head && link?.prev === this.#last(1);
      if (link !== undefined && (link.prev === at || halfDone)) {
        if (next === head) return this.nodes.length - this.#first;
        if (!this.#heads.has(next) && !this.#seen.has(next)) {
          this.#accept(next);
          next = link.next;
          attempts = 0;
          continue;
        }
        // On a node while it moved to another list, or freed and used again.
        if (++restarts > RESTARTS)
          throw this.#broken(next, `${hex(at)} leads back to ${hex(next)}`);
        this.#dropTo(this.#first);
      } else if (++attempts > ATTEMPTS + 1) {
        throw this.#broken(next, this.#trouble(at, next, link));
      }
      this.#countRetry(next);
      const now = this.#recover();
      if (now.moved || now.next !== next) attempts = 0;
      next = now.next;
    }
  }

  /** Goes back to the last node that is still linked. @returns what follows it now */
  #recover(): { next: bigint; moved: boolean } {
    this.#memory.refresh();
    let moved = false;
    while (true) {
      const at = this.#last(0);
      const link = this.#memory.link(at);
      if (at === this.#head) {
        if (link === undefined) throw this.#broken(at, 'its head cannot be read any more');
        return { next: link.next, moved };
      }
      if (link !== undefined && link.prev === this.#last(1)) return { next: link.next, moved };
      this.#dropTo(this.nodes.length - 1);
      moved = true;
    }
  }

  /** The last node of this list but `back`, or its head. */
  #last(back: number): bigint {
    const at = this.nodes.length - 1 - back;
    return at >= this.#first ? this.nodes[at]! : this.#head;
  }

  #accept(node: bigint): void {
    if (this.nodes.length >= this.#max)
      throw new CorruptError(
        `the lists have more than ${this.#max} nodes`,
        node,
        this.nodes.length,
      );
    if (this.nodes.length + this.#dropped >= this.#max * 2 + 1024)
      throw this.#broken(node, 'it changes faster than it can be followed');
    this.#seen.add(node);
    this.nodes.push(node);
  }

  #dropTo(length: number): void {
    while (this.nodes.length > length) {
      this.#seen.delete(this.nodes.pop()!);
      this.#dropped++;
    }
  }

  /** Bounded however the guest behaves. */
  #countRetry(next: bigint): void {
    if (++this.retries > 64 + this.nodes.length / 4)
      throw this.#broken(next, `it changed ${this.retries} times under the walk`);
  }

  #trouble(at: bigint, next: bigint, link: { readonly prev: bigint } | undefined): string {
    const where = `${hex(at)} points to ${hex(next)}`;
    if (!this.#memory.isKernel(next)) return `${where}, which is not a kernel address`;
    if (link === undefined) return `${where}, which cannot be read`;
    const unlinked = link.prev === LIST_POISON2 ? ' (unlinked)' : '';
    return `${where}, which points back to ${hex(link.prev)}${unlinked}`;
  }

  #broken(address: bigint, what: string): CorruptError {
    const count = this.nodes.length - this.#first;
    return new CorruptError(
      `the list at ${hex(this.#head)} is broken after ${count} nodes: ${what}`,
      address,
      this.nodes.length,
    );
  }
}
