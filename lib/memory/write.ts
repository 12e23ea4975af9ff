import { FaultError, fromNative } from '../errors.js';
import { describe } from '../options.js';

/** Writes guest memory; returns the bytes written before the first that cannot be. */
export type WriteBytes = (address: bigint, bytes: Uint8Array) => number;

/** What is asked of the memory that is written. */
interface Ram {
  contains(address: bigint): boolean;
  absent(address: bigint): boolean;
}

/** @throws {TypeError} */
export function checkBytes(bytes: Uint8Array): Uint8Array {
  if (bytes instanceof Uint8Array) return bytes;
  throw new TypeError(`Expected bytes as a Buffer or Uint8Array but received ${describe(bytes)}`);
}

/**
 * Writes all bytes, or none where the RAM at one of them is not to be had.
 * @throws {FaultError} the first address that is not RAM, or not in the dump
 */
export function writeAll(memory: Ram, write: WriteBytes, from: bigint, bytes: Uint8Array): void {
  const fail = (address: bigint, transferred: number) =>
    new FaultError({
      address,
      space: 'physical',
      cr3: undefined,
      requested: bytes.length,
      transferred,
      level: 0,
      absent: memory.absent(address),
      write: true,
    });
  const end = from + BigInt(bytes.length);
  for (let at = from; at < end; at = (at & ~0xfffn) + 0x1000n) {
    if (!memory.contains(at) || memory.absent(at)) throw fail(at, 0);
  }
  let done: number;
  try {
    done = write(from, bytes);
  } catch (error) {
    throw fromNative(error);
  }
  if (done < bytes.length) throw fail(from + BigInt(done), done);
}
