import { wrap } from '../address.js';
import { hex, VmiError } from '../errors.js';
import type { PhysicalMemory } from '../memory/physical-memory.js';
import type { AddressRange, ByteReader } from './bytes.js';
import { type ImageCandidate, spaceAt } from './candidate.js';
import type { SearchLog } from './search-log.js';
import { Kallsyms } from './symbols/kallsyms.js';
import { TOKEN_PATTERN, tokenTableAround } from './symbols/kallsyms-tokens.js';
import { IMAGE_ALIGN, KERNEL_MAP, KERNEL_MAP_END } from './x86-64.js';

/** RAM around a token table that is searched for the rest of its kernel. */
const AROUND = 64n << 20n;
/** Runs of digits looked at; most are lists of names in programs. */
const MAX_TOKEN_HITS = 4096;
const BANNER = Buffer.from('Linux version ', 'latin1');

/**
 * Kernels by what they contain: a kallsyms token table in RAM, the tables around it, the page table
 * they name. The image is in one piece, so what lies how far from what is the same in physical
 * addresses.
 */
export async function* fromContents(
  memory: PhysicalMemory,
  signal: AbortSignal | undefined,
  log: SearchLog,
): AsyncGenerator<ImageCandidate> {
  const hits = await memory.scan(TOKEN_PATTERN, { max: MAX_TOKEN_HITS, signal });
  let tables = 0;
  for (const hit of hits) {
    const label = `contents: token table at ${hex(hit)}`;
    const around = ramAround(memory, hit);
    if (around === undefined) continue;
    try {
      const tokenTable = tokenTableAt(memory, hit, around);
      if (tokenTable === undefined) continue;
      tables++;
      const candidate = fromTokenTable(memory, tokenTable, around, label, log);
      if (candidate !== undefined) yield candidate;
    } catch (error) {
      if (!(error instanceof VmiError) || error.code === 'VMI_CLOSED') throw error;
      log.note(`${label}: ${error.message}`);
    }
  }
  if (tables === 0)
    log.note(`contents: no kallsyms token table in ${memory.size >> 20n} MiB of RAM`);
}

function ramAround(memory: PhysicalMemory, address: bigint): AddressRange | undefined {
  const range = memory.ranges.find(
    ({ start, length }) => address >= start && address < start + length,
  );
  if (range === undefined) return undefined;
  const end = range.start + range.length;
  const low = address - AROUND;
  return {
    start: low > range.start ? low : range.start,
    end: address + AROUND < end ? address + AROUND : end,
  };
}

/**
 * Physical address of the token table whose digits were hit; ten digits in a row stand elsewhere
 * too.
 */
function tokenTableAt(
  memory: PhysicalMemory,
  hit: bigint,
  around: AddressRange,
): bigint | undefined {
  const before = hit - around.start < 8192n ? hit - around.start : 8192n;
  const near = memory.read(hit - before, Math.min(Number(around.end - hit + before), 16_384));
  const tokens = tokenTableAround(near, Number(before));
  return tokens === undefined ? undefined : hit - before + BigInt(tokens.table);
}

function fromTokenTable(
  memory: PhysicalMemory,
  tokenTable: bigint,
  around: AddressRange,
  label: string,
  log: SearchLog,
): ImageCandidate | undefined {
  const { symbols, relative } = physicalKallsyms(memory, tokenTable, around);
  const table = symbols.find('init_top_pgt');
  const banner = symbols.find('linux_banner');
  if (table === undefined || banner === undefined) {
    log.note(`${label}: its ${symbols.count} symbols lack init_top_pgt or linux_banner`);
    return undefined;
  }
  const distance = relative ? 0n : distanceByBanner(memory, banner, around);
  if (distance === undefined) {
    log.note(`${label}: no banner near it at the place of linux_banner`);
    return undefined;
  }
  const root = wrap(table + distance);
  for (const levels of [4, 5] as const) {
    if (root % 4096n !== 0n) break;
    const at = spaceAt(memory, root, levels);
    if (at === undefined) continue;
    const offset = tokenTable - at.image.physical;
    if (offset < 0n || offset >= at.image.length) continue;
    return { source: 'contents', label, ...at, tokenTable: at.image.virtual + offset };
  }
  log.note(`${label}: the page table at ${hex(root)} does not map the image it lies in`);
  return undefined;
}

/**
 * Symbols by tables at physical addresses. Offsets from a base give virtual addresses; offsets from
 * their own place (`relative`) give physical ones, as the tables were found at such.
 */
function physicalKallsyms(
  memory: PhysicalMemory,
  tokenTable: bigint,
  around: AddressRange,
): { symbols: Kallsyms; relative: boolean } {
  const source: ByteReader = { read: (address, length) => memory.read(address, length) };
  const virtual = { start: KERNEL_MAP, end: KERNEL_MAP_END };
  let failure: unknown;
  for (const image of [virtual, around]) {
    try {
      const symbols = Kallsyms.find(source, tokenTable, image, around);
      return { symbols, relative: symbols.tables.form === 'place' };
    } catch (error) {
      failure ??= error;
    }
  }
  throw failure;
}

/**
 * How far the image's physical addresses are from its virtual ones: by the text that `linux_banner`
 * must show.
 */
function distanceByBanner(
  memory: PhysicalMemory,
  banner: bigint,
  around: AddressRange,
): bigint | undefined {
  const first = around.start - (around.start % IMAGE_ALIGN) + (banner % IMAGE_ALIGN);
  const text = Buffer.alloc(BANNER.length);
  for (let at = first; at + 16n <= around.end; at += IMAGE_ALIGN) {
    if (memory.readInto(at, text) === text.length && text.equals(BANNER)) return wrap(at - banner);
  }
  return undefined;
}
