import { CorruptError, hex, VmiError } from '../errors.js';
import type { VirtualMemory } from '../memory/virtual-memory.js';
import type { CachedKernel } from './cache.js';
import type { ImageCandidate } from './candidate.js';
import { findImageSymbols } from './contents/image-symbols.js';
import { findTaskSymbols } from './contents/task-symbols.js';
import { type MappedImage, rangeOf, runOf, scanImage } from './image.js';
import { InferredTypes } from './layout/inferred-types.js';
import { Kallsyms } from './symbols/kallsyms.js';
import type { KallsymsTables } from './symbols/kallsyms-tables.js';
import { TOKEN_PATTERN, tokenTableAround } from './symbols/kallsyms-tokens.js';
import { LazySymbols } from './symbols/lazy.js';
import { NoSymbols } from './symbols/none.js';
import type { SymbolTable } from './symbols/table.js';
import { Btf } from './types/btf.js';
import { BTF_MAGIC, parseBtfHeader } from './types/btf-sections.js';
import { type KnownOffsets, LazyTypes } from './types/lazy.js';

/** Most bytes of BTF read: a distribution's kernel has 3–8 MB. */
const MAX_BTF = 64 << 20;
const MAX_BANNER = 512;

/** The guest's own symbols and types, and where they are. */
export interface GuestTables {
  /**
   * From now on decodes through `memory`: the process page table used so far disappears when that
   * process exits.
   */
  readThrough(memory: VirtualMemory, symbols: SymbolTable): void;
  readonly symbols: LazySymbols;
  readonly types: LazyTypes;
  tables(): KallsymsTables | undefined;
  /** `undefined` where the kernel has none: then its types are inferred from its tasks. */
  btf(): BtfPlace | undefined;
}

/** @throws {VmiError} what the cache says is not what the guest has */
export function tablesFromCache(candidate: ImageCandidate, cached: CachedKernel): GuestTables {
  const { space, image } = candidate;
  const { tables, btf } = cached;
  // Cheap looks at both, so that a broken file shows now and not at some later question.
  if (tables !== undefined) {
    const head = space.read(tables.tokenTable, 8192);
    const zero = head.indexOf(TOKEN_PATTERN);
    const found = zero < 0 ? undefined : tokenTableAround(head, zero);
    if (
      found === undefined ||
      found.table !== 0 ||
      tables.tokenTable + BigInt(found.index) !== tables.tokenIndex
    ) {
      throw new CorruptError('the cached place of kallsyms is wrong', tables.tokenTable);
    }
  }
  if (btf !== undefined) {
    const header = parseBtfHeader(space.read(btf.at, 32));
    if (header === undefined || header.length > btf.length)
      throw new CorruptError('the cached place of BTF is wrong', btf.at);
  }
  const open = () => openKallsyms(reading.memory, tables, image);
  const symbols = new LazySymbols('kallsyms', open, cached.symbols);
  const reading: Reading = { memory: space, symbols };
  return {
    readThrough: (memory, symbols) => {
      Object.assign(reading, { memory, symbols });
    },
    symbols,
    types: guestTypes(reading, btf, cached.offsets),
    tables: () => tables,
    btf: () => btf,
  };
}

function openKallsyms(
  space: VirtualMemory,
  tables: KallsymsTables | undefined,
  image: MappedImage,
): Kallsyms {
  if (tables === undefined)
    throw new VmiError('VMI_ATTACH', 'the kernel has no kallsyms: give a profile with symbols');
  return Kallsyms.open(space, tables, rangeOf(image));
}

/** Where BTF is, from its header on. */
interface BtfPlace {
  readonly at: bigint;
  readonly length: number;
}

/** What the guest's own types are decoded through. */
interface Reading {
  memory: VirtualMemory;
  /** Symbols by which tasks are found, where types are inferred from them. */
  symbols: SymbolTable;
}

/**
 * The guest's own types: BTF, or what its tasks show. Where tasks do not decide a member they may
 * later, when another task is on a CPU: it is not remembered as absent.
 */
function guestTypes(reading: Reading, btf: BtfPlace | undefined, known?: KnownOffsets): LazyTypes {
  if (btf === undefined) {
    let inferred: InferredTypes | undefined;
    const open = () => {
      inferred = new InferredTypes(reading);
      return inferred;
    };
    return new LazyTypes('inferred', open, known, (name) => inferred?.isUndecided(name) === true);
  }
  return new LazyTypes('btf', () => new Btf(reading.memory.read(btf.at, btf.length)), known);
}

/**
 * Searches the image for kallsyms and BTF, and for the variables that kallsyms does not name.
 * @param needSymbols whether a kernel of which nothing is named and nothing found is refused:
 *   nobody else gives its symbols
 */
export async function tablesFromGuest(
  candidate: ImageCandidate,
  { needSymbols, signal }: { needSymbols: boolean; signal: AbortSignal | undefined },
): Promise<GuestTables> {
  const { space, image } = candidate;
  let kallsyms: Kallsyms | undefined;
  let failure: unknown;
  // A read that failed once looks like a kernel without kallsyms: a live one is looked at again.
  const looks = space.physical.live ? 2 : 1;
  for (let look = 0; look < looks && kallsyms === undefined; look++) {
    try {
      kallsyms = await searchKallsyms(candidate, signal);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      failure = error;
    }
  }
  const named: SymbolTable = kallsyms ?? new NoSymbols();
  const data = await findImageSymbols(candidate, named, signal);
  const btf =
    (kallsyms && btfBySymbols(candidate, kallsyms)) ?? (await searchBtf(candidate, signal));
  const symbols = new LazySymbols(named.source, () => named, data);
  const reading: Reading = { memory: space, symbols };
  const types = guestTypes(reading, btf);
  if (needSymbols) {
    const banner = symbols.find('linux_banner');
    const single = banner !== undefined && !isForMany(space.readString(banner, MAX_BANNER));
    await findTaskSymbols({ space, image, symbols, types, single, signal });
    // What has a banner and tasks is a kernel, though it names nothing.
    if (kallsyms === undefined && symbols.find('init_task') === undefined) throw failure;
  }
  return {
    readThrough: (memory, symbols) => {
      Object.assign(reading, { memory, symbols });
    },
    symbols,
    types,
    tables: () => kallsyms?.tables,
    btf: () => btf,
  };
}

/** Whether a banner is that of a kernel for more than one CPU. init/Makefile, UTS_VERSION. */
function isForMany(banner: string): boolean {
  return / #[^#]*\bSMP\b/.test(banner);
}

/** Kallsyms of an image, from its token table on. */
/** Whether an error says what the guest has, and not that nobody may ask any more. */
function isRefusal(error: unknown): boolean {
  return error instanceof VmiError && error.code !== 'VMI_CLOSED' && error.code !== 'VMI_ABORTED';
}

async function searchKallsyms(
  { space, image, tokenTable }: ImageCandidate,
  signal: AbortSignal | undefined,
): Promise<Kallsyms> {
  const range = rangeOf(image);
  let failure: unknown;
  for await (const table of tokenTables(space, image, tokenTable, signal)) {
    try {
      return Kallsyms.find(space, table, range, runOf(image, table));
    } catch (error) {
      if (!(error instanceof VmiError) || error.code === 'VMI_CLOSED') throw error;
      failure ??= error;
    }
  }
  throw (
    failure ??
    new VmiError(
      'VMI_ATTACH',
      `an image at ${hex(image.virtual)} without kallsyms: no Linux kernel, or one that still boots`,
    )
  );
}

async function* tokenTables(
  space: VirtualMemory,
  image: MappedImage,
  known: bigint | undefined,
  signal: AbortSignal | undefined,
): AsyncGenerator<bigint> {
  if (known !== undefined && known >= image.virtual && known < image.virtual + image.length)
    yield known;
  for await (const hit of scanImage(space, image, TOKEN_PATTERN, 256, signal)) {
    const { start } = runOf(image, hit);
    const before = hit - start < 8192n ? hit - start : 8192n;
    const bytes = Buffer.alloc(16_384);
    const read = space.readInto(hit - before, bytes);
    const found = tokenTableAround(bytes.subarray(0, read), Number(before));
    if (found !== undefined) yield hit - before + BigInt(found.table);
  }
}

function btfBySymbols(
  { space, image }: ImageCandidate,
  symbols: SymbolTable,
): BtfPlace | undefined {
  const start = symbols.find('__start_BTF');
  const stop = symbols.find('__stop_BTF');
  if (
    start === undefined ||
    stop === undefined ||
    stop <= start ||
    stop > image.virtual + image.length
  )
    return undefined;
  const length = Number(stop - start);
  if (length < 32 || length > MAX_BTF) return undefined;
  const header = parseBtfHeader(space.read(start, 32));
  return header === undefined || header.length > length
    ? undefined
    : { at: start, length: header.length };
}

/**
 * BTF by its magic within the image, for kernels whose symbols do not name it (without
 * CONFIG_KALLSYMS_ALL). Programs that are built into a kernel (HID-BPF) have BTF of their own, with
 * a few members of the kernel's structures.
 */
async function searchBtf(
  { space, image }: ImageCandidate,
  signal: AbortSignal | undefined,
): Promise<BtfPlace | undefined> {
  const end = image.virtual + image.length;
  const found: BtfPlace[] = [];
  for await (const hit of scanImage(space, image, BTF_MAGIC, 4096, signal)) {
    const bytes = Buffer.alloc(32);
    if (space.readInto(hit, bytes) < bytes.length) continue;
    const header = parseBtfHeader(bytes);
    if (header === undefined || header.length > MAX_BTF || hit + BigInt(header.length) > end)
      continue;
    found.push({ at: hit, length: header.length });
  }
  found.sort((a, b) => b.length - a.length);
  return found.find((place) => isOfKernel(space, place));
}

function isOfKernel(space: VirtualMemory, { at, length }: BtfPlace): boolean {
  try {
    return new Btf(space.read(at, length)).findOffset('task_struct', 'tasks') !== undefined;
  } catch (error) {
    if (error instanceof VmiError && error.code !== 'VMI_CLOSED') return false;
    throw error;
  }
}
