// An AVML dump: for each run of RAM a header of 32 bytes, as LiME's, then its bytes.
//
// header   magic 'AVML' (0x4C4D5641) at 0, version 4, first address 8, last address 16, reserved 24
// v1       the bytes themselves (AVML writes LiME's magic there: such a dump is a LiME dump)
// v2       the bytes in snappy's framing format, then 8 bytes with the length of that
//
// framing  chunks of type (1 byte) and length (3 bytes): 0xff 'sNaPpY' starts, 0x00 a checksum (4)
//          and
//          a packed block, 0x01 a checksum and a plain one, 0x80 to 0xfe are passed over
//
// AVML src/image.rs; Google snappy framing_format.txt. Checksums are not checked: a block that does
// not unpack to what it says is refused.
import { cutShort, type DumpContent, type DumpRange, MAX_PHYSICAL } from './content.js';
import { exactly, type ImageFile } from './file.js';
import { unpackSnappy } from './snappy.js';
import { type Unpacked, unpacking } from './unpacked.js';

const MAGIC = 0x4c4d_5641;
const HEADER_SIZE = 32;
const VERSION_PLAIN = 1;
const VERSION_PACKED = 2;
const TRAILER = 8n;
/** Longest block that a chunk unpacks to. */
const MAX_BLOCK = 65_536;
const MAX_RANGES = 1 << 20;
const CHUNK_PACKED = 0x00;
const CHUNK_PLAIN = 0x01;
const FIRST_SKIPPED = 0x80;

/** Whether the file starts like an AVML dump. */
export function isAvml(head: Buffer): boolean {
  return head.length >= 4 && head.readUInt32LE(0) === MAGIC;
}

/**
 * Unpacks an AVML dump. One that was cut short lacks the end of its last run.
 * @throws {VmiError} `VMI_ATTACH`: broken
 */
export function readAvml(file: ImageFile): DumpContent {
  return unpacking(file, (unpacked) => {
    const ranges: DumpRange[] = [];
    let missing = 0n;
    let end = 0n;
    for (let at = 0n; at < file.size; ) {
      const header = exactly(file, file, at, HEADER_SIZE, `range header at ${at}`);
      const version = header.readUInt32LE(4);
      const start = header.readBigUInt64LE(8);
      const last = header.readBigUInt64LE(16);
      const isHeader = header.readUInt32LE(0) === MAGIC && last >= start && last < MAX_PHYSICAL;
      if (!isHeader || (version !== VERSION_PLAIN && version !== VERSION_PACKED))
        throw file.fail(`what stands at ${at} is no AVML range header of version 1 or 2`);
      if (ranges.length === MAX_RANGES) throw file.fail(`it has more than ${MAX_RANGES} ranges`);
      const length = last - start + 1n;
      const from = at + BigInt(HEADER_SIZE);
      const read = version === VERSION_PLAIN ? copyPlain : unpackFrames;
      const { held, next } = read(file, from, start, length, unpacked);
      ranges.push({ physical: start, length, offset: start, held });
      missing += length - held;
      if (start + length > end) end = start + length;
      at = next;
    }
    unpacked.reach((end + 0xfffn) & ~0xfffn);
    return {
      format: cutShort('AVML dump, unpacked', missing),
      ranges,
      registers: [],
      unpacked: unpacked.fd,
    };
  });
}

/** Bytes of a run that the file has, and where what follows the run begins. */
interface Part {
  readonly held: bigint;
  readonly next: bigint;
}

function copyPlain(
  file: ImageFile,
  from: bigint,
  start: bigint,
  length: bigint,
  unpacked: Unpacked,
): Part {
  const rest = file.size - from;
  const held = rest < length ? rest : length;
  for (let done = 0n; done < held; ) {
    const part = file.read(from + done, Math.min(Number(held - done), 1 << 20));
    if (part.length === 0) break;
    unpacked.putAt(start + done, part);
    done += BigInt(part.length);
  }
  return { held, next: from + length };
}

function unpackFrames(
  file: ImageFile,
  from: bigint,
  start: bigint,
  length: bigint,
  unpacked: Unpacked,
): Part {
  let at = from;
  let done = 0n;
  while (done < length) {
    const head = file.read(at, 4);
    const size = head.length < 4 ? 0 : head.readUIntLE(1, 3);
    const body = head.length < 4 ? head : file.read(at + 4n, size);
    // Cut short: what was unpacked is all there is.
    if (head.length < 4 || body.length < size) return { held: done, next: file.size };
    at += BigInt(4 + size);
    const type = head[0]!;
    if (type >= FIRST_SKIPPED) continue;
    const block = unpackChunk(file, type, body, at);
    if (BigInt(block.length) > length - done)
      throw file.fail(`a block that ends at ${at} is longer than the run it is in`);
    unpacked.putAt(start + done, block);
    done += BigInt(block.length);
  }
  return { held: done, next: at + TRAILER };
}

function unpackChunk(file: ImageFile, type: number, body: Buffer, at: bigint): Uint8Array {
  if (body.length < 4) throw file.fail(`the block that ends at ${at} is broken`);
  if (type === CHUNK_PLAIN) return body.subarray(4);
  if (type !== CHUNK_PACKED)
    throw file.fail(`the block that ends at ${at} is of an unknown type (${type})`);
  try {
    return unpackSnappy(body.subarray(4), MAX_BLOCK);
  } catch (error) {
    throw file.fail(
      `the block that ends at ${at} cannot be unpacked (${(error as Error).message})`,
    );
  }
}
