import { PAGE_SIZE } from '../../address.js';

/** Bytes that are kept or left out together. */
const CHUNK = 32;
const CHUNKS = PAGE_SIZE / CHUNK;
/** Bytes of the mask that says which chunks of a page there are: one bit each, the lowest first. */
const MASK = CHUNKS / 8;

interface RecordedPage {
  readonly bytes: Uint8Array;
  readonly mask: Uint8Array;
}

/** The pages that were read, and which parts of them: of most, a few members of one structure. */
export class RecordedPages {
  readonly #pages = new Map<number, RecordedPage>();

  /** Pages of which there is anything. */
  get count(): number {
    return this.#pages.size;
  }

  /** Numbers of the pages, ascending. */
  get numbers(): number[] {
    return [...this.#pages.keys()].sort((a, b) => a - b);
  }

  /** The whole of a page as it was when it was first read. */
  page(number: number): Uint8Array | undefined {
    return this.#pages.get(number)?.bytes;
  }

  /** Adds a page of which nothing is kept yet. */
  add(number: number, bytes: Uint8Array): void {
    this.#pages.set(number, { bytes, mask: new Uint8Array(MASK) });
  }

  /** Keeps what a read asked for, of the pages that there are. */
  keep(address: bigint, length: number): void {
    forChunks(address, length, (number, chunk) => {
      const mask = this.#pages.get(number)?.mask;
      if (mask !== undefined) mask[chunk >> 3]! |= 1 << (chunk & 7);
      return true;
    });
  }

  /** The first address of `length` bytes that is not kept; `undefined`: all are. */
  missing(address: bigint, length: number): bigint | undefined {
    let missing: bigint | undefined;
    forChunks(address, length, (number, chunk) => {
      if (isKept(this.#pages.get(number), chunk)) return true;
      missing = BigInt(number) * BigInt(PAGE_SIZE) + BigInt(chunk * CHUNK);
      return false;
    });
    return missing;
  }

  /** Runs of kept bytes within a page: offset and length. */
  runs(number: number): [offset: number, length: number][] {
    const page = this.#pages.get(number);
    const runs: [number, number][] = [];
    for (let chunk = 0; chunk < CHUNKS; chunk++) {
      if (!isKept(page, chunk)) continue;
      const last = runs.at(-1);
      if (last !== undefined && last[0] + last[1] === chunk * CHUNK) last[1] += CHUNK;
      else runs.push([chunk * CHUNK, CHUNK]);
    }
    return runs;
  }

  /** Page numbers (u64 each), masks, then the chunks, in that order. */
  pack(): Buffer {
    const { numbers } = this;
    const chunks = numbers.flatMap((number) =>
      this.runs(number).map(([at, length]) => this.page(number)!.subarray(at, at + length)),
    );
    return Buffer.concat([
      Buffer.from(BigUint64Array.from(numbers, BigInt).buffer),
      ...numbers.map((number) => this.#pages.get(number)!.mask),
      ...chunks,
    ]);
  }

  /** What {@link pack} made of `count` pages. @throws {Error} it is none */
  static unpack(packed: Buffer, count: number): RecordedPages {
    const pages = new RecordedPages();
    let at = count * (8 + MASK);
    if (!Number.isInteger(count) || count < 0 || at > packed.length)
      throw new Error(`${count} pages in ${packed.length} bytes`);
    for (let i = 0; i < count; i++) {
      const number = Number(packed.readBigUInt64LE(i * 8));
      const bytes = new Uint8Array(PAGE_SIZE);
      const mask = packed.subarray(count * 8 + i * MASK, count * 8 + (i + 1) * MASK);
      pages.#pages.set(number, { bytes, mask });
      for (const [offset, length] of pages.runs(number)) {
        bytes.set(packed.subarray(at, at + length), offset);
        at += length;
      }
    }
    if (at !== packed.length) throw new Error(`${count} pages of ${at} bytes in ${packed.length}`);
    return pages;
  }
}

function isKept(page: RecordedPage | undefined, chunk: number): boolean {
  return page !== undefined && ((page.mask[chunk >> 3]! >> (chunk & 7)) & 1) === 1;
}

/** Calls `each` for every chunk of a run, until it says false. */
function forChunks(
  address: bigint,
  length: number,
  each: (number: number, chunk: number) => boolean,
): void {
  let number = Number(address / BigInt(PAGE_SIZE));
  let offset = Number(address % BigInt(PAGE_SIZE));
  for (let left = length; left > 0; number++) {
    const end = Math.min(offset + left, PAGE_SIZE);
    const last = Math.ceil(end / CHUNK);
    for (let chunk = Math.floor(offset / CHUNK); chunk < last; chunk++) {
      if (!each(number, chunk)) return;
    }
    left -= end - offset;
    offset = 0;
  }
}
