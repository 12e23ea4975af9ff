import { CorruptError, hex } from '../../errors.js';
import type { AddressRange, ByteReader } from '../bytes.js';
import { KERNEL_HALF } from '../x86-64.js';
import { checkTokens, MAX_TOKEN_TABLE, TOKENS } from './kallsyms-tokens.js';

/*
 * The tables of kallsyms, as scripts/kallsyms.c writes them into the kernel's read-only data:
 *
 *   offsets        signed 32-bit numbers, one a symbol, ascending by address (see AddressForm)
 *   relative_base  what they count from; absent in 7.x, where each counts from its own place
 *   num_syms       u32, padded to 8 bytes up to 6.x
 *   names          a symbol each: a length (two bytes where the top bit of the first is set), then
 *                  so many token numbers; the first character of the text is nm(1)'s type letter
 *   markers        u32: where every 256th name starts, relative to names
 *   seqs_of_names  3 bytes each, big-endian: numbers of symbols in the order of their names (6.2)
 *   token_table    256 NUL-terminated texts; token_index: u16, where each starts
 *
 * Up to 6.4 that is their order; later, offsets and relative_base stand behind token_index. Each is
 * aligned to 8 bytes, in 7.x to 4. Only the token table can be recognised by itself, so everything
 * else is found around it.
 */

/**
 * How an entry of `kallsyms_offsets` gives an address. kernel/kallsyms.c, kallsyms_sym_address():
 *  - `percpu`: per-cpu symbols are absolute, others below the base (up to 6.14,
 *    CONFIG_KALLSYMS_ABSOLUTE_PERCPU):
 *    `offset >= 0 ? offset : base - 1 - offset`
 *  - `base`: `base + (u32)offset` (x86-64 since per-cpu symbols are not zero-based any more, 6.15)
 *  - `place`: `&offsets[i] + offset` (7.x)
 */
export type AddressForm = 'percpu' | 'base' | 'place';

/** Where the tables of `kernel/kallsyms_internal.h` are, and how many symbols they hold. */
export interface KallsymsTables {
  readonly count: number;
  readonly names: bigint;
  readonly tokenTable: bigint;
  readonly tokenIndex: bigint;
  readonly offsets: bigint;
  readonly form: AddressForm;
  /** Value of `kallsyms_relative_base`; 0 for `place`. */
  readonly base: bigint;
  /**
   * `kallsyms_seqs_of_names`, 3 bytes each: symbols by name (kernel 60443c88f3a8, 6.2 and Debian's
   * 6.1).
   */
  readonly seqs: bigint | undefined;
}

/** Every kernel has more symbols than this, and none has more than the other. */
const MIN_SYMBOLS = 2_000;
const MAX_SYMBOLS = 2_000_000;
/** Bytes of the per-cpu section at most: its symbols are offsets from 0. */
const MAX_PERCPU = 16 << 20;
/** A marker for every 256th name. kernel/kallsyms.c, get_symbol_offset(). */
const MARKER_STEP = 256;

/** Tables and what was read to prove them. */
export interface ProvenTables {
  readonly tables: KallsymsTables;
  readonly tokens: Buffer;
  readonly names: Buffer;
  readonly starts: Uint32Array;
  readonly offsets: Int32Array;
  readonly seqs: Buffer | undefined;
}

/** Finds all tables around a token table, in bytes in hand, and proves that they agree. */
export function tablesIn(
  bytes: Buffer,
  address: bigint,
  tokenTable: number,
  image: AddressRange,
): ProvenTables {
  const where = address + BigInt(tokenTable);
  const tokens = checkTokens(bytes, tokenTable);
  if (tokens === undefined) throw broken(where, 'its token index does not agree');
  const words = wordsOf(bytes);
  const reasons = new Set<string>();
  for (const markers of markerTables(words, tokenTable)) {
    for (const { names, count, countAt } of nameTables(bytes, words, markers)) {
      const walked = nameStarts(bytes, names, count);
      if (walked === undefined || !markersAgree(walked.starts, words, markers, count)) continue;
      const markersEnd = markers + Math.ceil(count / MARKER_STEP) * 4;
      for (const layout of offsetTables(tokens.index + TOKENS * 2, countAt, count)) {
        if (layout.offsets < 0 || layout.end > bytes.length) continue;
        const base = layout.base === undefined ? 0n : bytes.readBigUInt64LE(layout.base);
        if (layout.base !== undefined && (base < KERNEL_HALF || base >= image.end)) continue;
        const offsets = int32Copy(bytes, layout.offsets, count);
        const virtual = address + BigInt(layout.offsets);
        const forms: AddressForm[] = layout.base === undefined ? ['place'] : ['percpu', 'base'];
        const form = provenForm(offsets, base, virtual, forms, image);
        if (form === undefined) continue;
        const seqsAt = [
          align(markersEnd, 8),
          align(markersEnd, 4),
          align(layout.end, 8),
          align(layout.end, 4),
        ].find((at) => at + count * 3 <= bytes.length && areIndexes(bytes, at, count));
        return {
          tables: {
            count,
            names: address + BigInt(names),
            tokenTable: where,
            tokenIndex: address + BigInt(tokens.index),
            offsets: virtual,
            form,
            base: form === 'place' ? 0n : base,
            seqs: seqsAt === undefined ? undefined : address + BigInt(seqsAt),
          },
          tokens: copyOf(bytes, tokenTable, tokens.index + TOKENS * 2),
          names: copyOf(bytes, names, walked.end),
          starts: walked.starts,
          offsets,
          seqs: seqsAt === undefined ? undefined : copyOf(bytes, seqsAt, seqsAt + count * 3),
        };
      }
      reasons.add(
        `${count} names, but no table of their addresses that lies in the kernel's image`,
      );
    }
    if (reasons.size === 0) {
      reasons.add(
        `markers at ${hex(address + BigInt(markers))}, but no names that agree with them`,
      );
    }
  }
  throw broken(where, [...reasons].join('; ') || 'no table of markers near it');
}

/** Reads the tables where they are said to be, and proves that they agree. */
export function readTables(
  memory: ByteReader,
  tables: KallsymsTables,
  image: AddressRange,
): ProvenTables {
  const { count } = tables;
  if (!(count >= MIN_SYMBOLS && count <= MAX_SYMBOLS))
    throw broken(tables.tokenTable, `${count} symbols`);
  const span = tables.tokenIndex - tables.tokenTable;
  if (span < 0n || span > BigInt(MAX_TOKEN_TABLE) + 8n) {
    throw broken(tables.tokenTable, `its token index is at ${hex(tables.tokenIndex)}`);
  }
  const tokens = memory.read(tables.tokenTable, Number(span) + TOKENS * 2);
  const checked = checkTokens(tokens, 0);
  if (checked?.index !== Number(span))
    throw broken(tables.tokenTable, 'its token index does not agree');
  const offsets = int32Copy(memory.read(tables.offsets, count * 4), 0, count);
  if (provenForm(offsets, tables.base, tables.offsets, [tables.form], image) === undefined) {
    throw broken(
      tables.tokenTable,
      `the addresses at ${hex(tables.offsets)} do not ascend within the kernel's image`,
    );
  }
  const names = readNames(memory, tables, image);
  const walked = nameStarts(names, 0, count);
  if (walked === undefined) {
    throw broken(tables.tokenTable, `the names at ${hex(tables.names)} end too early`);
  }
  const seqs = tables.seqs === undefined ? undefined : memory.read(tables.seqs, count * 3);
  const proven = seqs !== undefined && areIndexes(seqs, 0, count) ? seqs : undefined;
  return { tables, tokens, names, starts: walked.starts, offsets, seqs: proven };
}

function copyOf(bytes: Buffer, start: number, end: number): Buffer {
  const copy = Buffer.allocUnsafeSlow(end - start);
  bytes.copy(copy, 0, start, end);
  return copy;
}

function int32Copy(bytes: Buffer, at: number, count: number): Int32Array {
  const copy = new Int32Array(count);
  new Uint8Array(copy.buffer).set(bytes.subarray(at, at + count * 4));
  return copy;
}

export function broken(tokenTable: bigint, why: string): CorruptError {
  return new CorruptError(`kallsyms: token table at ${hex(tokenTable)}: ${why}`, tokenTable);
}

/** The buffer as aligned words; its length may not be a multiple of 4. */
function wordsOf(bytes: Buffer): Uint32Array {
  if (bytes.byteOffset % 4 === 0)
    return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2);
  const copy = new Uint8Array(bytes.length & ~3);
  copy.set(bytes.subarray(0, copy.length));
  return new Uint32Array(copy.buffer);
}

/**
 * Places before the token table that look like `kallsyms_markers`: 0, then names' offsets that
 * grow.
 */
function* markerTables(words: Uint32Array, tokenTable: number): Iterable<number> {
  const last = Math.min(words.length - 9, tokenTable >>> 2);
  outer: for (let i = last; i >= 0; i--) {
    if (words[i] !== 0) continue;
    for (let k = 1; k < MIN_SYMBOLS / MARKER_STEP; k++) {
      if (!grows(words[i + k - 1]!, words[i + k]!)) continue outer;
    }
    yield i * 4;
  }
}

/** 256 names take at least two bytes each, and rarely more than 64. */
function grows(before: number, after: number): boolean {
  return after >= before + MARKER_STEP * 2 && after <= before + MARKER_STEP * 128;
}

/** Places before the markers that can be `kallsyms_num_syms` followed by `kallsyms_names`. */
function* nameTables(
  bytes: Buffer,
  words: Uint32Array,
  markers: number,
): Iterable<{ names: number; count: number; countAt: number }> {
  const first = markers >>> 2;
  let most = 1;
  while (
    most < MAX_SYMBOLS / MARKER_STEP &&
    grows(words[first + most - 1]!, words[first + most] ?? 0)
  )
    most++;
  // The last marker is the offset of a name among the last 256: so far back are the names at least.
  const lastMarker = words[first + most - 1]!;
  const nearest = (markers - lastMarker) >>> 2;
  const farthest = Math.max(0, nearest - MARKER_STEP * 128);
  for (let i = nearest; i >= farthest; i--) {
    const count = words[i]!;
    if (count < MIN_SYMBOLS || count > most * MARKER_STEP || count <= (most - 1) * MARKER_STEP)
      continue;
    // 8-byte alignment pads the count (up to 6.x); 7.x does not.
    for (const names of [i * 4 + 8, i * 4 + 4]) {
      if (names === i * 4 + 8 && words[i + 1] !== 0) continue;
      const end = skipNames(bytes, names, Math.min(count, MARKER_STEP));
      if (end !== undefined && end - names === words[first + 1])
        yield { names, count, countAt: i * 4 };
    }
  }
}

/** Index after `count` names; `undefined` when they leave the buffer. */
function skipNames(bytes: Buffer, names: number, count: number): number | undefined {
  let at = names;
  for (let i = 0; i < count; i++) {
    let length = bytes[at++]!;
    if (length >= 0x80) length = (length & 0x7f) | (bytes[at++]! << 7);
    if (!(length > 0)) return undefined;
    at += length;
    if (at > bytes.length) return undefined;
  }
  return at;
}

/**
 * Where each name's length starts, relative to the first; `undefined` when the names leave the
 * buffer.
 */
function nameStarts(
  bytes: Uint8Array,
  names: number,
  count: number,
): { starts: Uint32Array; end: number } | undefined {
  const starts = new Uint32Array(count + 1);
  const size = bytes.length;
  let at = names;
  for (let i = 0; i < count; i++) {
    starts[i] = at - names;
    let length = bytes[at++]!;
    // The top bit marks the two-byte form (kernel 73bbb94466fd, 6.1).
    if (length >= 0x80) length = (length & 0x7f) | (bytes[at++]! << 7);
    at += length;
    if (!(length > 0 && at <= size)) return undefined;
  }
  starts[count] = at - names;
  return { starts, end: at };
}

function markersAgree(
  starts: Uint32Array,
  words: Uint32Array,
  markers: number,
  count: number,
): boolean {
  const first = markers >>> 2;
  for (let i = 0; i < count; i += MARKER_STEP) {
    if (words[first + i / MARKER_STEP] !== starts[i]) return false;
  }
  return true;
}

/** Where offsets and base are in the layouts known. */
function offsetTables(
  afterTokens: number,
  countAt: number,
  count: number,
): { offsets: number; base?: number; end: number }[] {
  const size = count * 4;
  const after8 = align(afterTokens, 8);
  const after4 = align(afterTokens, 4);
  const before = countAt - 8;
  return [
    // 6.5 and later: behind the token index, then the base (kernel 404bad70fcf7).
    { offsets: after8, base: align(after8 + size, 8), end: align(after8 + size, 8) + 8 },
    // Before: offsets, base, num_syms.
    { offsets: before - align(size, 8), base: before, end: before + 8 },
    // 7.x: behind the token index, no base, aligned to 4.
    { offsets: after4, end: after4 + size },
    { offsets: after8, end: after8 + size },
  ];
}

/**
 * The form in which offsets ascend and most lie in the image, on a sample of thousands: symbols are
 * sorted by address.
 */
function provenForm(
  offsets: Int32Array,
  base: bigint,
  table: bigint,
  forms: readonly AddressForm[],
  image: AddressRange,
): AddressForm | undefined {
  const count = offsets.length;
  const step = Math.max(1, Math.floor(count / 8192));
  for (const form of forms) {
    // Distances from the base (or the table), as numbers: exact, and no bigint for 200,000 symbols.
    const origin = form === 'place' ? table : base;
    if (form !== 'place' && (base < KERNEL_HALF || base >= image.end)) continue;
    const low = Number(image.start - origin);
    const high = Number(image.end - origin);
    let inside = 0;
    let looked = 0;
    let before = -(2 ** 40);
    let i = 0;
    for (; i < count; i += step) {
      const offset = offsets[i]!;
      let distance: number;
      if (form === 'place') distance = offset + i * 4;
      else if (form === 'base') distance = offset >>> 0;
      else distance = offset < 0 ? -1 - offset : offset - 2 ** 33;
      if (distance < before || (form === 'percpu' && offset >= MAX_PERCPU)) break;
      before = distance;
      looked++;
      if (distance >= low && distance <= high) inside++;
    }
    if (i >= count && inside * 2 > looked) return form;
  }
  return undefined;
}

/**
 * Whether 3-byte big-endian numbers can be numbers of symbols, on a sample. That they are in the
 * order of names is proven by {@link Kallsyms} itself.
 */
function areIndexes(bytes: Buffer, at: number, count: number): boolean {
  const step = Math.max(1, Math.floor(count / 1024));
  for (let i = 0; i < count; i += step) if (seqAt(bytes, at, i) >= count) return false;
  return true;
}

/** Entry `position` of `kallsyms_seqs_of_names`. kernel/kallsyms.c, get_symbol_seq(). */
export function seqAt(bytes: Buffer, at: number, position: number): number {
  const entry = at + position * 3;
  return (bytes[entry]! << 16) | (bytes[entry + 1]! << 8) | bytes[entry + 2]!;
}

function align(value: number, to: number): number {
  return Math.ceil(value / to) * to;
}

export function maxOf(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}

export function minOf(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}

/** Reads the names: up to the next table behind them, whose length is not written anywhere. */
function readNames(memory: ByteReader, tables: KallsymsTables, image: AddressRange): Buffer {
  const limit = BigInt(tables.count) * 64n;
  let end = minOf(image.end, tables.names + limit);
  for (const table of [tables.tokenTable, tables.offsets, tables.seqs]) {
    if (table !== undefined && table > tables.names && table < end) end = table;
  }
  if (end <= tables.names)
    throw broken(tables.tokenTable, `the names at ${hex(tables.names)} lie outside the image`);
  return memory.read(tables.names, Number(end - tables.names));
}
