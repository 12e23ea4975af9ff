import { setImmediate as nextTurn } from 'node:timers/promises';
import { wrap } from '../address.js';
import { VmiError } from '../errors.js';
import { vmas } from '../helpers/mm.js';
import type { Kernel } from '../kernel/kernel.js';
import type { VirtualMemory } from '../memory/virtual-memory.js';
import { objectsOf } from '../objects/kernel-objects.js';
import type { StructObject } from '../objects/struct-object.js';
import {
  checkFunction,
  checkOptions,
  checkSignal,
  checkWhole,
  describe,
  type OptionNames,
} from '../options.js';

/** What to search for: bytes, text in UTF-8, or 8 bytes that hold a number, the lowest first. */
export type Pattern = Uint8Array | string | bigint;

/** Where a search looks, and how it is told to end. */
export interface SearchOptions {
  /**
   * Searches the user memory of this process, page by page as its page table has it. All RAM when
   * left out: it holds the kernel's memory, and whatever of processes and files is present.
   */
  readonly pid?: number;
  /**
   * Which bits of the pattern count, as many bytes as it has: those that are 0 may be anything. For
   * a number a bigint.
   */
  readonly mask?: Uint8Array | bigint;
  /** Only addresses that are multiples of this; default 1. */
  readonly align?: number;
  readonly signal?: AbortSignal;
  /** Called now and then with the bytes looked at, and those to look at. */
  readonly progress?: (done: bigint, total: bigint) => void;
}

const NAMES: OptionNames<SearchOptions> = {
  pid: true,
  mask: true,
  align: true,
  signal: true,
  progress: true,
};

/** A place where the pattern is. */
export interface SearchHit {
  /** In the process that was searched; in the direct map of the kernel otherwise. */
  readonly address: bigint;
  /** Guest-physical; in a PV guest of Xen, of the machine. */
  readonly physical: bigint;
}

const MAX_PATTERN = 256;
/**
 * Bytes of RAM that one native scan looks at: an abort waits for no more, and progress is as fine.
 */
const PIECE = 64n << 20n;
/** Bytes of a process that are read at a time. */
const CHUNK = 1 << 20;
const MAX_HITS = 65_536;

/**
 * Searches memory, and gives what it finds in ascending order.
 * @param spaceOf the address space of a PID: its `mm_struct`, and its page table
 * @throws {RangeError} an empty pattern, or one of more than 256 bytes; `align` is no positive
 * integer
 * @throws {VmiError} `VMI_ABORTED`
 */
export async function* search(
  kernel: Kernel,
  pattern: Pattern,
  options: SearchOptions,
  spaceOf: (pid: number) => { readonly mm: StructObject; readonly memory: VirtualMemory },
): AsyncGenerator<SearchHit> {
  checkOptions(options, NAMES);
  checkSignal(options.signal);
  const bytes = toBytes(pattern);
  const { align = 1 } = options;
  checkWhole(align, 'align', 1, Number.MAX_SAFE_INTEGER);
  checkFunction(options.progress, 'progress');
  const space = options.pid === undefined ? undefined : spaceOf(options.pid);
  const find = (part: Buffer) =>
    space === undefined ? searchRam(kernel, part, options) : searchProcess(part, options, space);
  const hits =
    options.mask === undefined
      ? find(bytes)
      : searchMasked(bytes, toMask(options.mask, bytes), find, (hit, into) =>
          space === undefined
            ? kernel.memory.physical.readInto(hit.physical, into)
            : space.memory.readInto(hit.address, into),
        );
  for await (const hit of hits) if (hit.address % BigInt(align) === 0n) yield hit;
}

/** @throws {TypeError} @throws {RangeError} */
function toMask(mask: Uint8Array | bigint, pattern: Buffer): Buffer {
  if (typeof mask !== 'bigint' && !(mask instanceof Uint8Array))
    throw new TypeError(`Expected mask as bytes or a bigint but received ${describe(mask)}`);
  const bytes = toBytes(mask);
  if (bytes.length !== pattern.length)
    throw new RangeError(
      `Expected mask with the ${pattern.length} bytes of the pattern but received ${bytes.length}`,
    );
  return bytes;
}

/**
 * Searches for the longest run of bytes that count in full, and compares the rest where it is.
 * @throws {RangeError} no byte counts in full
 */
async function* searchMasked(
  pattern: Buffer,
  mask: Buffer,
  find: (part: Buffer) => AsyncGenerator<SearchHit>,
  read: (hit: SearchHit, into: Buffer) => number,
): AsyncGenerator<SearchHit> {
  const [start, end] = longestRun(mask);
  if (start === end) throw new RangeError('Expected mask with a byte of 0xff but received none');
  const around = Buffer.alloc(pattern.length);
  for await (const { address, physical } of find(pattern.subarray(start, end))) {
    const at = { address: wrap(address - BigInt(start)), physical: physical - BigInt(start) };
    if (at.physical < 0n || read(at, around) < around.length) continue;
    if (around.every((byte, i) => ((byte ^ pattern[i]!) & mask[i]!) === 0)) yield at;
  }
}

/** The longest run of 0xff: its first index, and the one behind its last. */
function longestRun(mask: Buffer): [start: number, end: number] {
  let best: [number, number] = [0, 0];
  let start = 0;
  for (let i = 0; i <= mask.length; i++) {
    if (mask[i] === 0xff) continue;
    if (i - start > best[1] - best[0]) best = [start, i];
    start = i + 1;
  }
  return best;
}

function toBytes(pattern: Pattern): Buffer {
  let bytes: Buffer;
  if (typeof pattern === 'bigint') {
    bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt.asUintN(64, pattern));
  } else if (typeof pattern === 'string') bytes = Buffer.from(pattern);
  else if (pattern instanceof Uint8Array) bytes = Buffer.from(pattern);
  else {
    throw new TypeError(
      `Expected a pattern as bytes, a string or a bigint but received ${describe(pattern)}`,
    );
  }
  if (bytes.length >= 1 && bytes.length <= MAX_PATTERN) return bytes;
  throw new RangeError(
    `Expected a pattern of 1 to ${MAX_PATTERN} bytes but received ${bytes.length}`,
  );
}

async function* searchRam(
  kernel: Kernel,
  pattern: Buffer,
  { signal, progress }: SearchOptions,
): AsyncGenerator<SearchHit> {
  const { physical } = kernel.memory;
  physical.begin();
  const total = physical.ranges.reduce((sum, { length }) => sum + length, 0n);
  let done = 0n;
  for (const { start, length } of physical.ranges) {
    const end = start + length;
    for (let at = start; at < end; at += PIECE) {
      const next = at + PIECE < end ? at + PIECE : end;
      // What begins in this piece may end in the next one.
      const last = next + BigInt(pattern.length - 1);
      let from = at;
      for (;;) {
        const options = { start: from, end: last < end ? last : end, max: MAX_HITS };
        const found = await physical.scan(pattern, signal ? { ...options, signal } : options);
        for (const hit of found) {
          // A PV guest of Xen has its own numbering of the machine's frames.
          const own = kernel.p2m === undefined ? hit : kernel.p2m.toPhysical(hit);
          if (hit >= next || own === undefined) continue;
          yield { physical: hit, address: wrap(kernel.pageOffset + own) };
        }
        if (found.length < MAX_HITS) break;
        from = found.at(-1)! + 1n;
      }
      done += next - at;
      progress?.(done, total);
    }
  }
}

async function* searchProcess(
  pattern: Buffer,
  { signal, progress }: SearchOptions,
  { mm, memory }: { readonly mm: StructObject; readonly memory: VirtualMemory },
): AsyncGenerator<SearchHit> {
  const runs = [...presentRuns(mm, memory)];
  const total = runs.reduce((sum, { start, end }) => sum + (end - start), 0n);
  let done = 0n;
  for (const { start, end } of runs) {
    for (let at = start; at < end; at += BigInt(CHUNK)) {
      if (signal?.aborted) {
        throw new VmiError('VMI_ABORTED', 'the search was aborted', { cause: signal.reason });
      }
      const rest = Number(end - at);
      const chunk = Buffer.allocUnsafe(Math.min(rest, CHUNK + pattern.length - 1));
      const read = chunk.subarray(0, memory.readInto(at, chunk));
      for (let hit = read.indexOf(pattern); hit >= 0; hit = read.indexOf(pattern, hit + 1)) {
        if (hit >= CHUNK) break;
        const address = at + BigInt(hit);
        const { physical } = memory.walk(address);
        // The page was there when it was read; gone by now, it is no hit.
        if (physical !== undefined) yield { address, physical };
      }
      done += BigInt(Math.min(rest, CHUNK));
      progress?.(done, total);
      await nextTurn();
    }
  }
}

/** Runs of user addresses whose pages are present, neighbours merged. */
function* presentRuns(mm: StructObject, memory: VirtualMemory) {
  for (const { start, end } of vmas(mm)) {
    let run: { start: bigint; end: bigint } | undefined;
    for (const { virtual, length } of memory.mappings(start, end)) {
      // A large page may reach beyond the part that is asked for.
      const from = virtual < start ? start : virtual;
      const to = virtual + length > end ? end : virtual + length;
      if (run !== undefined && run.end === from) run.end = to;
      else {
        if (run !== undefined) yield run;
        run = { start: from, end: to };
      }
    }
    if (run !== undefined) yield run;
  }
}

/**
 * The address space of a task for {@link search}.
 * @throws {VmiError} `VMI_UNSUPPORTED`: it has none
 */
export function userSpace(kernel: Kernel, task: StructObject) {
  const mm = task.mm as StructObject | null;
  if (mm === null) {
    throw new VmiError('VMI_UNSUPPORTED', `task ${task.pid} has no address space of its own`);
  }
  return { mm, memory: objectsOf(kernel).inProcess(mm).memory };
}
