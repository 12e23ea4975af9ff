import { VmiError } from '../errors.js';
import type { PhysicalMemory, VcpuRegisters } from '../memory/physical-memory.js';
import type { VirtualMemory } from '../memory/virtual-memory.js';
import { checkAborted } from './aborted.js';
import { type BuildId, findBuildId } from './build-id.js';
import type { CachedKernel, CacheEntry, KernelCache } from './cache.js';
import type { ImageCandidate } from './candidate.js';
import { type Choice, chooseKernel, kernelsText } from './choose.js';
import { runsNow } from './clock.js';
import { KernelCpus } from './cpus.js';
import { type GuestTables, tablesFromCache, tablesFromGuest } from './guest-tables.js';
import { type KernelImage, mapKernel } from './kernel-image.js';
import { proveLayout } from './layout/prove.js';
import { fromPlace, type LocateOptions, locate, vcpuThatMaps } from './locate.js';
import type { Profile } from './profile/profile.js';
import { checkProfile, movedProfile, ProfileError } from './profile-fit.js';
import { readPti } from './pti.js';
import { SearchLog } from './search-log.js';
import type { SymbolTable } from './symbols/table.js';
import { LayeredTypes } from './types/layered.js';
import type { TypeTable } from './types/table.js';
import { readBanner, verifyTasks } from './verify.js';

/** Registers of a guest that boots or switches processes change; so often is it looked at again. */
const ATTEMPTS = 8;
/** Errors that say what is not known, and not that something is wrong. */
const LACKING: ReadonlySet<string> = new Set(['VMI_TYPE', 'VMI_SYMBOL', 'VMI_ATTACH']);
/** Build-ids compared at most: the cache holds no more. */
const MAX_CACHE_LOOKS = 256;

/** A kernel that was found and verified, and what was found with it. */
export interface FoundKernel {
  readonly candidate: ImageCandidate;
  readonly image: KernelImage;
  readonly memory: VirtualMemory;
  readonly symbols: SymbolTable;
  readonly types: TypeTable;
  readonly guest: GuestTables;
  readonly release: string;
  readonly banner: string;
  readonly buildId: BuildId | undefined;
  readonly pti: boolean;
  /** Why its tasks cannot be read, where all else is known. */
  readonly lacking: VmiError | undefined;
  readonly cached: CachedKernel | undefined;
  readonly cache: KernelCache | undefined;
}

/** The kernel that is attached, and which there were to choose from. */
export type ChosenKernel = FoundKernel & Pick<Choice<unknown>, 'why' | 'all'>;

/** What a search may use. */
interface SearchOptions {
  readonly profile: Profile | undefined;
  readonly cache: KernelCache | undefined;
  readonly entries: readonly CacheEntry[];
  readonly signal: AbortSignal | undefined;
  readonly number: number | undefined;
}

/** What the caller of {@link findKernel} gives. */
export interface FindOptions {
  readonly profile: Profile | undefined;
  readonly cache: KernelCache | undefined;
  readonly signal: AbortSignal | undefined;
  /** Which of several kernels in RAM; the one that runs when left out. See `KernelInRam`. */
  readonly number?: number | undefined;
  /** Registers of the vCPUs, or when they are there; asked of the memory when left out. */
  readonly registers: readonly VcpuRegisters[] | Promise<readonly VcpuRegisters[]> | undefined;
}

/**
 * Finds the kernel that runs, and verifies it.
 * @throws {VmiError} `VMI_ATTACH`: none that verifies; what was tried and found is in the message
 * @throws {VmiError} `VMI_ABORTED`
 */
export async function findKernel(
  memory: PhysicalMemory,
  { profile, cache, signal, number, registers: given }: FindOptions,
): Promise<ChosenKernel> {
  const log = new SearchLog();
  memory.begin();
  const asked = given ?? readRegisters(memory, signal, log);
  const entries = cache === undefined ? [] : cache.entries();
  // While QEMU fetches registers, assume the cached kernel is still at its last place. The
  // registers confirm or refute that below.
  const isQuick = cache !== undefined && number === undefined && !namesAll(memory);
  const guess = isQuick
    ? guessKernel(memory, { profile, cache, entries, signal, number })
    : undefined;
  let registers = await asked;
  checkAborted(signal);
  // Hints say where VMCOREINFO was. Registers make them needless, so then they are not even read.
  const hints = registers.length === 0 && cache !== undefined ? cache.hints() : [];
  const search = () =>
    searchKernel(memory, { registers, hints, profile, cache, entries, signal, number }, log);
  const sure = guess && confirmed(guess, registers);
  let found = sure === undefined ? await search() : await alone(sure);
  // The process whose page table a vCPU had loaded may have exited, and the page may be another's,
  // half made, by now.
  for (let look = 1; found === undefined && look < ATTEMPTS && memory.live; look++) {
    const now = await readRegisters(memory, signal, log);
    const then = registers;
    const moved = now.some(({ vcpu, cr3 }) =>
      then.some((one) => one.vcpu === vcpu && one.cr3 !== cr3),
    );
    if (now.length === 0 || (look > 1 && !moved)) break;
    registers = now;
    found = await search();
  }
  if (found !== undefined) return found;
  throw new VmiError(
    'VMI_ATTACH',
    `no running Linux kernel found in ${memory.description}: ${log}`,
  );
}

async function readRegisters(
  memory: PhysicalMemory,
  signal: AbortSignal | undefined,
  log: SearchLog,
): Promise<VcpuRegisters[]> {
  if (!memory.capabilities.registers) return [];
  try {
    return await memory.registers({ signal });
  } catch (error) {
    if (!(error instanceof VmiError) || error.code === 'VMI_ABORTED' || error.code === 'VMI_CLOSED')
      throw error;
    log.note(`registers: ${error.message}`);
    return [];
  }
}

/** Whether all kernels are looked for where registers tell which one runs: it takes a scan. */
const namesAll = (memory: PhysicalMemory) => memory.source === 'image';

/** A kernel that was found without a look at what else is in RAM. */
async function alone(found: FoundKernel): Promise<ChosenKernel> {
  const { why, all } = (await chooseKernel([found]))!;
  return { ...found, why, all };
}

/**
 * The first kernel that registers lead to and that verifies; without registers, of an image, and
 * where one is asked for, all that verify are found, and one of them is chosen.
 */
async function searchKernel(
  memory: PhysicalMemory,
  options: SearchOptions & Pick<LocateOptions, 'registers' | 'hints'>,
  log: SearchLog,
): Promise<ChosenKernel | undefined> {
  const { registers, hints, signal, number } = options;
  const loaded: FoundKernel[] = [];
  const settled = () => loaded.length > 0;
  const all = number !== undefined || namesAll(memory);
  for await (const candidate of locate(memory, { registers, hints, signal, settled, all }, log)) {
    checkAborted(signal);
    if (loaded.some(({ image }) => isPartOf(candidate.image, image))) continue;
    let found: FoundKernel;
    try {
      found = await open(candidate, options);
      loaded.push(found);
    } catch (error) {
      if (
        !(error instanceof VmiError) ||
        error.code === 'VMI_CLOSED' ||
        error.code === 'VMI_ABORTED'
      )
        throw error;
      if (error instanceof ProfileError) throw error;
      log.note(`${candidate.label}: ${error.message}`);
      continue;
    }
    // A hint settles which of several kernels runs when that kernel's clock is right: one that a
    // reset left in RAM stands still. Otherwise all copies are looked at, and all that CPUs map.
    if (!all && candidate.hinted && runsNow(found)) break;
  }
  checkAborted(signal);
  return chosen(loaded, options, log);
}

/** Whether an image is one that is known already: the page table of user mode maps a part of it. */
function isPartOf(part: ImageCandidate['image'], whole: KernelImage): boolean {
  return (
    part.physical - part.virtual === whole.physical - whole.virtual &&
    part.virtual >= whole.virtual &&
    part.virtual + part.length <= whole.virtual + whole.length
  );
}

/** One of the kernels that verified; none where only one that does not run did. */
async function chosen(
  loaded: readonly FoundKernel[],
  { registers, number }: Pick<SearchOptions, 'number'> & Pick<LocateOptions, 'registers'>,
  log: SearchLog,
): Promise<ChosenKernel | undefined> {
  const whole = loaded.filter(({ lacking }) => lacking === undefined);
  if (whole.length === 0 && loaded.length > 1 && number === undefined) {
    for (const { candidate, lacking } of loaded)
      log.note(`${candidate.label}: ${lacking?.message}`);
    return undefined;
  }
  const choice = await chooseKernel(whole.length > 0 ? whole : loaded, number);
  if (choice === undefined) return undefined;
  const { why, all } = choice;
  // A source that cannot tell gives zeroes.
  const told = registers?.some(({ cr0, cr3 }) => cr0 !== 0n || cr3 !== 0n);
  const runs = told !== true || choice.chosen.candidate.source === 'registers';
  if (runs || number !== undefined) return { ...choice.chosen, why, all };
  log.note(`no CPU maps what is in RAM besides: ${kernelsText(all)}; take one by its number`);
  return undefined;
}

/** Opens a candidate with what the cache knows, and without it when that does not verify. */
async function open(candidate: ImageCandidate, options: SearchOptions): Promise<FoundKernel> {
  const cached = options.cache && recognise(candidate, options.cache, options.entries);
  if (cached !== undefined) {
    try {
      return assemble(candidate, tablesFromCache(candidate, cached), cached, options);
    } catch (error) {
      if (
        !(error instanceof VmiError) ||
        error.code === 'VMI_CLOSED' ||
        error instanceof ProfileError
      )
        throw error;
    }
  }
  return assemble(
    candidate,
    await tablesFromGuest(candidate, {
      needSymbols: options.profile?.symbols === undefined,
      signal: options.signal,
    }),
    undefined,
    options,
  );
}

/**
 * A kernel that the cache knows, where kernels were found before; nothing says yet that it is the
 * one that runs.
 */
function guessKernel(
  memory: PhysicalMemory,
  options: SearchOptions & { cache: KernelCache },
): FoundKernel | undefined {
  for (const place of options.cache.places()) {
    try {
      const candidate = fromPlace(memory, place);
      const cached = candidate && recognise(candidate, options.cache, options.entries);
      if (cached !== undefined)
        return assemble(candidate!, tablesFromCache(candidate!, cached), cached, options);
    } catch (error) {
      // Whatever it was, the search that follows tells.
      if (!(error instanceof VmiError)) throw error;
    }
  }
  return undefined;
}

/** The guess, named as registers would have led to it; `undefined` when they lead elsewhere. */
function confirmed(
  guess: FoundKernel,
  registers: readonly VcpuRegisters[],
): FoundKernel | undefined {
  const label = vcpuThatMaps(guess.memory.physical, registers, guess.memory);
  return label === undefined ? undefined : { ...guess, candidate: { ...guess.candidate, label } };
}

/** The cached kernel whose build-id the image shows. */
function recognise(
  { space, image }: ImageCandidate,
  cache: KernelCache,
  entries: readonly CacheEntry[],
): CachedKernel | undefined {
  for (const entry of entries.slice(0, MAX_CACHE_LOOKS)) {
    const expected = Buffer.from(entry.buildId, 'hex');
    if (BigInt(entry.buildIdAt + expected.length) > image.length) continue;
    const bytes = Buffer.alloc(expected.length);
    if (
      space.readInto(image.virtual + BigInt(entry.buildIdAt), bytes) < bytes.length ||
      !bytes.equals(expected)
    )
      continue;
    const cached = cache.load(entry, image.virtual);
    if (cached !== undefined) return cached;
  }
  return undefined;
}

/** Puts a kernel together, and verifies it. */
function assemble(
  candidate: ImageCandidate,
  guest: GuestTables,
  cached: CachedKernel | undefined,
  options: SearchOptions,
): FoundKernel {
  const { profile } = options;
  const { space, image } = candidate;
  const symbols =
    profile?.symbols === undefined ? guest.symbols : movedProfile(profile, guest, candidate);
  const types =
    profile?.types === undefined ? guest.types : new LayeredTypes(profile.types, guest.types);
  const { banner, release } = readBanner(space, symbols, candidate);
  if (profile !== undefined) checkProfile(profile, guest, symbols, banner, release);
  try {
    const { image: found, memory } = mapKernel(candidate, symbols);
    guest.readThrough(memory, symbols);
    const lacking = unlessLacking(options, candidate, () => {
      verifyTasks(memory, symbols, types, found);
      const cpus = new KernelCpus({ memory, symbols, types });
      const vouched = profile?.types === undefined && guest.btf() !== undefined;
      proveLayout({ memory, symbols, types, cpus }, !vouched);
    });
    const notes = [guest.symbols, symbols]
      .map((table) => trySymbols(table, '__start_notes', '__stop_notes'))
      .find((pair) => pair !== undefined);
    const buildId =
      cached === undefined
        ? notes && findBuildId(memory, notes[0], notes[1])
        : { hex: cached.buildId, address: image.virtual + BigInt(cached.buildIdAt) };
    const pti = readPti(memory, symbols, types, found.root);
    return {
      candidate,
      image: found,
      memory,
      symbols,
      types,
      guest,
      release,
      banner,
      buildId,
      pti,
      lacking,
      cached,
      cache: options.cache,
    };
  } catch (error) {
    if (profile === undefined || !(error instanceof VmiError) || error.code === 'VMI_CLOSED')
      throw error;
    throw new ProfileError(profile, error.message, release);
  }
}

/**
 * What a kernel lacks for its tasks to be read, where registers or VMCOREINFO lead to it and its
 * page table, banner and symbols are right: then its memory can be read all the same.
 * @throws {VmiError} its tasks are there and wrong, or a profile does not do what it was given for
 */
function unlessLacking(
  { profile }: SearchOptions,
  { source }: ImageCandidate,
  verify: () => void,
): VmiError | undefined {
  try {
    verify();
    return undefined;
  } catch (error) {
    const lacks = error instanceof VmiError && LACKING.has(error.code);
    if (!lacks || profile !== undefined || source === 'contents') throw error;
    return error;
  }
}

/** Symbols that may not be there at all: a kernel without kallsyms. */
function trySymbols(
  symbols: SymbolTable,
  first: string,
  second: string,
): [bigint, bigint] | undefined {
  try {
    const a = symbols.find(first);
    const b = symbols.find(second);
    return a === undefined || b === undefined ? undefined : [a, b];
  } catch {
    return undefined;
  }
}
