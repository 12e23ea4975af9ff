// @ts-check

/** Numbers that a seed determines: splitmix64. */
export class Random {
  #state;

  /** @param {number | bigint} seed */
  constructor(seed) {
    this.#state = BigInt.asUintN(64, BigInt(seed));
  }

  /** Any 64 bits. @returns {bigint} */
  u64() {
    this.#state = BigInt.asUintN(64, this.#state + 0x9e37_79b9_7f4a_7c15n);
    let z = this.#state;
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58_476d_1ce4_e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d0_49bb_1331_11ebn);
    return z ^ (z >> 31n);
  }

  /** An integer from 0 to `count` - 1. @param {number} count @returns {number} */
  below(count) {
    return Number((this.u64() >> 11n) % BigInt(count));
  }

  /** @param {number} percent @returns {boolean} */
  chance(percent) {
    return this.below(100) < percent;
  }

  /** @template T @param {readonly T[]} choices @returns {T} */
  pick(choices) {
    const choice = choices[this.below(choices.length)];
    if (choice === undefined) throw new RangeError('nothing to pick from');
    return choice;
  }

  /** @param {number} length @returns {Buffer} */
  bytes(length) {
    const bytes = Buffer.alloc(length);
    for (let at = 0; at < length; at += 8) {
      const part = Buffer.alloc(8);
      part.writeBigUInt64LE(this.u64());
      part.copy(bytes, at);
    }
    return bytes;
  }
}
