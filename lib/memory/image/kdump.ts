// A kdump-compressed dump (makedumpfile -c/-l/-p/-z, virsh dump --memory-only --format kdump-zlib,
// QEMU's dump-guest-memory -z/-l/-s).
//
// block 0     disk_dump_header: 'KDUMP   ', header_version 8, block_size 428, sub_hdr_size 432
//             (blocks), bitmap_blocks 436, max_mapnr 440
// block 1     kdump_sub_header: offset_note 48, size_note 56, max_mapnr_64 96 (from version 6 on)
// then        two bitmaps, one bit a page frame: which are RAM, which of those the dump holds
// then        a page_desc for each page that is held, ascending: offset 0, size 8, flags 12
//             (24 bytes in all)
// then        the pages, packed as the flags say; all pages of zeroes have descriptors of one page
//
// What is in the first bitmap only was left out (makedumpfile -d): it may have held anything.
// makedumpfile diskdump_mod.h; QEMU include/sysemu/dump.h.
import { cutShort, type DumpContent, type DumpRange } from './content.js';
import { elfNotes, qemuRegisters } from './elf-notes.js';
import { type Bytes, exactly, type ImageFile } from './file.js';
import { isFlattened, unflatten } from './flattened.js';
import { PACKINGS, type Unpack } from './packings.js';
import { type Unpacked, unpacking } from './unpacked.js';

const PAGE = 4096;
const VERSION_AT = 8;
const BLOCK_SIZE_AT = 428;
const SUB_HEADER_BLOCKS_AT = 432;
const BITMAP_BLOCKS_AT = 436;
const MAX_MAPNR_AT = 440;
const NOTE_OFFSET_AT = 48;
const NOTE_SIZE_AT = 56;
const MAX_MAPNR_64_AT = 96;
/** `header_version` since which the sub-header has a count of pages of 64 bits. */
const WIDE_VERSION = 6;
const DESCRIPTOR_SIZE = 24;
const MAX_NOTES = 64 << 20;
/** Page descriptors read at a time. */
const CHUNK = 4096;
/**
 * Longest a packed page may be: what does not get smaller is stored as it is, but nothing says so.
 */
const MAX_PACKED = 2 * PAGE;
/** Page frames that are written to the unpacked file at once, at most. */
const RUN = 256;

/** Whether the file starts like a kdump-compressed dump, plain or flattened. */
export function isKdump(head: Buffer): boolean {
  return head.toString('latin1', 0, 8) === 'KDUMP   ' || isFlattened(head);
}

/** What the headers say. */
interface Layout {
  readonly maxPfn: number;
  /** The pages that are RAM, and those that the dump holds. */
  readonly ram: Buffer;
  readonly dumped: Buffer;
  readonly descriptors: bigint;
  readonly notes: Buffer;
}

/**
 * Unpacks a kdump-compressed dump. Takes some seconds a gigabyte, and as much of the folder for
 * temporary files as the guest's memory that is not zero.
 * @throws {VmiError} `VMI_ATTACH`: truncated, broken, or not of 4 KiB pages
 */
export function readKdump(file: ImageFile): DumpContent {
  const bytes = isFlattened(file.read(0n, 16)) ? unflatten(file) : file;
  const layout = readLayout(bytes, file);
  const ranges = ramRanges(layout.ram, layout.maxPfn);
  const end = ranges.at(-1);
  if (end === undefined) throw file.fail('it has no RAM');
  return unpacking(file, (unpacked) => {
    const missing = unpackPages(bytes, file, layout, unpacked);
    unpacked.reach(end.physical + end.length);
    return {
      format: cutShort('kdump, unpacked', missing),
      ranges,
      registers: qemuRegisters(elfNotes(layout.notes)),
      unpacked: unpacked.fd,
      present: layout.dumped,
    };
  });
}

function readLayout(bytes: Bytes, file: ImageFile): Layout {
  const header = exactly(bytes, file, 0n, PAGE, 'header');
  if (header.toString('latin1', 0, 8) !== 'KDUMP   ') throw file.fail('it has no kdump header');
  if (header.readUInt32LE(BLOCK_SIZE_AT) !== PAGE)
    throw file.fail(`its pages have ${header.readUInt32LE(BLOCK_SIZE_AT)} bytes`);
  const sub = exactly(bytes, file, BigInt(PAGE), PAGE, 'header');
  const bitmapBlocks = header.readUInt32LE(BITMAP_BLOCKS_AT);
  const half = (bitmapBlocks >> 1) * PAGE;
  const wide = header.readInt32LE(VERSION_AT) >= WIDE_VERSION;
  const pages = wide
    ? sub.readBigUInt64LE(MAX_MAPNR_64_AT)
    : BigInt(header.readUInt32LE(MAX_MAPNR_AT));
  if (bitmapBlocks < 2 || BigInt(half) * 8n < pages)
    throw file.fail('its page bitmap is smaller than its memory');
  const bitmapAt = (1n + BigInt(header.readUInt32LE(SUB_HEADER_BLOCKS_AT))) * BigInt(PAGE);
  const noteSize = sub.readBigUInt64LE(NOTE_SIZE_AT);
  return {
    maxPfn: Number(pages),
    ram: exactly(bytes, file, bitmapAt, half, 'page bitmap'),
    dumped: exactly(bytes, file, bitmapAt + BigInt(half), half, 'page bitmap'),
    descriptors: bitmapAt + BigInt(bitmapBlocks) * BigInt(PAGE),
    notes:
      noteSize <= BigInt(MAX_NOTES)
        ? bytes.read(sub.readBigUInt64LE(NOTE_OFFSET_AT), Number(noteSize))
        : Buffer.alloc(0),
  };
}

/** @returns bytes of RAM that the end of the file lacks; their pages are taken out of `dumped` */
function unpackPages(bytes: Bytes, file: ImageFile, layout: Layout, unpacked: Unpacked): bigint {
  const pages = new PageWriter(bytes, file, unpacked);
  let at = layout.descriptors;
  const { dumped, maxPfn } = layout;
  let missing = 0n;
  let waiting: number[] = [];
  const flush = () => {
    const length = waiting.length * DESCRIPTOR_SIZE;
    const descriptors = bytes.read(at, length);
    for (const [i, pfn] of waiting.entries()) {
      const descriptor = descriptors.subarray(i * DESCRIPTOR_SIZE, (i + 1) * DESCRIPTOR_SIZE);
      if (descriptor.length === DESCRIPTOR_SIZE && pages.unpack(pfn, descriptor)) continue;
      dumped[pfn >>> 3]! &= ~(1 << (pfn & 7));
      missing += BigInt(PAGE);
    }
    at += BigInt(length);
    waiting = [];
  };
  for (let pfn = 0; pfn < maxPfn; pfn++) {
    const byte = dumped[pfn >>> 3]!;
    if (byte === 0) {
      pfn |= 7;
    } else if (((byte >>> (pfn & 7)) & 1) === 1) {
      waiting.push(pfn);
      if (waiting.length === CHUNK) flush();
    }
  }
  if (waiting.length > 0) flush();
  pages.flush();
  return missing;
}

/** Unpacks one page after the other to its place; pages of zeroes stay holes. */
class PageWriter {
  readonly #bytes: Bytes;
  readonly #file: ImageFile;
  readonly #unpacked: Unpacked;
  readonly #zeroes = Buffer.alloc(PAGE);
  /** Neighbouring pages that wait to be written at once. */
  readonly #run = Buffer.alloc(RUN * PAGE);
  #first = 0;
  #count = 0;
  /** Where the page of zeroes is, which is stored once. */
  #zeroAt: bigint | undefined;

  constructor(bytes: Bytes, file: ImageFile, unpacked: Unpacked) {
    this.#bytes = bytes;
    this.#file = file;
    this.#unpacked = unpacked;
  }

  /** @returns whether the file has it: a dump that was not finished has descriptors of no page */
  unpack(pfn: number, descriptor: Buffer): boolean {
    const offset = descriptor.readBigUInt64LE(0);
    if (offset === this.#zeroAt) return true;
    const size = descriptor.readUInt32LE(8);
    const flags = descriptor.readUInt32LE(12);
    if (size > MAX_PACKED) throw this.#file.fail(`page ${pfn} claims ${size} packed bytes`);
    if (offset === 0n || offset + BigInt(size) > this.#bytes.size) return false;
    const packed = exactly(this.#bytes, this.#file, offset, size, 'pages');
    const page = flags === 0 ? packed : this.#unpackAs(pfn, PACKINGS[flags], flags, packed);
    if (page.length !== PAGE) throw this.#file.fail(`page ${pfn} has ${page.length} bytes`);
    if (this.#zeroes.equals(page)) this.#zeroAt = offset;
    else this.#put(pfn, page);
    return true;
  }

  flush(): void {
    if (this.#count > 0) this.#unpacked.put(this.#first, this.#run.subarray(0, this.#count * PAGE));
    this.#count = 0;
  }

  #unpackAs(pfn: number, unpack: Unpack | undefined, flags: number, packed: Buffer): Uint8Array {
    if (unpack === undefined)
      throw this.#file.fail(`page ${pfn} is packed in a way that is not known (flags ${flags})`);
    try {
      return unpack(packed, PAGE);
    } catch (error) {
      throw this.#file.fail(`page ${pfn} cannot be unpacked (${(error as Error).message})`);
    }
  }

  #put(pfn: number, page: Uint8Array): void {
    if (this.#count === RUN || pfn !== this.#first + this.#count) {
      this.flush();
      this.#first = pfn;
    }
    this.#run.set(page, this.#count * PAGE);
    this.#count++;
  }
}

/** Runs of set bits, as ranges of a file that holds every page at its own address. */
function ramRanges(bitmap: Buffer, maxPfn: number): DumpRange[] {
  const ranges: DumpRange[] = [];
  let first: number | undefined;
  for (let pfn = 0; pfn <= maxPfn; pfn++) {
    const byte = pfn < maxPfn ? bitmap[pfn >>> 3]! : 0;
    // Eight at a time where they are all alike.
    const whole = (pfn & 7) === 0 && pfn + 8 <= maxPfn;
    if (whole && byte === (first === undefined ? 0 : 0xff)) {
      pfn += 7;
      continue;
    }
    const set = ((byte >>> (pfn & 7)) & 1) === 1;
    if (set && first === undefined) first = pfn;
    if (!set && first !== undefined) {
      const physical = BigInt(first) * BigInt(PAGE);
      ranges.push({ physical, length: BigInt(pfn - first) * BigInt(PAGE), offset: physical });
      first = undefined;
    }
  }
  return ranges;
}
