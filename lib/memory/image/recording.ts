// A recording: what of a guest's RAM was read while it was asked, and what its source said.
//
// `NLVMIREC` at 0   version 2 (u32) at 8   zero (u32) at 12   SHA-256 of the rest at 16   brotli at
// 48
//
// Unpacked: bytes of the JSON (u32), the JSON of Recording, page numbers (u64 each, ascending), a
// mask for each page of its chunks of 32 bytes (16 bytes, the lowest bit first), then the chunks
// that were read. All numbers are little-endian.
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
import { moreRegisters } from '../registers.js';
import { SCRIPTED } from '../scripted/engine.js';
import { type ReadMemory, ScriptedMemory } from '../scripted/scripted-memory.js';
import type { Source } from '../source.js';
import { exactly, ImageFile } from './file.js';
import { RecordedPages } from './recorded-pages.js';

const MAGIC = Buffer.from('NLVMIREC');
const VERSION = 2;
const HEADER = 48;
/** Most bytes that a recording unpacks to. */
const MAX_UNPACKED = 1 << 30;
const MAX_RANGES = 65_536;
const MAX_VCPUS = 65_536;
/** Quality of brotli: a recording is made once, and handed about. */
const QUALITY = 9;

/** What a recording holds. */
export interface Recording {
  /** What was recorded, for people. */
  readonly description: string;
  readonly addressing: Addressing;
  readonly ranges: readonly PhysicalRange[];
  readonly registers: readonly VcpuRegisters[];
  readonly pages: RecordedPages;
  /** What is known of the kernel, as a cache keeps it: texts by name. */
  readonly kernel: Readonly<Record<string, string>>;
  /** Where searches found what they looked for, by {@link scanKey}. */
  readonly scans: Readonly<Record<string, readonly bigint[]>>;
}

type Scan = (request: NativeScan) => Promise<BigUint64Array>;
/** Is told which bytes were read, of whole pages that were asked for. */
type OnRead = (address: bigint, length: number) => void;

/** What one search looks for, and where. */
export function scanKey({ pattern, stride, offsets, start, end, max }: NativeScan): string {
  const where = `${start === undefined ? '' : hex(start)}-${end === undefined ? '' : hex(end)}`;
  return `${Buffer.from(pattern).toString('hex')} ${stride} ${offsets.join()} ${where} ${max}`;
}

/**
 * Memory whose reads and searches are answered by functions: that of a recording, made or opened.
 */
export function openAnswered(
  { description, addressing, ranges, registers }: Omit<Recording, 'pages' | 'scans' | 'kernel'>,
  read: ReadMemory,
  scan: Scan,
  onRead: OnRead,
): PhysicalMemory {
  const close = async () => {};
  const machine: Machine =
    registers.length === 0 ? { close } : { close, registers: async () => [...registers] };
  return new PhysicalMemory({
    native: new AnsweredMemory(ranges, read, scan, onRead),
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
  readonly #onRead: OnRead;

  constructor(ranges: readonly PhysicalRange[], read: ReadMemory, scan: Scan, onRead: OnRead) {
    super(ranges, read);
    this.#scan = scan;
    this.#onRead = onRead;
  }

  override read(address: bigint, into: Uint8Array): number {
    const done = super.read(address, into);
    this.#onRead(address, done);
    return done;
  }

  override scan(request: NativeScan): Promise<BigUint64Array> {
    return this.#scan(request);
  }
}

/** Makes the file of a recording. */
export function packRecording({ pages, ...facts }: Recording): Buffer {
  const json = Buffer.from(
    JSON.stringify({ ...facts, pages: pages.count }, (_, value: unknown) =>
      typeof value === 'bigint' ? hex(value) : value,
    ),
  );
  const head = Buffer.alloc(4);
  head.writeUInt32LE(json.length);
  const body = Buffer.concat([head, json, pages.pack()]);
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
 * Opens what `vmi record` or a `Recorder` made.
 * @throws {VmiError} `VMI_ATTACH`: no such file, no recording, damaged, or of a later version
 */
export async function openRecording(path: string): Promise<Source> {
  const file = new ImageFile(path);
  try {
    if (!isRecording(file.read(0n, HEADER)))
      throw new VmiError(
        'VMI_ATTACH',
        `${path} is no recording, as 'vmi record' makes one; a memory image is image:${path}`,
      );
    return recordingSource(file);
  } finally {
    file.close();
  }
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
  const unread = (address: bigint) => unknown(`what is at ${hex(address)} was not read`);
  const read: ReadMemory = (address, into) => {
    const page = pages.page(Number(address / BigInt(PAGE_SIZE)));
    if (page === undefined) throw unread(address);
    into.set(page.subarray(0, into.length));
    return into.length;
  };
  const onRead: OnRead = (address, length) => {
    const missing = pages.missing(address, length);
    if (missing !== undefined) throw unread(missing);
  };
  const scan: Scan = async (request) => {
    const key = scanKey(request);
    if (!Object.hasOwn(scans, key)) throw unknown('nobody searched for this');
    return BigUint64Array.from(scans[key]!);
  };
  const open = () => openAnswered({ ...recording, description }, read, scan, onRead);
  const assumption = 'recording';
  return {
    candidates: [{ assumption, proven: true, open }],
    // What another cache knows would lead to other pages than were read.
    cacheable: false,
    carried: recording.kernel,
    close: async () => {},
  };
}

function readRecording(file: ImageFile): Recording {
  const header = exactly(file, file, 0n, HEADER, 'header');
  const version = header.readUInt32LE(8);
  if (version !== VERSION)
    throw file.fail(`it is a recording of version ${version}, not ${VERSION}`);
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
    readonly kernel: Readonly<Record<string, unknown>>;
  };
  const { pages: count, addressing } = facts;
  if (addressing !== 'guest-physical' && addressing !== 'machine') throw new Error('addresses');
  if (facts.ranges.length > MAX_RANGES || facts.registers.length > MAX_VCPUS) {
    throw new Error('more ranges or registers than any guest has');
  }
  const pages = RecordedPages.unpack(body.subarray(4 + length), Number(count));
  return {
    description: String(facts.description),
    addressing,
    kernel: Object.fromEntries(
      Object.entries(facts.kernel).map(([name, text]) => [name, String(text)]),
    ),
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
      ...moreRegisters((name) => (one[name] === undefined ? undefined : BigInt(one[name]))),
    })),
  };
}
