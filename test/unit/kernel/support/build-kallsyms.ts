/** Makes the tables that scripts/kallsyms.c writes, from a list of symbols. */

export interface BuiltSymbol {
  readonly name: string;
  readonly address: bigint;
  readonly type: string;
}

/** `before`: up to 6.4; `behind`: 6.5 and later; `place`: 7.x. */
export type Layout = 'before' | 'before-seqs' | 'behind' | 'place';
export const LAYOUTS: readonly Layout[] = ['before', 'before-seqs', 'behind', 'place'];

export interface BuiltKallsyms {
  readonly bytes: Buffer;
  readonly tokenTable: number;
  readonly tokenIndex: number;
  readonly names: number;
  readonly markers: number;
  readonly offsets: number;
  readonly countAt: number;
  readonly seqs: number | undefined;
}

const PERCPU_LIMIT = 0x10_0000n;

/** 256 tokens: printable characters stand for themselves, the rest for pairs. */
export function tokens(): string[] {
  const letters = 'abcdefghijklmnopqrstuvwxyz_';
  let pair = 0;
  return Array.from({ length: 256 }, (_, i) => {
    if (i >= 0x21 && i <= 0x7e) return String.fromCharCode(i);
    const made = letters[pair % 27]! + letters[(pair * 7 + 4) % 27]!;
    pair++;
    return made;
  });
}

function compress(text: string, pairs: ReadonlyMap<string, number>): number[] {
  const out: number[] = [];
  for (let i = 0; i < text.length; ) {
    const token = pairs.get(text.slice(i, i + 2));
    if (token !== undefined && text.length - i >= 2) {
      out.push(token);
      i += 2;
    } else {
      out.push(text.charCodeAt(i));
      i++;
    }
  }
  return out;
}

/** Lays the tables out from `address` on; `symbols` are sorted here. */
export function buildKallsyms(
  symbols: readonly BuiltSymbol[],
  layout: Layout,
  address: bigint,
): BuiltKallsyms {
  const sorted = symbols
    .map((symbol, i) => ({ ...symbol, i }))
    .sort((a, b) => (a.address < b.address ? -1 : a.address > b.address ? 1 : a.i - b.i));
  const list = tokens();
  const pairs = new Map<string, number>();
  list.forEach((token, i) => {
    if (token.length === 2 && !pairs.has(token)) pairs.set(token, i);
  });
  const names: number[] = [];
  const starts: number[] = [];
  for (const { name, type } of sorted) {
    starts.push(names.length);
    const data = compress(type + name, pairs);
    if (data.length < 0x80) names.push(data.length);
    else names.push((data.length & 0x7f) | 0x80, data.length >> 7);
    for (const byte of data) names.push(byte);
  }
  const base = sorted.find((symbol) => symbol.address >= PERCPU_LIMIT)?.address ?? 0n;
  const step = layout === 'place' ? 4 : 8;
  let bytes = Buffer.alloc(0);
  const append = (part: Buffer): number => {
    const at = Math.ceil(bytes.length / step) * step;
    bytes = Buffer.concat([bytes, Buffer.alloc(at - bytes.length), part]);
    return at;
  };
  const u32 = (value: number) => {
    const part = Buffer.alloc(4);
    part.writeUInt32LE(value);
    return part;
  };
  const u64 = (value: bigint) => {
    const part = Buffer.alloc(8);
    part.writeBigUInt64LE(value);
    return part;
  };
  const offsetsPart = () =>
    append(
      Buffer.concat(
        sorted.map((symbol) => {
          const value =
            symbol.address < PERCPU_LIMIT
              ? Number(symbol.address)
              : -1 - Number(symbol.address - base);
          const part = Buffer.alloc(4);
          part.writeInt32LE(value);
          return part;
        }),
      ),
    );
  const placeOffsets = () => {
    const at = Math.ceil(bytes.length / step) * step;
    return append(
      Buffer.concat(
        sorted.map((symbol, i) => {
          const part = Buffer.alloc(4);
          part.writeInt32LE(Number(symbol.address - (address + BigInt(at + i * 4))));
          return part;
        }),
      ),
    );
  };
  const seqsPart = () => {
    const order = sorted.map((_, i) => i);
    order.sort((a, b) =>
      sorted[a]!.name < sorted[b]!.name ? -1 : sorted[a]!.name > sorted[b]!.name ? 1 : a - b,
    );
    return append(Buffer.from(order.flatMap((i) => [i >> 16, (i >> 8) & 255, i & 255])));
  };
  const markersPart = () => append(Buffer.concat(starts.filter((_, i) => i % 256 === 0).map(u32)));
  const namesPart = () => append(Buffer.from(names));

  let offsets = 0;
  let seqs: number | undefined;
  if (layout === 'before' || layout === 'before-seqs') {
    offsets = offsetsPart();
    append(u64(base));
  }
  const countAt = append(u32(sorted.length));
  const namesAt = namesPart();
  const markers = markersPart();
  if (layout === 'before-seqs') seqs = seqsPart();
  const tokenTable = append(Buffer.from(list.map((token) => `${token}\0`).join(''), 'latin1'));
  let at = 0;
  const index = list.map((token) => {
    const part = Buffer.alloc(2);
    part.writeUInt16LE(at);
    at += token.length + 1;
    return part;
  });
  const tokenIndex = append(Buffer.concat(index));
  if (layout === 'behind') {
    offsets = offsetsPart();
    append(u64(base));
    seqs = seqsPart();
  } else if (layout === 'place') {
    offsets = placeOffsets();
    seqs = seqsPart();
  }
  append(Buffer.alloc(64));
  return { bytes, tokenTable, tokenIndex, names: namesAt, markers, offsets, countAt, seqs };
}

/** Symbols enough to be a kernel's: `count` functions from `start` on, 16 bytes each. */
export function manySymbols(start: bigint, count = 2500): BuiltSymbol[] {
  return Array.from({ length: count }, (_, i) => ({
    name: `function_number_${i}`,
    address: start + BigInt(i) * 16n,
    type: i % 3 === 0 ? 'T' : 't',
  }));
}
