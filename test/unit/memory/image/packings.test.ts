import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { unpackLzo } from '../../../../lib/memory/image/lzo.js';
import { PACKINGS, unpackZstd } from '../../../../lib/memory/image/packings.js';
import { unpackSnappy } from '../../../../lib/memory/image/snappy.js';
import { PACK, pageOf } from './support/dumps.js';

/** Text, zeroes, noise, near and far repeats; the same as what made the vectors. */
function mixed(seed: number): Buffer {
  let x = seed;
  const next = () => {
    x = (Math.imul(x, 1103515245) + 12345) & 0x7fff_ffff;
    return x;
  };
  let out = Buffer.alloc(0);
  const add = (bytes: Uint8Array) => {
    out = Buffer.concat([out, bytes]);
  };
  while (out.length < 4096) {
    const kind = (next() >> 16) % 5;
    if (kind === 0) add(Buffer.from(`node-libvmi ${x >> 8}\n`));
    else if (kind === 1) add(Buffer.alloc((x >> 24) % 200));
    else if (kind === 2) for (let i = 0; i < 20; i++) add(Buffer.of((next() >> 16) & 255));
    else if (kind === 3 && out.length > 1500)
      add(out.subarray(out.length - 1400, out.length - 1400 + ((x >> 20) % 300)));
    else for (let i = 0, end = out.subarray(-3); i < 7; i++) add(end);
  }
  return out.subarray(0, 4096);
}

/**
 * As lzo1x_1_compress() of liblzo2 2.10 and snappy_compress() of libsnappy 1.1.9 pack
 * `mixed(seed)`.
 */
const vectors = JSON.parse(
  readFileSync(new URL('./support/packed-pages.json', import.meta.url), 'utf8'),
) as Record<string, { readonly lzo: string; readonly snappy: string }>;
const vector = (seed: string, kind: 'lzo' | 'snappy') =>
  Buffer.from(vectors[seed]![kind], 'base64');

describe.each(Object.keys(vectors))('page %s, packed by the real library', (seed) => {
  it('unpacks from LZO', () => {
    expect(mixed(Number(seed)).equals(unpackLzo(vector(seed, 'lzo'), 4096))).toBe(true);
  });
  it('unpacks from snappy', () => {
    expect(mixed(Number(seed)).equals(unpackSnappy(vector(seed, 'snappy'), 4096))).toBe(true);
  });
});

describe.each([1, 2, 4, 32])('packing %i', (flags) => {
  const unpack = PACKINGS[flags]!;
  const whole =
    flags === 2 ? vector('1', 'lzo') : flags === 4 ? vector('1', 'snappy') : PACK[flags]!(mixed(1));

  it('refuses to make more than it may', () => {
    expect(() => unpack(whole, 4095)).toThrow();
    expect(() => unpack(whole, 100)).toThrow();
  });

  it('refuses a block that ends early, wherever', () => {
    for (let length = 0; length < whole.length; length++)
      expect(() => unpack(whole.subarray(0, length), 4096), `${length} bytes`).toThrow();
  });

  it('ends for any bytes, in an error or in no more than it may make', () => {
    const isBounded = (bytes: Uint8Array) => {
      try {
        expect(unpack(bytes, 4096).length).toBeLessThanOrEqual(4096);
      } catch (error) {
        expect(error).toBeInstanceOf(Error);
      }
    };
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), isBounded), { numRuns: 500 });
    const bent = fc.tuple(fc.nat(whole.length - 1), fc.nat(255)).map(([at, byte]) => {
      const bytes = Uint8Array.from(whole);
      bytes[at] = byte;
      return bytes;
    });
    fc.assert(fc.property(bent, isBounded), { numRuns: 500 });
  });
});

it('unpacks zstd without a library to make it', () => {
  expect(pageOf(3).equals(unpackZstd(PACK[32]!(pageOf(3)), 4096))).toBe(true);
});
