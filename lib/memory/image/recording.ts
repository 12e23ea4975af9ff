// A recording: the pages of a guest's RAM that were read while it was asked, and what its source
// said.
//
// `NLVMIREC` at 0   version 1 (u32) at 8   zero (u32) at 12   SHA-256 of the rest at 16   brotli at
// 48
//
// Unpacked: bytes of the JSON (u32), the JSON of RecordedFacts, page numbers (u64 each, ascending),
// then the pages, 4,096 bytes each. All numbers are little-endian.
import { createHash } from 'node:crypto';
import { brotliCompressSync, brotliDecompressSync, constants } from 'node:zlib';
import type { NativeScan } from '../../../types/addon.js';
import { PAGE_SIZE } from '../../address.js';
import { hex, VmiError } from '../../errors.js';
import type { Machine } from '../machine.js';
import {
  type Addressing,
  PhysicalMemory,
  type PhysicalRange,
  type VcpuRegisters,
} from '../physical-memory.js';
import { SCRIPTED } from '../scripted/engine.js';
import { type ReadMemory, ScriptedMemory } from '../scripted/scripted-memory.js';
import type { Source } from '../source.js';
import { exactly, type ImageFile } from './file.js';

const MAGIC = Buffer.from('NLVMIREC');
const VERSION = 1;
const HEADER = 48;
/** Most bytes that a recording unpacks to. */
const MAX_UNPACKED = 1 << 30;
const MAX_RANGES = 65_536;
const MAX_VCPUS = 65_536;
/** Quality of brotli: beyond it, pages become hardly smaller and take many times as long. */
const QUALITY = 6;

/** What a recording holds. */
export interface Recording {
  /** What was recorded, for people. */
  readonly description: string;
  readonly addressing: Addressing;
  readonly ranges: readonly PhysicalRange[];
  readonly registers: readonly VcpuRegisters[];
  /** Pages by number. */
  readonly pages: ReadonlyMap<number, Uint8Array>;
  /** Where searches found what they looked for, by {@link scanKey}. */
  readonly scans: Readonly<Record<string, readonly bigint[]>>;
}

type Scan = (request: NativeScan) => Promise<BigUint64Array>;

/** What one search looks for, and where. */
export function scanKey({ pattern, stride, offsets, start, end, max }: NativeScan): string {
  const where = `${start === undefined ? '' : hex(start)}-${end === undefined ? '' : hex(end)}`;
  return `${Buffer.from(pattern).toString('hex')} ${stride} ${offsets.join()} ${where} ${max}`;
}

/**
 * Memory whose reads and searches are answered by functions: that of a recording, made or opened.
 */
export function openAnswered(
  { description, addressing, ranges, registers }: Omit<Recording, 'pages' | 'scans'>,
  read: ReadMemory,
  scan: Scan,
): PhysicalMemory {
  const close = async () => {};
  const machine: Machine =
    registers.length === 0 ? { close } : { close, registers: async () => [...registers] };
  return new PhysicalMemory({
    native: new AnsweredMemory(ranges, read, scan),
    engine: SCRIPTED,
    source: 'recording',
    description,
    live: false,
    addressing,
    machine,
  });
}

class AnsweredMemory extends ScriptedMemory {
  readonly #scan: Scan;

  constructor(ranges: readonly PhysicalRange[], read: ReadMemory, scan: Scan) {
    super(ranges, read);
    this.#scan = scan;
  }

  override scan(request: NativeScan): Promise<BigUint64Array> {
    return this.#scan(request);
  }
}

/** Makes the file of a recording. */
export function packRecording({ pages, ...facts }: Recording): Buffer {
  const numbers = [...pages.keys()].sort((a, b) => a - b);
  const json = Buffer.from(
    JSON.stringify({ ...facts, pages: numbers.length }, (_, value: unknown) =>
      typeof value === 'bigint' ? hex(value) : value,
    ),
  );
  const head = Buffer.alloc(4);
  head.writeUInt32LE(json.length);
  const index = Buffer.from(BigUint64Array.from(numbers, BigInt).buffer);
  const body = Buffer.concat([head, json, index, ...numbers.map((number) => pages.get(number)!)]);
  const packed = brotliCompressSync(body, {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: QUALITY,
      [constants.BROTLI_PARAM_LGWIN]: constants.BROTLI_MAX_WINDOW_BITS,
      [constants.BROTLI_PARAM_SIZE_HINT]: body.length,
    },
  });
  const start = Buffer.alloc(16);
  MAGIC.copy(start);
  start.writeUInt32LE(VERSION, 8);
  return Buffer.concat([start, createHash('sha256').update(packed).digest(), packed]);
}

/** Whether a file starts like a recording. */
export function isRecording(head: Buffer): boolean {
  return head.subarray(0, MAGIC.length).equals(MAGIC);
}

/**
 * Opens a recording: every page that was read is there, a read of any other says so.
 * @throws {VmiError} `VMI_ATTACH`: damaged, or of a later version
 */
export function recordingSource(file: ImageFile): Source {
  const recording = readRecording(file);
  const { pages, scans } = recording;
  const description = `${file.path} (recording of ${recording.description})`;
  const unknown = (what: string) =>
    new VmiError(
      'VMI_UNSUPPORTED',
      `${file.path} is a recording, and ${what} when it was made: record this question too`,
    );
  const read: ReadMemory = (address, into) => {
    const page = pages.get(Number(address / BigInt(PAGE_SIZE)));
    if (page === undefined) throw unknown(`the page at ${hex(address)} was not read`);
    into.set(page.subarray(0, into.length));
    return into.length;
  };
  const scan: Scan = async (request) => {
    const key = scanKey(request);
    if (!Object.hasOwn(scans, key)) throw unknown('nobody searched for this');
    return BigUint64Array.from(scans[key]!);
  };
  const open = () => openAnswered({ ...recording, description }, read, scan);
  const assumption = 'recording';
  return {
    candidates: [{ assumption, proven: true, open }],
    // What a cache knows would lead to other pages than were read.
    cacheable: false,
    close: async () => {},
  };
}

function readRecording(file: ImageFile): Recording {
  const header = exactly(file, file, 0n, HEADER, 'header');
  const version = header.readUInt32LE(8);
  if (version !== VERSION) throw file.fail(`it is a recording of version ${version}, not 1`);
  const packed = exactly(file, file, BigInt(HEADER), Number(file.size) - HEADER, 'pages');
  if (!createHash('sha256').update(packed).digest().equals(header.subarray(16))) {
    throw file.fail('it is a recording that is damaged or cut. Copy it again, whole');
  }
  try {
    return parse(brotliDecompressSync(packed, { maxOutputLength: MAX_UNPACKED }));
  } catch (error) {
    throw file.fail(`it is a recording that holds nonsense (${(error as Error).message})`);
  }
}

/** @throws {Error} what is none */
function parse(body: Buffer): Recording {
  const length = body.readUInt32LE(0);
  const facts = JSON.parse(body.toString('utf8', 4, 4 + length)) as {
    readonly description: unknown;
    readonly addressing: unknown;
    readonly pages: unknown;
    readonly ranges: readonly { readonly start: string; readonly length: string }[];
    readonly registers: readonly Record<keyof VcpuRegisters, string>[];
    readonly scans: Readonly<Record<string, readonly string[]>>;
  };
  const { pages: count, addressing } = facts;
  const start = 4 + length + 8 * Number(count);
  if (!Number.isInteger(count) || body.length !== start + Number(count) * PAGE_SIZE) {
    throw new Error(`${String(count)} pages in ${body.length} bytes`);
  }
  if (addressing !== 'guest-physical' && addressing !== 'machine') throw new Error('addresses');
  if (facts.ranges.length > MAX_RANGES || facts.registers.length > MAX_VCPUS) {
    throw new Error('more ranges or registers than any guest has');
  }
  const pages = new Map<number, Uint8Array>();
  for (let i = 0; i < Number(count); i++) {
    const at = start + i * PAGE_SIZE;
    pages.set(Number(body.readBigUInt64LE(4 + length + i * 8)), body.subarray(at, at + PAGE_SIZE));
  }
  return {
    description: String(facts.description),
    addressing,
    pages,
    scans: Object.fromEntries(
      Object.entries(facts.scans).map(([key, hits]) => [key, hits.map(BigInt)]),
    ),
    ranges: facts.ranges.map((one) => ({ start: BigInt(one.start), length: BigInt(one.length) })),
    registers: facts.registers.map((one) => ({
      vcpu: Number(one.vcpu),
      cr0: BigInt(one.cr0),
      cr3: BigInt(one.cr3),
      cr4: BigInt(one.cr4),
      rip: BigInt(one.rip),
      efer: BigInt(one.efer),
    })),
  };
}
