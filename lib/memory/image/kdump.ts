import { closeSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inflateSync } from 'node:zlib';
import { VmiError } from '../../errors.js';
import type { VcpuRegisters } from '../physical-memory.js';
import { type FileRange, type ReadAt, readQemuNotes } from './elf-core.js';

/** A kdump unpacked to a file that has no name any more; whoever holds the descriptor holds the bytes. */
export interface UnpackedKdump {
  readonly fd: number;
  readonly ranges: readonly FileRange[];
  /** From QEMU's own notes; empty where the dump has none. */
  readonly registers: readonly VcpuRegisters[];
}

// makedumpfile, diskdump_mod.h (disk_dump_header, kdump_sub_header, page_desc) and makedumpfile.h (flattened format);
// QEMU include/sysemu/dump.h writes the same.
const FLAT_HEADER = 4096;
const BLOCK_SIZE_AT = 428;
const SUB_HEADER_BLOCKS_AT = 432;
const BITMAP_BLOCKS_AT = 436;
const MAX_MAPNR_AT = 440;
const NOTE_OFFSET_AT = 48;
const NOTE_SIZE_AT = 56;
const DESCRIPTOR_SIZE = 24;
const ZLIB = 0x1;
const PACKINGS: Readonly<Record<number, string>> = { 2: 'LZO', 4: 'snappy', 32: 'zstd' };
const PAGE = 4096;
const MAX_NOTES = 64 << 20;
/** Page descriptors read at a time. */
const CHUNK = 4096;

/** Whether the file starts like a kdump-compressed dump, plain or flattened. */
export function isKdump(head: Buffer): boolean {
  const start = head.toString('latin1', 0, 16);
  return start.startsWith('KDUMP   ') || start.startsWith('makedumpfile\0\0\0\0');
}

/**
 * Unpacks a kdump-compressed dump to a sparse file in the temporary folder: pages of zlib and pages that are not packed.
 * Takes some seconds a gigabyte, and as much room as the guest's memory that is not zero.
 * @throws {VmiError} `VMI_ATTACH`: truncated, not of 4 KiB pages, or packed otherwise
 */
export function unpackKdump(readAt: ReadAt, fileSize: bigint, path: string): UnpackedKdump {
  const fail = (why: string) =>
    new VmiError('VMI_ATTACH', `${path} cannot be used as a memory image: ${why}`);
  const start = readAt(0n, 16).toString('latin1');
  const read = start.startsWith('makedumpfile') ? flattened(readAt, fileSize, fail) : readAt;
  const exactly = (offset: bigint, length: number, what: string) => {
    const bytes = read(offset, length);
    if (bytes.length < length)
      throw fail(`it is truncated within its ${what}. Copy it again, whole`);
    return bytes;
  };
  const header = exactly(0n, PAGE, 'header');
  if (header.toString('latin1', 0, 8) !== 'KDUMP   ') throw fail('it has no kdump header');
  if (header.readUInt32LE(BLOCK_SIZE_AT) !== PAGE)
    throw fail(`its pages have ${header.readUInt32LE(BLOCK_SIZE_AT)} bytes`);
  const subBlocks = BigInt(header.readUInt32LE(SUB_HEADER_BLOCKS_AT));
  const bitmapBlocks = header.readUInt32LE(BITMAP_BLOCKS_AT);
  const maxPfn = header.readUInt32LE(MAX_MAPNR_AT);
  const half = (bitmapBlocks >> 1) * PAGE;
  if (bitmapBlocks < 2 || half * 8 < maxPfn)
    throw fail('its page bitmap is smaller than its memory');
  const bitmapAt = (1n + subBlocks) * BigInt(PAGE);
  const present = exactly(bitmapAt, half, 'page bitmap');
  const dumped = exactly(bitmapAt + BigInt(half), half, 'page bitmap');

  const sub = exactly(BigInt(PAGE), PAGE, 'header');
  const noteSize = sub.readBigUInt64LE(NOTE_SIZE_AT);
  const registers =
    noteSize > 0n && noteSize <= BigInt(MAX_NOTES)
      ? readQemuNotes(read(sub.readBigUInt64LE(NOTE_OFFSET_AT), Number(noteSize)))
      : [];

  const name = join(tmpdir(), `node-libvmi-kdump-${process.pid}-${Date.now()}`);
  const fd = openSync(name, 'wx+', 0o600);
  unlinkSync(name);
  try {
    const pages = pageWriter(fd, exactly, fail);
    let descriptorAt = bitmapAt + BigInt(bitmapBlocks) * BigInt(PAGE);
    let waiting: number[] = [];
    const flush = () => {
      if (waiting.length === 0) return;
      const descriptors = exactly(
        descriptorAt,
        waiting.length * DESCRIPTOR_SIZE,
        'page descriptors',
      );
      for (const [i, pfn] of waiting.entries())
        pages(pfn, descriptors.subarray(i * DESCRIPTOR_SIZE));
      descriptorAt += BigInt(waiting.length * DESCRIPTOR_SIZE);
      waiting = [];
    };
    for (let pfn = 0; pfn < maxPfn; pfn++) {
      if (((dumped[pfn >>> 3]! >>> (pfn & 7)) & 1) === 0) continue;
      waiting.push(pfn);
      if (waiting.length === CHUNK) flush();
    }
    flush();
    const ranges = runs(present, maxPfn);
    const end = ranges.at(-1);
    if (end === undefined) throw fail('it has no RAM');
    // The file reaches as far as RAM does, holes and all.
    writeSync(fd, Buffer.alloc(1), 0, 1, Number(end.offset + end.length) - 1);
    return { fd, ranges, registers };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

type Exactly = (offset: bigint, length: number, what: string) => Buffer;

/** Unpacks one page after the other to its place; pages of zeroes stay holes. */
function pageWriter(
  fd: number,
  exactly: Exactly,
  fail: (why: string) => VmiError,
): (pfn: number, descriptor: Buffer) => void {
  const zeroes = Buffer.alloc(PAGE);
  // QEMU stores the page of zeroes once.
  let zeroAt: bigint | undefined;
  return (pfn, descriptor) => {
    const offset = descriptor.readBigUInt64LE(0);
    const size = descriptor.readUInt32LE(8);
    const flags = descriptor.readUInt32LE(12);
    if (offset === zeroAt) return;
    if (size > PAGE) throw fail(`page ${pfn} claims ${size} packed bytes`);
    const packing = PACKINGS[flags];
    if (packing !== undefined)
      throw fail(`it is packed with ${packing}; dump it as kdump-zlib, or as an ELF core`);
    const packed = exactly(offset, size, 'pages');
    let page: Buffer;
    try {
      page = (flags & ZLIB) !== 0 ? inflateSync(packed, { maxOutputLength: PAGE }) : packed;
    } catch (error) {
      throw fail(`page ${pfn} cannot be unpacked (${(error as Error).message})`);
    }
    if (page.length !== PAGE) throw fail(`page ${pfn} has ${page.length} bytes`);
    if (page.equals(zeroes)) zeroAt = offset;
    else writeSync(fd, page, 0, PAGE, pfn * PAGE);
  };
}

/** Runs of set bits, as ranges of a file that holds every page at its own address. */
function runs(bitmap: Buffer, maxPfn: number): FileRange[] {
  const ranges: FileRange[] = [];
  let first: number | undefined;
  for (let pfn = 0; pfn <= maxPfn; pfn++) {
    const set = pfn < maxPfn && ((bitmap[pfn >>> 3]! >>> (pfn & 7)) & 1) === 1;
    if (set && first === undefined) first = pfn;
    if (!set && first !== undefined) {
      const physical = BigInt(first) * BigInt(PAGE);
      ranges.push({ physical, length: BigInt(pfn - first) * BigInt(PAGE), offset: physical });
      first = undefined;
    }
  }
  return ranges;
}

/** A flattened dump is a stream of (offset, size, bytes): an index gives its file back. */
function flattened(readAt: ReadAt, fileSize: bigint, fail: (why: string) => VmiError): ReadAt {
  const records: { offset: bigint; size: bigint; at: bigint }[] = [];
  for (let at = BigInt(FLAT_HEADER); ; ) {
    const head = readAt(at, 16);
    if (head.length < 16)
      throw fail('it is truncated: its end marker is missing. Copy it again, whole');
    const offset = head.readBigInt64BE(0);
    const size = head.readBigInt64BE(8);
    if (offset === -1n) break;
    if (offset < 0n || size <= 0n || size > fileSize - at - 16n)
      throw fail(`its record at ${at} is truncated or broken`);
    records.push({ offset, size, at: at + 16n });
    at += 16n + size;
  }
  // Later records overwrite earlier ones; sorted, with the order kept among equals, the last of them is found.
  records.sort((a, b) => (a.offset < b.offset ? -1 : a.offset > b.offset ? 1 : 0));
  const find = (offset: bigint) => {
    let low = 0;
    let high = records.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (records[middle]!.offset <= offset) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  };
  return (offset, length) => {
    const bytes = Buffer.alloc(length);
    let done = 0;
    while (done < length) {
      const place = offset + BigInt(done);
      const index = find(place);
      const record = records[index];
      const left = BigInt(length - done);
      if (record !== undefined && place < record.offset + record.size) {
        const within = place - record.offset;
        const part = Number(record.size - within < left ? record.size - within : left);
        bytes.set(readAt(record.at + within, part), done);
        done += part;
      } else {
        // What no record covers is zero, as far as there is another record.
        const next = records[index + 1];
        if (next === undefined) break;
        done += Number(next.offset - place < left ? next.offset - place : left);
      }
    }
    return bytes.subarray(0, done);
  };
}
