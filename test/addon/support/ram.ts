import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { addon } from '../../../lib/addon.js';
import type { AddressSpace, Memory, NativeSegment } from '../../../types/addon.js';

/** Where tests put the direct map. */
export const DIRECT_MAP = 0xffff888000000000n;
/** Where tests put the kernel image. */
export const IMAGE = 0xffffffff80000000n;
/** The largest address. */
export const TOP = 0xffffffffffffffffn;

const PRESENT = 0x63n;
const LARGE = 0x80n;
const PHYSICAL = 0x000ffffffffff000n;

/**
 * Guest RAM in a sparse file, written by hand. Page tables are made from 0x1000 on, in the order in
 * which they are needed.
 */
export class Ram {
  readonly size: number;
  readonly levels: 4 | 5;
  readonly fd: number;
  readonly root = 0x1000n;
  readonly #path: string;
  #nextTable = 0x2000n;

  constructor(size: number, levels: 4 | 5 = 4, folder = os.tmpdir()) {
    this.size = size;
    this.levels = levels;
    this.#path = path.join(folder, `vmi-ram-${process.pid}-${Math.random().toString(36).slice(2)}`);
    this.fd = fs.openSync(this.#path, 'w+');
    fs.truncateSync(this.#path, size);
  }

  get path(): string {
    return this.#path;
  }

  /** Bytes the file takes on the host. */
  get allocated(): number {
    return fs.fstatSync(this.fd).blocks * 512;
  }

  put(physical: number | bigint, bytes: Uint8Array | string): void {
    const data = typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes;
    fs.writeSync(this.fd, data, 0, data.length, Number(physical));
  }

  put64(physical: number | bigint, value: bigint): void {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(value);
    this.put(physical, bytes);
  }

  get64(physical: number | bigint): bigint {
    const bytes = Buffer.alloc(8);
    fs.readSync(this.fd, bytes, 0, 8, Number(physical));
    return bytes.readBigUInt64LE();
  }

  /** Physical address of the entry for `virtual` at `level` (1: PTE); tables above it are made. */
  entry(virtual: bigint, level: number): bigint {
    let table = this.root;
    for (let at = this.levels as number; ; at--) {
      const entry = table + ((virtual >> BigInt(12 + 9 * (at - 1))) & 511n) * 8n;
      if (at === level) return entry;
      if ((this.get64(entry) & 1n) === 0n) {
        this.put64(entry, this.#nextTable | PRESENT);
        this.#nextTable += 0x1000n;
      }
      table = this.get64(entry) & PHYSICAL;
    }
  }

  /** Maps a page of 4 KiB (level 1), 2 MiB (2) or 1 GiB (3). */
  map(virtual: bigint, physical: bigint, level = 1): void {
    this.put64(this.entry(virtual, level), physical | PRESENT | (level > 1 ? LARGE : 0n));
  }

  /** All of it in the direct map. */
  mapDirect(): void {
    for (let at = 0; at < this.size; at += 0x200000)
      this.map(DIRECT_MAP + BigInt(at), BigInt(at), 2);
  }

  segment(physical = 0n, length = BigInt(this.size), offset = 0n): NativeSegment {
    return { kind: 'file', physical, length, fd: this.fd, offset };
  }

  open(segments: NativeSegment[] = [this.segment()]): Memory {
    return addon().openMemory({ segments });
  }

  /**
   * The same bytes as anonymous RAM is reached: the file is mapped into this process, and this
   * process is read. `holder` keeps the mapping.
   */
  openAsProcess(): { memory: Memory; holder: Memory } {
    const holder = this.open();
    const line = fs
      .readFileSync('/proc/self/maps', 'utf8')
      .split('\n')
      .findLast((text) => text.endsWith(this.#path));
    const offset = BigInt(`0x${line!.split('-')[0]}`);
    const memory = addon().openMemory({
      pid: process.pid,
      segments: [{ kind: 'process', physical: 0n, length: BigInt(this.size), offset }],
    });
    return { memory, holder };
  }

  space(memory: Memory): AddressSpace {
    return new (addon().AddressSpace)(memory, this.root, this.levels);
  }

  /** Closes and deletes the file. */
  remove(): void {
    fs.closeSync(this.fd);
    fs.rmSync(this.#path);
  }

  [Symbol.dispose](): void {
    this.remove();
  }
}

/** Runs `test` for RAM that is mapped and for RAM that is read from a process. */
export function withEachSource(
  ram: Ram,
  test: (memory: Memory, source: 'file' | 'process') => void,
): void {
  const file = ram.open();
  test(file, 'file');
  file.close();
  const { memory, holder } = ram.openAsProcess();
  test(memory, 'process');
  memory.close();
  holder.close();
}

export function bytesOf(...values: bigint[]): Buffer {
  const bytes = Buffer.alloc(values.length * 8);
  values.forEach((value, index) => {
    bytes.writeBigUInt64LE(value, index * 8);
  });
  return bytes;
}

/** The error that `run` throws. */
export function thrownBy(run: () => unknown): Error & Record<string, unknown> {
  try {
    run();
  } catch (error) {
    return error as Error & Record<string, unknown>;
  }
  throw new Error('nothing was thrown');
}
