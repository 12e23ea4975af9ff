import { expect } from 'vitest';
import { thrownBy } from './ram.js';

/** Values of every type; each test leaves out those it accepts. */
export const EVERYTHING: Record<string, unknown> = {
  undefined: undefined,
  null: null,
  boolean: true,
  number: 4096,
  fraction: 0.5,
  negative: -1,
  huge: 1e300,
  infinity: Number.POSITIVE_INFINITY,
  nan: Number.NaN,
  string: '4096',
  symbol: Symbol('4096'),
  bigint: 4096n,
  'negative bigint': -1n,
  'large bigint': 1n << 64n,
  object: {},
  array: [4096n],
  function: () => 4096n,
  date: new Date(),
  proxy: new Proxy({}, {}),
  DataView: new DataView(new ArrayBuffer(8)),
  ArrayBuffer: new ArrayBuffer(64),
  Uint8Array: new Uint8Array(64),
  Uint8ClampedArray: new Uint8ClampedArray(64),
  Int32Array: new Int32Array(3),
  Float64Array: new Float64Array(8),
  BigInt64Array: new BigInt64Array(3),
  BigUint64Array: new BigUint64Array(3),
};

/**
 * `call` throws a TypeError or RangeError of the usual form for everything but what `accepted`
 * names.
 */
export function expectMisuse(call: (value: never) => unknown, accepted: string[]): void {
  for (const [name, value] of Object.entries(EVERYTHING)) {
    if (accepted.includes(name)) continue;
    const error = thrownBy(() => call(value as never));
    expect(error instanceof TypeError || error instanceof RangeError, `${name}: ${error}`).toBe(
      true,
    );
    expect(error.message, name).toMatch(/^Expected .+ but received .+$/s);
    expect(error.code, name).toBeUndefined();
  }
}

export const ADDRESSES = ['bigint'];
export const NUMBERS = ['number'];
export const BYTES = ['Uint8Array'];
export const WORDS = ['BigUint64Array'];
