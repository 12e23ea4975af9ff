import { CorruptError } from '../../errors.js';
import type { AddressRange, ByteReader } from '../bytes.js';
import {
  broken,
  type KallsymsTables,
  maxOf,
  minOf,
  type ProvenTables,
  readTables,
  seqAt,
  tablesIn,
} from './kallsyms-tables.js';
import { TOKENS } from './kallsyms-tokens.js';
import {
  type KernelSymbol,
  nearest,
  noSymbol,
  type SymbolPlace,
  type SymbolTable,
  startingWith,
  symbolNames,
} from './table.js';

/**
 * Bytes before and after the token table in which the others are: of distributions' kernels, and of
 * any.
 */
const SEARCH = [
  [5n << 20n, 2n << 20n],
  [16n << 20n, 8n << 20n],
] as const;

/** Multiplier of the polynomial hash; odd. */
const HASH_BASE = 0x0100_0193;

/**
 * Every symbol of the running kernel, from its own compressed table (`CONFIG_KALLSYMS`).
 * Names are expanded when asked for; nothing is made per symbol but numbers in arrays.
 * Source: kernel/kallsyms.c, scripts/kallsyms.c.
 */
export class Kallsyms implements SymbolTable {
  readonly source = 'kallsyms';
  readonly count: number;
  readonly tables: KallsymsTables;
  readonly #names: Buffer;
  readonly #starts: Uint32Array;
  readonly #tokens: Buffer;
  readonly #tokenStarts: Uint16Array;
  readonly #tokenLengths: Uint8Array;
  readonly #offsets: Int32Array;
  readonly #seqs: Buffer | undefined;
  readonly #scratch = Buffer.allocUnsafeSlow(1 << 16);
  #hashes: Int32Array | undefined;
  #sortedNames: string[] | undefined;

  private constructor(proven: ProvenTables) {
    const { tables, tokens } = proven;
    this.tables = tables;
    this.count = tables.count;
    this.#names = proven.names;
    this.#starts = proven.starts;
    this.#offsets = proven.offsets;
    this.#tokens = tokens;
    this.#tokenStarts = new Uint16Array(TOKENS);
    this.#tokenLengths = new Uint8Array(TOKENS);
    const index = tokens.length - TOKENS * 2;
    for (let i = 0; i < TOKENS; i++) {
      this.#tokenStarts[i] = tokens.readUInt16LE(index + i * 2);
      const length = tokens.indexOf(0, this.#tokenStarts[i]) - this.#tokenStarts[i]!;
      if (length > 0xff) throw broken(tables.tokenTable, `token ${i} is ${length} bytes long`);
      this.#tokenLengths[i] = length;
    }
    this.#seqs = proven.seqs !== undefined && this.#inOrder(proven.seqs) ? proven.seqs : undefined;
  }

  /**
   * Finds the other tables around a token table.
   * @param image where most symbols must lie
   * @param readable where the tables lie, when that is elsewhere: tables read by physical address
   * @throws {CorruptError} nothing there that agrees, and what did not
   * @throws {FaultError} they cannot be read
   */
  static find(
    memory: ByteReader,
    tokenTable: bigint,
    image: AddressRange,
    readable: AddressRange = image,
  ): Kallsyms {
    let failure: unknown;
    for (const [before, after] of SEARCH) {
      const from = maxOf(readable.start, tokenTable - before) & ~7n;
      const to = minOf(readable.end, tokenTable + after);
      try {
        const bytes = memory.read(from, Number(to - from));
        return new Kallsyms(tablesIn(bytes, from, Number(tokenTable - from), image));
      } catch (error) {
        if (!(error instanceof CorruptError)) throw error;
        failure = error;
      }
    }
    throw failure;
  }

  /**
   * Opens tables whose places are known.
   * @throws {CorruptError} they do not agree
   * @throws {FaultError} they cannot be read
   */
  static open(memory: ByteReader, tables: KallsymsTables, image: AddressRange): Kallsyms {
    return new Kallsyms(readTables(memory, tables, image));
  }

  find(name: string): bigint | undefined {
    const index =
      this.#seqs === undefined ? this.#findByHash(name) : this.#findByOrder(name, this.#seqs);
    return index === undefined ? undefined : this.#addressAt(index);
  }

  address(name: string): bigint {
    const found = this.find(name);
    if (found === undefined) throw noSymbol(name, this.source, symbolNames(this));
    return found;
  }

  at(address: bigint): SymbolPlace | undefined {
    return nearest(
      address,
      this.count,
      (i) => this.#addressAt(i),
      (i) => this.#expand(i).slice(1),
    );
  }

  *entries(): Iterable<KernelSymbol> {
    for (let i = 0; i < this.count; i++) {
      const text = this.#expand(i);
      yield { name: text.slice(1), address: this.#addressAt(i), type: text[0]! };
    }
  }

  complete(prefix: string, max = 100): string[] {
    if (this.#seqs === undefined) {
      if (this.#sortedNames === undefined) {
        const names = new Set<string>();
        for (let i = 0; i < this.count; i++) names.add(this.#expand(i).slice(1));
        this.#sortedNames = [...names].sort();
      }
      return startingWith(this.#sortedNames, prefix, max);
    }
    const found: string[] = [];
    for (let i = this.#lowerBound(prefix, this.#seqs); i < this.count && found.length < max; i++) {
      const name = this.#nameBySeq(i, this.#seqs);
      if (!name.startsWith(prefix)) break;
      if (found.at(-1) !== name) found.push(name);
    }
    return found;
  }

  #addressAt(index: number): bigint {
    const offset = this.#offsets[index]!;
    const { form, base } = this.tables;
    if (form === 'place')
      return BigInt.asUintN(64, this.tables.offsets + BigInt(index * 4 + offset));
    if (form === 'base') return BigInt.asUintN(64, base + BigInt(offset >>> 0));
    return offset >= 0 ? BigInt(offset) : BigInt.asUintN(64, base - 1n - BigInt(offset));
  }

  /** Type letter and name of a symbol. kernel/kallsyms.c, kallsyms_expand_symbol(). */
  #expand(index: number): string {
    // A number out of a guest's table of names: none that it has.
    if (index >= this.count) return '';
    const names = this.#names;
    const scratch = this.#scratch;
    let at = this.#starts[index]!;
    const end = this.#starts[index + 1]!;
    at += names[at]! >= 0x80 ? 2 : 1;
    let length = 0;
    for (; at < end; at++) {
      const token = names[at]!;
      const start = this.#tokenStarts[token]!;
      const size = this.#tokenLengths[token]!;
      if (length + size > scratch.length) break;
      for (let k = 0; k < size; k++) scratch[length + k] = this.#tokens[start + k]!;
      length += size;
    }
    return scratch.toString('latin1', 0, length);
  }

  #nameBySeq(position: number, seqs: Buffer): string {
    return this.#expand(seqAt(seqs, 0, position)).slice(1);
  }

  /** First position in name order that is not below `name`. */
  #lowerBound(name: string, seqs: Buffer): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#nameBySeq(middle, seqs) < name) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #findByOrder(name: string, seqs: Buffer): number | undefined {
    let lowest: number | undefined;
    for (
      let i = this.#lowerBound(name, seqs);
      i < this.count && this.#nameBySeq(i, seqs) === name;
      i++
    ) {
      const index = seqAt(seqs, 0, i);
      if (lowest === undefined || index < lowest) lowest = index;
    }
    return lowest;
  }

  /**
   * Whether neighbours of a sample are in name order (kernels built with LTO order names without
   * their suffix).
   */
  #inOrder(seqs: Buffer): boolean {
    const step = Math.max(1, Math.floor(this.count / 64));
    for (let i = 1; i < this.count; i += step) {
      if (this.#nameBySeq(i - 1, seqs) > this.#nameBySeq(i, seqs)) return false;
    }
    return true;
  }

  #findByHash(name: string): number | undefined {
    this.#hashes ??= this.#hashNames();
    const bytes = Buffer.from(name, 'latin1');
    let hash = 0;
    for (const byte of bytes) hash = (Math.imul(hash, HASH_BASE) + byte) | 0;
    for (let i = this.#hashes.indexOf(hash); i >= 0; i = this.#hashes.indexOf(hash, i + 1)) {
      if (this.#expand(i).slice(1) === name) return i;
    }
    return undefined;
  }

  /** Hashes of all names without expanding them: a polynomial hash joins the tokens' hashes. */
  #hashNames(): Int32Array {
    const powers = new Int32Array(TOKENS);
    const hashes = new Int32Array(TOKENS);
    // Of a first token the first character is the type letter, which is no part of the name.
    const tails = new Int32Array(TOKENS);
    for (let token = 0; token < TOKENS; token++) {
      const start = this.#tokenStarts[token]!;
      let power = 1;
      for (let k = 0; k < this.#tokenLengths[token]!; k++) {
        const byte = this.#tokens[start + k]!;
        power = Math.imul(power, HASH_BASE);
        hashes[token] = Math.imul(hashes[token]!, HASH_BASE) + byte;
        if (k > 0) tails[token] = Math.imul(tails[token]!, HASH_BASE) + byte;
      }
      powers[token] = power;
    }
    const names = this.#names;
    const starts = this.#starts;
    const result = new Int32Array(this.count);
    for (let i = 0; i < result.length; i++) {
      let at = starts[i]!;
      const end = starts[i + 1]!;
      at += names[at]! >= 0x80 ? 2 : 1;
      let hash = tails[names[at++]!]!;
      for (; at < end; at++) {
        const token = names[at]!;
        hash = (Math.imul(hash, powers[token]!) + hashes[token]!) | 0;
      }
      result[i] = hash;
    }
    return result;
  }
}
