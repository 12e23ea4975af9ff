import { VmiError } from '../../errors.js';
import { didYouMean } from '../../suggest.js';
import { KERNEL_HALF } from '../x86-64.js';

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

/**
 * The symbol at or below `address` in a table sorted by address; of several at one address the
 * first, as the kernel does.
 */
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
  // A per-cpu symbol (offset from 0) owns no address of the kernel's half, nor of the space
  // between.
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
