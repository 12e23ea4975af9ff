import { FaultError } from '../../../../lib/errors.js';
import { ListedSymbols } from '../../../../lib/kernel/symbols/listed.js';
import { Btf } from '../../../../lib/kernel/types/btf.js';
import type { VirtualMemory } from '../../../../lib/memory/virtual-memory.js';
import { KernelObjects } from '../../../../lib/objects/kernel-objects.js';
import type { BtfBuilder } from '../../kernel/support/build-btf.js';

/** Where the made memory begins. */
export const BASE = 0xffff_8880_0000_0000n;

/** Memory of one run of bytes; everything else is not present. Counts what is read. */
export class MadeMemory {
  readonly bytes: Buffer;
  reads = 0;
  /** Bytes that were asked for in all. */
  asked = 0;

  constructor(length: number) {
    this.bytes = Buffer.alloc(length);
  }

  begin(): void {}

  readInto(address: bigint, into: Uint8Array): number {
    this.reads++;
    this.asked += into.length;
    const at = address - BASE;
    if (at < 0n || at >= BigInt(this.bytes.length)) return 0;
    const part = this.bytes.subarray(Number(at), Number(at) + into.length);
    into.set(part);
    return part.length;
  }

  read(address: bigint, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    const transferred = this.readInto(address, bytes);
    if (transferred === length) return bytes;
    throw new FaultError({
      address: address + BigInt(transferred),
      space: 'virtual',
      cr3: 0x1000n,
      requested: length,
      transferred,
      level: 2,
    });
  }

  readU64(address: bigint): bigint {
    return this.read(address, 8).readBigUInt64LE();
  }

  readU32(address: bigint): number {
    return this.read(address, 4).readUInt32LE();
  }

  /** Writes 64-bit words from an offset on. */
  put(at: number, ...words: bigint[]): void {
    for (const [i, word] of words.entries()) {
      this.bytes.writeBigUInt64LE(BigInt.asUintN(64, word), at + i * 8);
    }
  }
}

/** Values over made memory with made types. */
export function madeObjects(
  types: BtfBuilder,
  memory: MadeMemory,
  symbols: Readonly<Record<string, bigint>> = {},
): KernelObjects {
  const listed = Object.entries(symbols).map(([name, address]) => ({ name, address, type: 'D' }));
  return new KernelObjects({
    memory: memory as unknown as VirtualMemory,
    types: new Btf(types.build()),
    symbols: new ListedSymbols('made', listed),
    perCpuOffset: (cpu) => BigInt(cpu) * 0x100n,
    onlineCpus: () => [0, 1],
  });
}
