import type { ByteReader } from './bytes.js';

/** ELF note of a build-id. include/uapi/linux/elf.h, NT_GNU_BUILD_ID. */
const NT_GNU_BUILD_ID = 3;
const MAX_NOTES = 1 << 16;

/** A build-id, and where its bytes are. */
export interface BuildId {
  readonly hex: string;
  readonly address: bigint;
}

/**
 * Finds the GNU build-id between `__start_notes` and `__stop_notes`; `undefined` when there is
 * none, or when the notes are broken.
 */
export function findBuildId(memory: ByteReader, start: bigint, stop: bigint): BuildId | undefined {
  const length = Number(stop - start);
  if (!(length > 0 && length <= MAX_NOTES)) return undefined;
  const bytes = memory.read(start, length);
  let at = 0;
  while (at + 12 <= bytes.length) {
    const nameLength = bytes.readUInt32LE(at);
    const length = bytes.readUInt32LE(at + 4);
    const type = bytes.readUInt32LE(at + 8);
    const name = at + 12;
    const description = name + pad(nameLength);
    if (nameLength > MAX_NOTES || length > MAX_NOTES || description + length > bytes.length)
      return undefined;
    if (type === NT_GNU_BUILD_ID && bytes.toString('latin1', name, name + nameLength) === 'GNU\0') {
      // SHA-1 is usual; 8 to 32 bytes are possible (ld --build-id).
      if (length < 8 || length > 32) return undefined;
      return {
        hex: bytes.toString('hex', description, description + length),
        address: start + BigInt(description),
      };
    }
    at = description + pad(length);
  }
  return undefined;
}

function pad(length: number): number {
  return Math.ceil(length / 4) * 4;
}
