// A LiME dump (format=lime): for each range of RAM a header of 32 bytes, then its bytes.
//
// magic 0x4C694D45 at 0   version 1 at 4   first address 8   last address 16   reserved 24
//
// LiME src/lime.h, lime_mem_range_header.
import { cutShort, type DumpContent, type DumpRange, heldBy, MAX_PHYSICAL } from './content.js';
import { exactly, type ImageFile } from './file.js';

const MAGIC = 0x4c69_4d45;
const VERSION = 1;
const HEADER_SIZE = 32;
const MAX_RANGES = 65_536;

/** Whether the file starts like a LiME dump (`format=lime`). */
export function isLime(head: Buffer): boolean {
  return head.length >= 4 && head.readUInt32LE(0) === MAGIC;
}

/**
 * Reads the range headers of a LiME dump.
 * @throws {VmiError} `VMI_ATTACH`: truncated, or a header that is none
 */
export function readLime(file: ImageFile): DumpContent {
  const ranges: DumpRange[] = [];
  let missing = 0n;
  for (let at = 0n; at < file.size; ) {
    const header = exactly(file, file, at, HEADER_SIZE, `range header at ${at}`);
    const start = header.readBigUInt64LE(8);
    const last = header.readBigUInt64LE(16);
    if (
      header.readUInt32LE(0) !== MAGIC ||
      header.readUInt32LE(4) !== VERSION ||
      last < start ||
      last >= MAX_PHYSICAL
    ) {
      throw file.fail(`what stands at ${at} is no LiME range header of version 1`);
    }
    const length = last - start + 1n;
    const offset = at + BigInt(HEADER_SIZE);
    const held = heldBy(file.size, offset, length);
    missing += length - held;
    ranges.push({ physical: start, length, offset, held });
    if (ranges.length > MAX_RANGES) throw file.fail(`it has more than ${MAX_RANGES} ranges`);
    at = offset + length;
  }
  return { format: cutShort('LiME dump', missing), ranges, registers: [] };
}
