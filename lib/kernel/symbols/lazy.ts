import type { KernelSymbol, SymbolPlace, SymbolTable } from './table.js';

/** What is remembered of a symbol table: answers, also that a name is absent (`null`). */
export type KnownSymbols = ReadonlyMap<string, bigint | null>;

/**
 * A symbol table that opens the real one at the first question it has no remembered answer to.
 * What was asked is kept, for the cache.
 */
export class LazySymbols implements SymbolTable {
  readonly source: string;
  readonly #known: Map<string, bigint | null>;
  readonly #open: () => SymbolTable;
  #table: SymbolTable | undefined;

  constructor(source: string, open: () => SymbolTable, known: KnownSymbols = new Map()) {
    this.source = source;
    this.#open = open;
    this.#known = new Map(known);
  }

  /** Answers so far. */
  get known(): KnownSymbols {
    return this.#known;
  }

  /** The table behind it, opened if it was not. */
  get table(): SymbolTable {
    this.#table ??= this.#open();
    return this.#table;
  }

  get count(): number {
    return this.table.count;
  }

  find(name: string): bigint | undefined {
    const known = this.#known.get(name);
    if (known !== undefined) return known ?? undefined;
    const found = this.table.find(name);
    // Bounded: a REPL may ask for anything.
    if (this.#known.size < 1024) this.#known.set(name, found ?? null);
    return found;
  }

  /** Adds the address of what the table does not name and what was found by its contents. */
  add(name: string, address: bigint): void {
    this.#known.set(name, address);
  }

  address(name: string): bigint {
    return this.find(name) ?? this.table.address(name);
  }

  at(address: bigint): SymbolPlace | undefined {
    return this.table.at(address);
  }

  entries(): Iterable<KernelSymbol> {
    return this.table.entries();
  }

  complete(prefix: string, max?: number): string[] {
    return this.table.complete(prefix, max);
  }
}
