// A flattened dump (makedumpfile -F): one of its other formats as a stream, for a pipe that cannot
// seek.
//
// header   4,096 bytes: 'makedumpfile' padded to 16 bytes, type 1, version 1 (8 bytes each,
//          big-endian)
// record   offset 0, size 8 (signed, big-endian), then `size` bytes that belong at `offset`
// end      a record with offset -1
//
// A later record overwrites an earlier one; what none covers is zero. makedumpfile.h, struct
// makedumpfile_header and _data_header.
import type { Bytes, ImageFile } from './file.js';

const HEADER = 4096n;
const RECORD = 16;
const MAX_RECORDS = 64 << 20;

/** Whether the file starts like a flattened dump. */
export function isFlattened(head: Buffer): boolean {
  return head.toString('latin1', 0, 16).startsWith('makedumpfile\0\0\0\0');
}

interface Record {
  readonly offset: bigint;
  readonly size: bigint;
  /** Where its bytes are in the flattened file. */
  readonly at: bigint;
}

/**
 * The file that a flattened dump stands for.
 * @throws {VmiError} `VMI_ATTACH`: truncated, or broken
 */
export function unflatten(file: ImageFile): Bytes {
  const records = readRecords(file);
  const size = records.reduce(
    (most, record) => (record.offset + record.size > most ? record.offset + record.size : most),
    0n,
  );
  // Sorted, with the order kept among equals, the last of those that start at a place is found.
  records.sort((a, b) => (a.offset < b.offset ? -1 : a.offset > b.offset ? 1 : 0));
  return { size, read: (offset, length) => readThrough(file, records, size, offset, length) };
}

function readRecords(file: ImageFile): Record[] {
  const records: Record[] = [];
  for (let at = HEADER; ; ) {
    const head = file.read(at, RECORD);
    if (head.length < RECORD)
      throw file.fail('it is truncated: its end marker is missing. Copy it again, whole');
    const offset = head.readBigInt64BE(0);
    const size = head.readBigInt64BE(8);
    if (offset === -1n) return records;
    if (offset < 0n || size <= 0n || size > file.size - at - BigInt(RECORD))
      throw file.fail(`its record at ${at} is truncated or broken`);
    if (records.length === MAX_RECORDS) throw file.fail(`it has more than ${MAX_RECORDS} records`);
    records.push({ offset, size, at: at + BigInt(RECORD) });
    at += BigInt(RECORD) + size;
  }
}

/** Index of the last record that starts at or before `offset`; -1: none. */
function find(records: readonly Record[], offset: bigint): number {
  let low = 0;
  let high = records.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (records[middle]!.offset <= offset) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function readThrough(
  file: ImageFile,
  records: readonly Record[],
  size: bigint,
  offset: bigint,
  length: number,
): Buffer {
  if (offset < 0n || offset >= size) return Buffer.alloc(0);
  const rest = size - offset;
  const bytes = Buffer.alloc(rest < BigInt(length) ? Number(rest) : length);
  let done = 0;
  while (done < bytes.length) {
    const place = offset + BigInt(done);
    const index = find(records, place);
    const record = records[index];
    const wanted = BigInt(bytes.length - done);
    if (record !== undefined && place < record.offset + record.size) {
      const within = place - record.offset;
      const next = records[index + 1];
      let part = record.size - within < wanted ? record.size - within : wanted;
      // A record that starts within this one came later, or not: it is the more exact one either
      // way.
      if (next !== undefined && next.offset - place < part) part = next.offset - place;
      bytes.set(file.read(record.at + within, Number(part)), done);
      done += Number(part);
    } else {
      const next = records[index + 1]!;
      done += Number(next.offset - place < wanted ? next.offset - place : wanted);
    }
  }
  return bytes;
}
