import { CorruptError } from '../errors.js';
import { escapeBytes } from '../escape.js';
import type { KernelObjects } from '../objects/kernel-objects.js';
import type { Pointer } from '../objects/pointer.js';
import type { StructObject } from '../objects/struct-object.js';

/*
 * The kernel's log is a ring of descriptors and a ring of text. A descriptor's number counts up for
 * ever; its place in the ring is the number modulo the ring's length. `state_var` has the number,
 * and in its two highest bits the state. The text of a record begins with 8 bytes for the
 * descriptor's number; one that would go over the end of the ring begins at its start instead.
 * Source: kernel/printk/printk_ringbuffer.c, since commit 896fbe20b4e2 (5.10).
 */
const ID_MASK = (1n << 62n) - 1n;
const COMMITTED = 1n;
const FINALIZED = 2n;
/** Positions with the lowest bit set mean that there is no text: LPOS_DATALESS. */
const NO_DATA = 1n;
const HEADER = 8;
/** Largest ring: CONFIG_LOG_BUF_SHIFT is at most 25, log_buf_len 2 GiB. */
const MAX_BITS = 31;
const MAX_RECORDS = 1 << 24;

/** A line of the kernel's log. */
export interface LogRecord {
  readonly sequence: bigint;
  /** Nanoseconds since boot. */
  readonly time: bigint;
  /** 0 (emergency) to 7 (debug). */
  readonly level: number;
  readonly facility: number;
  /** What is not printable is escaped; tabs and line feeds stay. */
  readonly text: string;
}

/**
 * The kernel's log, the oldest record first: what `dmesg` prints.
 * @throws {CorruptError} no ring
 * @throws {VmiError} `VMI_SYMBOL`: a kernel before 5.10
 */
export function* dmesg(objects: KernelObjects): Generator<LogRecord> {
  const ring = objects.variable('prb') as StructObject | null;
  if (ring === null) throw new CorruptError("the kernel's log is NULL", 0n);
  const descriptors = ring.desc_ring as StructObject;
  const text = ring.text_data_ring as StructObject;
  const count = size(ring, descriptors.count_bits);
  const bytes = size(ring, text.size_bits);
  const from = (descriptors.tail_id.counter as bigint) & ID_MASK;
  const to = (descriptors.head_id.counter as bigint) & ID_MASK;
  const length = (to - from) & ID_MASK;
  if (length >= count || length > MAX_RECORDS) {
    throw new CorruptError(`the kernel's log has ${length} records in ${count}`, ring.$address);
  }
  for (let i = 0n; i <= length; i++) {
    const id = (from + i) & ID_MASK;
    const descriptor = descriptors.$follow('descs').$add(id % count) as StructObject;
    const state = BigInt.asUintN(64, descriptor.state_var.counter as bigint);
    if ((state & ID_MASK) !== id) continue;
    if (state >> 62n !== COMMITTED && state >> 62n !== FINALIZED) continue;
    const info = descriptors.$follow('infos').$add(id % count) as StructObject;
    yield {
      sequence: info.seq,
      time: info.ts_nsec,
      level: info.level,
      facility: info.facility,
      text: textOf(text, bytes, descriptor.text_blk_lpos, info.text_len),
    };
  }
}

function size(ring: StructObject, bits: number): bigint {
  if (bits <= MAX_BITS) return 1n << BigInt(bits);
  throw new CorruptError(`a ring of the kernel's log has 2^${bits} entries`, ring.$address);
}

function textOf(text: StructObject, bytes: bigint, place: StructObject, length: number): string {
  const { begin, next } = place;
  if ((begin & NO_DATA) !== 0n) return '';
  const wraps = begin / bytes !== next / bytes && next % bytes !== 0n;
  const start = (wraps ? 0n : begin % bytes) + BigInt(HEADER);
  const most = Number(bytes - start);
  const data = (text.$follow('data') as Pointer).add(start).bytes(Math.min(length, most));
  // Tabs and line feeds are the log's own; a terminal does no harm with them.
  let shown = '';
  let from = 0;
  for (let at = 0; at < data.length; at++) {
    const byte = data[at]!;
    if (byte !== 0x09 && byte !== 0x0a) continue;
    shown += escapeBytes(data.subarray(from, at)) + String.fromCharCode(byte);
    from = at + 1;
  }
  return shown + escapeBytes(data.subarray(from));
}
