import type { Bytes } from './file.js';

const CHUNK = 4 << 20;

/** Reads a stream from front to back, big-endian. */
export class Cursor {
  readonly #bytes: Bytes;
  readonly #ended: () => Error;
  #next: bigint;
  #buffer: Buffer = Buffer.alloc(0);
  #at = 0;

  /** @param ended the error for a stream that ends too early */
  constructor(bytes: Bytes, start: bigint, ended: () => Error) {
    this.#bytes = bytes;
    this.#next = start;
    this.#ended = ended;
  }

  u8(): number {
    this.#fill(1);
    return this.#buffer[this.#at++]!;
  }

  u32(): number {
    this.#fill(4);
    this.#at += 4;
    return this.#buffer.readUInt32BE(this.#at - 4);
  }

  u64(): bigint {
    this.#fill(8);
    this.#at += 8;
    return this.#buffer.readBigUInt64BE(this.#at - 8);
  }

  /** A view, good until the next read. */
  bytes(length: number): Buffer {
    this.#fill(length);
    this.#at += length;
    return this.#buffer.subarray(this.#at - length, this.#at);
  }

  text(length: number): string {
    return this.bytes(length).toString('latin1');
  }

  /** Goes on at an offset of the bytes. */
  seek(offset: bigint): void {
    this.#next = offset;
    this.#buffer = Buffer.alloc(0);
    this.#at = 0;
  }

  /** The next byte, which stays; `undefined` at the end. */
  peek(): number | undefined {
    try {
      this.#fill(1);
    } catch {
      return undefined;
    }
    return this.#buffer[this.#at];
  }

  #fill(length: number): void {
    const rest = this.#buffer.length - this.#at;
    if (rest >= length) return;
    if (length > CHUNK) throw this.#ended();
    const more = this.#bytes.read(this.#next, CHUNK);
    this.#next += BigInt(more.length);
    this.#buffer = Buffer.concat([this.#buffer.subarray(this.#at), more]);
    this.#at = 0;
    if (this.#buffer.length < length) throw this.#ended();
  }
}
