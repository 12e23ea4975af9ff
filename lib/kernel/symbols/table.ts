import { hex, VmiError } from '../../errors.js';
import { didYouMean } from '../../suggest.js';

/** One symbol of the kernel. */
export interface KernelSymbol {
  readonly name: string;
  readonly address: bigint;
  /** The letter nm(1) prints: `T` text, `D` data, `B` bss, `R` read-only; lower case: local. */
  readonly type: string;
}

/** The symbol an address belongs to. */
export interface SymbolPlace {
  readonly name: string;
  /** Address of the symbol. */
  readonly address: bigint;
  /** Bytes from the symbol to the address that was asked for. */
  readonly offset: number;
}

/** Symbols of one kernel at the addresses they have in the running guest. */
export interface SymbolTable {
  /** Where the symbols come from: `kallsyms`, or a file's path. */
  readonly source: string;
  readonly count: number;
  /** Address of a symbol; the lowest one when several share the name. */
  find(name: string): bigint | undefined;
  /**
   * Address of a symbol; the lowest one when several share the name.
   * @throws {VmiError} `VMI_SYMBOL`
   */
  address(name: string): bigint;
  /** The nearest symbol at or below an address; `undefined` outside the kernel's image. */
  at(address: bigint): SymbolPlace | undefined;
  /** All symbols by ascending address. */
  entries(): Iterable<KernelSymbol>;
  /** Names that start with `prefix`, sorted, at most `max`. */
  complete(prefix: string, max?: number): string[];
}

/** The error for a symbol that is absent. */
export function noSymbol(name: string, source: string, names: Iterable<string>): VmiError {
  return new VmiError('VMI_SYMBOL', `no symbol '${name}' in ${source}${didYouMean(name, names)}`);
}

/** The names of a table's entries. */
export function* symbolNames(table: SymbolTable): Iterable<string> {
  for (const entry of table.entries()) yield entry.name;
}

/** A symbol table held in arrays: what a file gives. Per-cpu symbols (offsets from 0) are never moved by `shift`. */
export class ListedSymbols implements SymbolTable {
  readonly source: string;
  readonly #sorted: KernelSymbol[];
  readonly #byName = new Map<string, KernelSymbol>();
  #names: string[] | undefined;

  constructor(source: string, symbols: Iterable<KernelSymbol>) {
    this.source = source;
    this.#sorted = [...symbols].sort((a, b) =>
      a.address < b.address ? -1 : a.address > b.address ? 1 : 0,
    );
    for (const symbol of this.#sorted) {
      if (!this.#byName.has(symbol.name)) this.#byName.set(symbol.name, symbol);
    }
  }

  get count(): number {
    return this.#sorted.length;
  }

  find(name: string): bigint | undefined {
    return this.#byName.get(name)?.address;
  }

  address(name: string): bigint {
    const found = this.find(name);
    if (found === undefined) throw noSymbol(name, this.source, this.#byName.keys());
    return found;
  }

  at(address: bigint): SymbolPlace | undefined {
    return nearest(
      address,
      this.#sorted.length,
      (i) => this.#sorted[i]!.address,
      (i) => this.#sorted[i]!.name,
    );
  }

  entries(): Iterable<KernelSymbol> {
    return this.#sorted;
  }

  complete(prefix: string, max = 100): string[] {
    this.#names ??= [...this.#byName.keys()].sort();
    return startingWith(this.#names, prefix, max);
  }

  /** The same symbols `shift` bytes higher: KASLR. */
  moved(shift: bigint): ListedSymbols {
    if (shift === 0n) return this;
    return new ListedSymbols(
      this.source,
      this.#sorted.map((symbol) =>
        symbol.address < KERNEL_HALF
          ? symbol
          : { ...symbol, address: BigInt.asUintN(64, symbol.address + shift) },
      ),
    );
  }
}

/** Lowest address of the kernel's half with 5 levels; per-cpu symbols are below. Documentation/arch/x86/x86_64/mm.rst. */
export const KERNEL_HALF = 0xff00_0000_0000_0000n;

/** The symbol at or below `address` in a table sorted by address; of several at one address the first, as the kernel does. */
export function nearest(
  address: bigint,
  count: number,
  addressAt: (index: number) => bigint,
  nameAt: (index: number) => string,
): SymbolPlace | undefined {
  if (count === 0 || address > addressAt(count - 1)) return undefined;
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (addressAt(middle) <= address) low = middle + 1;
    else high = middle;
  }
  if (low === 0) return undefined;
  let index = low - 1;
  const at = addressAt(index);
  // A per-cpu symbol (offset from 0) owns no address of the kernel's half, nor of the space between.
  if (at < KERNEL_HALF && address >= at + 0x10_0000n) return undefined;
  while (index > 0 && addressAt(index - 1) === at) index--;
  return { name: nameAt(index), address: at, offset: Number(address - at) };
}

/** The part of a sorted list that starts with `prefix`. */
export function startingWith(sorted: readonly string[], prefix: string, max: number): string[] {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle]! < prefix) low = middle + 1;
    else high = middle;
  }
  const found: string[] = [];
  for (let i = low; i < sorted.length && found.length < max && sorted[i]!.startsWith(prefix); i++) {
    found.push(sorted[i]!);
  }
  return found;
}

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

/** `name+0x1f`, or the address alone. */
export function formatPlace(address: bigint, place: SymbolPlace | undefined): string {
  if (place === undefined) return hex(address);
  return place.offset === 0 ? place.name : `${place.name}+${hex(place.offset)}`;
}
