import type { Memory, NativeScan } from '../../../types/addon.js';
import { PAGE_SIZE } from '../../address.js';
import { FaultError, VmiError } from '../../errors.js';
import { describe } from '../../options.js';
import type { PhysicalRange } from '../physical-memory.js';
import { handleOf } from './loader.js';

/**
 * Reads guest-physical memory: fills `into` with the bytes from `address` on, and returns how many
 * it filled; fewer where the rest cannot be read. What it throws ends the operation that asked.
 * What it writes to `into` after it has returned changes nothing.
 */
export type ReadMemory = (address: bigint, into: Uint8Array) => number;

/** Pages that are kept at most: 16 MiB. */
const MAX_PAGES = 4096;
/** Bytes that a scan asks for at a time. */
const SCAN_PIECE = 1 << 20;

/**
 * Memory whose bytes a function of JavaScript gives. It keeps the contract of the addon's `Memory`,
 * in TypeScript: native code calls no JavaScript.
 *
 * Whole pages are asked for, and kept until the next operation begins: an operation sees a page as
 * it was at one moment, and reads it once.
 */
export class ScriptedMemory implements Memory {
  readonly ranges: BigUint64Array;
  readonly mapped = false;
  readonly writable = false;
  readonly handle: number;
  readonly #ranges: readonly PhysicalRange[];
  readonly #read: ReadMemory;
  /** Pages by number; shorter ones end where reading failed. */
  readonly #pages = new Map<bigint, Uint8Array>();
  #closed = false;

  /** @param ranges ascending, whole pages, no overlap */
  constructor(ranges: readonly PhysicalRange[], read: ReadMemory) {
    this.#ranges = ranges;
    this.#read = read;
    this.ranges = BigUint64Array.from(ranges.flatMap(({ start, length }) => [start, length]));
    this.handle = handleOf(this);
  }

  begin(): void {
    if (this.#closed) throw new VmiError('VMI_CLOSED', 'the memory is closed');
    this.refresh();
  }

  /** Forgets what was read: from now on the guest is asked again. */
  refresh(): void {
    this.#pages.clear();
  }

  read(address: bigint, into: Uint8Array): number {
    if (this.#closed) throw new VmiError('VMI_CLOSED', 'the memory is closed');
    let done = 0;
    while (done < into.length) {
      const at = address + BigInt(done);
      const page = this.#page(at >> 12n);
      const offset = Number(at & 0xfffn);
      const part = page.subarray(offset, offset + into.length - done);
      into.set(part, done);
      done += part.length;
      if (offset + part.length < PAGE_SIZE) break;
    }
    return done;
  }

  write(): number {
    throw new VmiError('VMI_UNSUPPORTED', 'a function that reads does not write');
  }

  /** What a function does not read is not known to be RAM. */
  absent(_address: bigint): boolean {
    return false;
  }

  readMany(addresses: BigUint64Array, length: number, into: Uint8Array): Uint32Array {
    return Uint32Array.from(addresses, (address, i) =>
      this.read(address, into.subarray(i * length, (i + 1) * length)),
    );
  }

  readU64(address: bigint): bigint {
    const bytes = Buffer.alloc(8);
    const transferred = this.read(address, bytes);
    if (transferred === 8) return bytes.readBigUInt64LE();
    throw new FaultError({
      address: address + BigInt(transferred),
      space: 'physical',
      cr3: undefined,
      requested: 8,
      transferred,
      level: 0,
    });
  }

  /** Looks through RAM in pieces, a turn of the event loop each, so that a signal is heard. */
  async scan(request: NativeScan): Promise<BigUint64Array> {
    const { offsets, max, cancel } = request;
    const stride = BigInt(request.stride);
    const pattern = Buffer.from(request.pattern);
    checkScan(request);
    const hits: bigint[] = [];
    const end = request.end ?? 1n << 64n;
    for (const range of this.#ranges) {
      const last = range.start + range.length < end ? range.start + range.length : end;
      let at = (request.start ?? 0n) > range.start ? request.start! : range.start;
      while (at < last) {
        if (this.#closed) throw new VmiError('VMI_CLOSED', 'the memory is closed');
        if (cancel?.[0]) throw new VmiError('VMI_ABORTED', 'the scan was cancelled');
        const { bytes, gaps } = this.#piece(at, last);
        for (let hit = bytes.indexOf(pattern); hit >= 0; hit = bytes.indexOf(pattern, hit + 1)) {
          const address = at + BigInt(hit);
          if (!offsets.includes(Number(address % stride))) continue;
          if (gaps.some(([from, to]) => hit < to && hit + pattern.length > from)) continue;
          hits.push(address);
          if (hits.length === max) return BigUint64Array.from(hits);
        }
        // A hit may begin in this piece and end in the next.
        at += BigInt(Math.max(1, SCAN_PIECE - pattern.length + 1));
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
    return BigUint64Array.from(hits);
  }

  close(): void {
    this.#closed = true;
    this.refresh();
  }

  /** Bytes from `at` on, and which of them could not be read: offsets, end exclusive. */
  #piece(at: bigint, last: bigint): { bytes: Buffer; gaps: (readonly [number, number])[] } {
    const left = last - at;
    const bytes = Buffer.alloc(left < BigInt(SCAN_PIECE) ? Number(left) : SCAN_PIECE);
    const gaps: (readonly [number, number])[] = [];
    for (let done = 0; done < bytes.length; ) {
      const into = bytes.subarray(done);
      const read = this.#ask(at + BigInt(done), into);
      done += read;
      if (read === into.length) break;
      // What cannot be read ends with its page.
      const next = done + PAGE_SIZE - Number((at + BigInt(done)) & 0xfffn);
      gaps.push([done, next]);
      done = next;
    }
    return { bytes, gaps };
  }

  #page(number: bigint): Uint8Array {
    const known = this.#pages.get(number);
    if (known !== undefined) return known;
    const start = number << 12n;
    const isRam = this.#ranges.some(
      (range) => start >= range.start && start < range.start + range.length,
    );
    const bytes = new Uint8Array(isRam ? PAGE_SIZE : 0);
    // A copy: the function may keep what it was given, and write to it later.
    const page = isRam ? bytes.slice(0, this.#ask(start, bytes)) : bytes;
    if (this.#pages.size >= MAX_PAGES) this.#pages.clear();
    this.#pages.set(number, page);
    return page;
  }

  /** @throws {TypeError} the function does not say how many bytes it filled */
  #ask(address: bigint, into: Uint8Array): number {
    const filled: unknown = this.#read(address, into);
    if (Number.isInteger(filled) && (filled as number) >= 0 && (filled as number) <= into.length)
      return filled as number;
    const hint = filled instanceof Promise ? ', a promise: it must not be asynchronous' : '';
    throw new TypeError(
      `Expected read to return the bytes that it filled, 0 to ${into.length}, but received ${describe(filled)}${hint}`,
    );
  }
}

/** @throws {RangeError} as the addon does */
function checkScan({ pattern, stride, offsets, max, threads = 1 }: NativeScan): void {
  const check = (name: string, value: number, least: number, most: number) => {
    if (Number.isInteger(value) && value >= least && value <= most) return;
    throw new RangeError(
      `Expected ${name} as an integer between ${least} and ${most} but received ${value}`,
    );
  };
  check('the length of pattern', pattern.length, 1, 256);
  check('stride', stride, 1, 0x7fff_ffff);
  for (const offset of offsets) check('an offset', offset, 0, stride - 1);
  check('max', max, 1, 65_536);
  check('threads', threads, 1, 16);
}
