import { hex, VmiError } from '../../errors.js';
import type { FileRange, ReadAt } from './elf-core.js';

// LiME, src/lime.h, lime_mem_range_header.
const MAGIC = 0x4c69_4d45;
const VERSION = 1;
const HEADER_SIZE = 32n;
const MAX_RANGES = 65_536;

/** Whether the file starts like a LiME dump (`format=lime`). */
export function isLime(head: Buffer): boolean {
  return head.length >= 4 && head.readUInt32LE(0) === MAGIC;
}

/**
 * Reads the range headers of a LiME dump: each stands before the bytes of its range.
 * @throws {VmiError} `VMI_ATTACH`: truncated, or a header that is none
 */
export function readLime(readAt: ReadAt, fileSize: bigint, path: string): FileRange[] {
  const fail = (why: string) =>
    new VmiError('VMI_ATTACH', `${path} cannot be used as a memory image: ${why}`);
  const ranges: FileRange[] = [];
  for (let at = 0n; at < fileSize; ) {
    const header = readAt(at, Number(HEADER_SIZE));
    if (header.length < Number(HEADER_SIZE))
      throw fail(`it is truncated within the range header at ${at}`);
    const start = header.readBigUInt64LE(8);
    const last = header.readBigUInt64LE(16);
    if (header.readUInt32LE(0) !== MAGIC || header.readUInt32LE(4) !== VERSION || last < start) {
      throw fail(`what stands at ${at} is no LiME range header of version 1`);
    }
    const length = last - start + 1n;
    const offset = at + HEADER_SIZE;
    if (length > fileSize - offset) {
      throw fail(
        `it is truncated: the RAM at ${hex(start)} needs ${offset + length} bytes of file, there are ${fileSize}. Copy it again, whole`,
      );
    }
    ranges.push({ physical: start, length, offset });
    if (ranges.length > MAX_RANGES) throw fail(`it has more than ${MAX_RANGES} ranges`);
    at = offset + length;
  }
  ranges.sort((a, b) => (a.physical < b.physical ? -1 : a.physical > b.physical ? 1 : 0));
  for (let i = 1; i < ranges.length; i++) {
    if (ranges[i - 1]!.physical + ranges[i - 1]!.length > ranges[i]!.physical)
      throw fail('its ranges overlap');
  }
  return ranges;
}
