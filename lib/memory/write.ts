import { FaultError, fromNative, hex, LEVEL_NAMES, VmiError } from '../errors.js';
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

/** What is asked of the address space that is written. */
interface Space {
  readonly root: bigint;
  readonly physical: Ram & {
    checkWritable(): WriteBytes;
    write(address: bigint, bytes: Uint8Array): void;
  };
  walk(address: bigint): {
    readonly physical: bigint | undefined;
    readonly pageSize: bigint | undefined;
    readonly steps: readonly {
      readonly level: string;
      readonly present: boolean;
      readonly writable: boolean;
    }[];
  };
}

/**
 * Writes all bytes, or none where one of their pages is not mapped, not RAM, or mapped read-only.
 * @param readOnly writes what is mapped read-only all the same
 * @throws {VmiError} `VMI_READ_ONLY` @throws {FaultError}
 */
export function writeVirtual(
  space: Space,
  from: bigint,
  bytes: Uint8Array,
  readOnly: boolean,
): void {
  const { physical: memory } = space;
  memory.checkWritable();
  const parts: { readonly physical: bigint; readonly part: Uint8Array }[] = [];
  for (let done = 0; done < bytes.length; ) {
    const at = BigInt.asUintN(64, from + BigInt(done));
    const { physical, pageSize, steps } = space.walk(at);
    const last = steps.at(-1);
    if (physical === undefined || !memory.contains(physical) || memory.absent(physical))
      throw new FaultError({
        address: at,
        space: 'virtual',
        cr3: space.root,
        requested: bytes.length,
        transferred: 0,
        level: last === undefined || last.present ? 0 : LEVEL_NAMES.indexOf(last.level as 'pt'),
        write: true,
      });
    if (!readOnly && !steps.every(({ writable }) => writable))
      throw new VmiError(
        'VMI_READ_ONLY',
        `cannot write at ${hex(at)} (virtual, cr3 ${hex(space.root)}): the guest maps this page read-only, and may share it with others; { readOnly: true } writes it all the same`,
      );
    // Of a large page a part may be no RAM: 4 KiB at a time.
    const rest = Number((pageSize! - (at & (pageSize! - 1n))) & 0xfffn) || 4096;
    const part = bytes.subarray(done, done + rest);
    parts.push({ physical, part });
    done += part.length;
  }
  for (const { physical, part } of parts) memory.write(physical, part);
}
