import { inflateSync } from 'node:zlib';
import { Decompress } from 'fzstd';
import { unpackLzo } from './lzo.js';
import { unpackSnappy } from './snappy.js';

/** Unpacks a block of at most `max` bytes. @throws {Error} it is broken, or longer */
export type Unpack = (packed: Uint8Array, max: number) => Uint8Array;

/**
 * How a page of a kdump is packed, by the flag in its descriptor. makedumpfile diskdump_mod.h,
 * DUMP_DH_COMPRESSED_….
 */
export const PACKINGS: Readonly<Record<number, Unpack>> = {
  1: (packed, max) => inflateSync(packed, { maxOutputLength: max }),
  2: unpackLzo,
  4: unpackSnappy,
  32: unpackZstd,
};

/** Largest window that zstd itself takes without being asked to. zstd(1), --long. */
export const MAX_ZSTD_WINDOW = 128 << 20;

/**
 * Bytes that a zstd frame asks its reader to keep. RFC 8878, 3.1.1.1.
 * @throws {Error} it is no zstd frame
 */
export function zstdWindow(head: Uint8Array): number {
  if (head.length < 6) throw new Error('its zstd frame is truncated');
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  if (view.getUint32(0, true) !== 0xfd2f_b528) throw new Error('it is no zstd frame');
  const flags = head[4]!;
  if ((flags & 0x20) === 0) {
    const base = 2 ** (10 + (head[5]! >> 3));
    return base + (base / 8) * (head[5]! & 7);
  }
  // One segment: the window is the content, whose size stands behind the dictionary's number.
  const at = 5 + [0, 1, 2, 4][flags & 3]!;
  const bytes = 1 << (flags >> 6);
  if (at + bytes > head.length) throw new Error('its zstd frame is truncated');
  let size = bytes === 2 ? 256 : 0;
  for (let i = 0; i < bytes; i++) size += head[at + i]! * 2 ** (8 * i);
  return size;
}

/** Unpacks zstd in one piece. */
export function unpackZstd(packed: Uint8Array, max: number): Uint8Array {
  if (zstdWindow(packed) > Math.max(max, 1024))
    throw new Error(`its zstd frame has more than ${max} bytes`);
  const into = new Uint8Array(max);
  let length = 0;
  let ended = false;
  const stream = new Decompress((part, final) => {
    if (length + part.length > max) throw new Error(`its zstd frame has more than ${max} bytes`);
    into.set(part, length);
    length += part.length;
    ended = final === true;
  });
  stream.push(packed, true);
  if (!ended) throw new Error('its zstd frame is truncated');
  return into.subarray(0, length);
}
