import { VmiError } from '../errors.js';
import type { WriteOptions } from '../memory/virtual-memory.js';
import type { ValueMemory } from './space.js';

/** Memory with a part of it replaced by a copy. */
export class Overlay implements ValueMemory {
  readonly #below: ValueMemory;
  readonly #start: bigint;
  readonly #bytes: Buffer;

  constructor(below: ValueMemory, start: bigint, bytes: Buffer) {
    this.#below = below;
    this.#start = start;
    this.#bytes = bytes;
  }

  readU64(address: bigint): bigint {
    const at = this.#offset(address, 8);
    return at < 0 ? this.#below.readU64(address) : this.#bytes.readBigUInt64LE(at);
  }

  readU32(address: bigint): number {
    const at = this.#offset(address, 4);
    return at < 0 ? this.#below.readU32(address) : this.#bytes.readUInt32LE(at);
  }

  readInto(address: bigint, into: Uint8Array): number {
    const at = this.#offset(address, into.length);
    if (at < 0) return this.#below.readInto(address, into);
    into.set(this.#bytes.subarray(at, at + into.length));
    return into.length;
  }

  read(address: bigint, length: number): Buffer {
    const at = this.#offset(address, length);
    if (at < 0) return this.#below.read(address, length);
    return Buffer.from(this.#bytes.subarray(at, at + length));
  }

  /** What was copied stays as it was. */
  write(address: bigint, bytes: Uint8Array, options?: WriteOptions): void {
    const isCopied =
      address < this.#start + BigInt(this.#bytes.length) &&
      address + BigInt(bytes.length) > this.#start;
    if (isCopied)
      throw new VmiError(
        'VMI_READ_ONLY',
        'a snapshot is a copy: write the object that it was taken of',
      );
    this.#below.write(address, bytes, options);
  }

  /** Where an address is in the copy; -1: not wholly within it. */
  #offset(address: bigint, length: number): number {
    const offset = address - this.#start;
    return offset >= 0n && offset + BigInt(length) <= BigInt(this.#bytes.length)
      ? Number(offset)
      : -1;
  }
}
