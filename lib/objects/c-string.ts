import { wrap } from '../address.js';
import type { ObjectSpace } from './space.js';

/**
 * Bytes of a string that are read at a time, so that a short one at the end of a page needs no
 * second page.
 */
const STRING_PIECE = 64;
const MAX_STRING = 1 << 20;

/** The bytes before a NUL, read a piece at a time. @throws {FaultError} */
export function readCString(space: ObjectSpace, address: bigint, max: number): Buffer {
  const most = Math.min(max, MAX_STRING);
  const parts: Buffer[] = [];
  for (let done = 0; done < most; ) {
    const at = wrap(address + BigInt(done));
    // Up to the next multiple of a piece: a piece never crosses into a page that the string does
    // not reach.
    const length = Math.min(most - done, STRING_PIECE - Number(at % BigInt(STRING_PIECE)));
    const piece = Buffer.allocUnsafe(length);
    const read = space.memory.readInto(at, piece);
    const end = piece.subarray(0, read).indexOf(0);
    parts.push(piece.subarray(0, end < 0 ? read : end));
    if (end >= 0) break;
    if (read < length) space.memory.read(wrap(at + BigInt(read)), 1);
    done += length;
  }
  return Buffer.concat(parts);
}
