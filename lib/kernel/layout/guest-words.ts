import { wrap } from '../../address.js';
import { FaultError } from '../../errors.js';
import type { VirtualMemory } from '../../memory/virtual-memory.js';
import { KERNEL_HALF } from '../x86-64.js';

/** Words of guest memory for those who only ask whether they fit: what cannot be read fits not. */
export class GuestWords {
  readonly memory: VirtualMemory;

  constructor(memory: VirtualMemory) {
    this.memory = memory;
  }

  /** `undefined` where it cannot be read. */
  u64(address: bigint): bigint | undefined {
    return unlessFault(() => this.memory.readU64(wrap(address)));
  }

  u32(address: bigint): number | undefined {
    return unlessFault(() => this.memory.readU32(wrap(address)));
  }

  /** As much as can be read before the first page that is absent, zeroes behind it. */
  atMost(address: bigint, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    unlessFault(() => this.memory.readInto(wrap(address), bytes));
    return bytes;
  }

  /** All of it, or `undefined`. */
  bytes(address: bigint, length: number): Buffer | undefined {
    const bytes = Buffer.allocUnsafeSlow(length);
    const read = unlessFault(() => this.memory.readInto(wrap(address), bytes));
    return read === length ? bytes : undefined;
  }
}

/** Whether a value can be the address of an object of the kernel: in its half, aligned to 8. */
export function isPointer(value: bigint | undefined): value is bigint {
  return value !== undefined && value >= KERNEL_HALF && (value & 7n) === 0n;
}

function unlessFault<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof FaultError) return undefined;
    throw error;
  }
}
