// LZO1X, as lzo1x_1_compress() writes it: instructions that copy bytes of the input (literals) or
// of the output so far (a match). `state` is how many literals came last: 0 to 3, or 4 for more.
//
// byte     follows   means
// 0-15     -         state 0: 3 + L literals (L: the byte; 0: 15 + 255 a zero byte + the one after)
// 0-15     H         match of 2 at (H<<2) + D + 1; in state 4 of 3 at (H<<2) + D + 2049 (DD SS)
// 16-31    16 bits   match of 2 + L at 16384 + (bit 3 << 14) + (bits >> 2); at 16384: the end
//                    (L: the low 3 bits; 0: 7 + …)
// 32-63    16 bits   match of 2 + L at (bits >> 2) + 1 (L: the low 5 bits; 0: 31 + …)
// 64-255   H         match of 1 + (byte >> 5) at (H<<3) + D + 1 (LLL DDD SS)
//
// SS, or the low two bits of the 16: so many literals follow the match. A first byte above 17 means
// byte - 17 literals. Linux Documentation/staging/lzo.rst.

/**
 * Unpacks one block of LZO1X.
 * @throws {Error} it is broken, or has more than `max` bytes
 */
export function unpackLzo(packed: Uint8Array, max: number): Uint8Array {
  const reader = new LzoBlock(packed, max);
  return reader.unpack();
}

class LzoBlock {
  readonly #packed: Uint8Array;
  readonly #into: Uint8Array;
  #at = 0;
  #length = 0;

  constructor(packed: Uint8Array, max: number) {
    this.#packed = packed;
    this.#into = new Uint8Array(max);
  }

  unpack(): Uint8Array {
    let state = 0;
    const first = this.#packed[0] ?? 0;
    if (first > 17) {
      this.#at = 1;
      this.#literals(first - 17);
      state = Math.min(first - 17, 4);
    }
    for (;;) {
      const byte = this.#next();
      if (byte < 16 && state === 0) {
        this.#literals(3 + this.#count(byte, 15));
        state = 4;
        continue;
      }
      const next = this.#match(byte, state);
      if (next === undefined) break;
      state = next;
      this.#literals(state);
    }
    if (this.#at !== this.#packed.length) throw new Error('bytes follow the end of its LZO block');
    return this.#into.subarray(0, this.#length);
  }

  /** Copies a match. @returns literals that follow; `undefined`: the end */
  #match(byte: number, state: number): number | undefined {
    if (byte < 16) {
      const far = (this.#next() << 2) + (byte >> 2);
      if (state === 4) this.#copy(3, far + 2049);
      else this.#copy(2, far + 1);
      return byte & 3;
    }
    if (byte >= 64) {
      this.#copy(1 + (byte >> 5), (this.#next() << 3) + ((byte >> 2) & 7) + 1);
      return byte & 3;
    }
    const long = byte >= 32;
    const count = 2 + (long ? this.#count(byte & 31, 31) : this.#count(byte & 7, 7));
    const bits = this.#next() | (this.#next() << 8);
    const distance = long ? (bits >> 2) + 1 : 16_384 + ((byte & 8) << 11) + (bits >> 2);
    if (!long && distance === 16_384) return undefined;
    this.#copy(count, distance);
    return bits & 3;
  }

  #next(): number {
    const byte = this.#packed[this.#at++];
    if (byte === undefined) throw new Error('its LZO block is truncated');
    return byte;
  }

  #count(low: number, base: number): number {
    if (low !== 0) return low;
    for (let count = base; ; count += 255) {
      const byte = this.#next();
      if (byte !== 0) return count + byte;
      if (count > this.#into.length) throw new Error('its LZO block is longer than a page');
    }
  }

  #literals(count: number): void {
    if (this.#at + count > this.#packed.length) throw new Error('its LZO block is truncated');
    if (this.#length + count > this.#into.length)
      throw new Error('its LZO block is longer than a page');
    this.#into.set(this.#packed.subarray(this.#at, this.#at + count), this.#length);
    this.#at += count;
    this.#length += count;
  }

  #copy(count: number, distance: number): void {
    if (distance > this.#length) throw new Error('its LZO block refers to what is before it');
    if (this.#length + count > this.#into.length)
      throw new Error('its LZO block is longer than a page');
    // Byte by byte: a match may overlap what it makes.
    for (let i = 0; i < count; i++, this.#length++)
      this.#into[this.#length] = this.#into[this.#length - distance]!;
  }
}
