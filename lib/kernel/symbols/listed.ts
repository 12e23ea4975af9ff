import { wrap } from '../../address.js';
import { KERNEL_HALF } from '../x86-64.js';
import {
  type KernelSymbol,
  nearest,
  noSymbol,
  type SymbolPlace,
  type SymbolTable,
  startingWith,
} from './table.js';

/**
 * A symbol table held in arrays: what a file gives. Per-cpu symbols (offsets from 0) are never
 * moved by `shift`.
 */
export class ListedSymbols implements SymbolTable {
  /** Where the symbols come from: the file. */
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

  /** Symbols in it. */
  get count(): number {
    return this.#sorted.length;
  }

  /** Address of a symbol; `undefined` where there is none of that name. */
  find(name: string): bigint | undefined {
    return this.#byName.get(name)?.address;
  }

  /** Address of a symbol. @throws {VmiError} `VMI_SYMBOL` with names that come close */
  address(name: string): bigint {
    const found = this.find(name);
    if (found === undefined) throw noSymbol(name, this.source, this.#byName.keys());
    return found;
  }

  /** The symbol at or below an address. */
  at(address: bigint): SymbolPlace | undefined {
    return nearest(
      address,
      this.#sorted.length,
      (i) => this.#sorted[i]!.address,
      (i) => this.#sorted[i]!.name,
    );
  }

  /** Every symbol, by ascending address. */
  entries(): Iterable<KernelSymbol> {
    return this.#sorted;
  }

  /** Names that begin with a prefix, sorted; at most `max`. */
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
          : { ...symbol, address: wrap(symbol.address + shift) },
      ),
    );
  }
}
