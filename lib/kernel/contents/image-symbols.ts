import { PHYSICAL_MASK } from '../../address.js';
import type { ImageCandidate } from '../candidate.js';
import { scanImage } from '../image.js';
import type { SymbolTable } from '../symbols/table.js';
import { TEXT_ENTRY } from '../x86-64.js';

const BANNER = Buffer.from('Linux version ', 'latin1');
/**
 * The text of `linux_banner`: it ends with a newline, unlike what the log holds of it. A kernel has
 * a second one that is not used, without the build's number and time. init/version.c.
 */
const WHOLE_BANNER = /^Linux version \S{1,64} [^\n\0]*#\S[^\n\0]*\n\0/;
const MAX_BANNER = 512;
const MAX_HITS = 64;
/** Entries of a top-level table that map the kernel's half. */
const HALF = 2048;
/** What of an entry is the same in all page tables: where it leads to, and that it does. */
const SAME = PHYSICAL_MASK | 1n;

/**
 * Finds data by its contents where symbols are those of functions only (without
 * CONFIG_KALLSYMS_ALL): the banner, and the kernel's own page table.
 * @returns addresses by symbol, of those that the table lacks and that are found
 */
export async function findImageSymbols(
  candidate: ImageCandidate,
  symbols: SymbolTable,
  signal: AbortSignal | undefined,
): Promise<Map<string, bigint>> {
  const found = new Map<string, bigint>();
  if (symbols.find('linux_banner') === undefined) {
    const banner = await findBanner(candidate, signal);
    if (banner !== undefined) found.set('linux_banner', banner);
  }
  const names = ['init_top_pgt', 'swapper_pg_dir'];
  if (names.every((name) => symbols.find(name) === undefined)) {
    const table = await findPageTable(candidate, signal);
    if (table !== undefined) found.set('init_top_pgt', table);
  }
  return found;
}

async function findBanner(
  { space, image }: ImageCandidate,
  signal: AbortSignal | undefined,
): Promise<bigint | undefined> {
  const bytes = Buffer.alloc(MAX_BANNER);
  for await (const hit of scanImage(space, image, BANNER, MAX_HITS, signal)) {
    const read = space.readInto(hit, bytes);
    if (WHOLE_BANNER.test(bytes.toString('latin1', 0, read))) return hit;
  }
  return undefined;
}

/**
 * A page of the image with the same entries for the kernel's half as any page table of this kernel
 * has, and none for the user's. Pages of the image that were freed may serve processes: those have.
 */
async function findPageTable(
  { space, image }: ImageCandidate,
  signal: AbortSignal | undefined,
): Promise<bigint | undefined> {
  const { physical: memory, root } = space;
  if (!image.linear) return undefined;
  const entry = Buffer.alloc(8);
  entry.writeBigUInt64LE(memory.readU64(root + TEXT_ENTRY));
  const half = memory.read(root + BigInt(HALF), HALF);
  const hits = await memory.scan(entry, {
    start: image.physical,
    end: image.physical + image.length,
    stride: 4096,
    offsets: [Number(TEXT_ENTRY)],
    max: MAX_HITS,
    signal,
  });
  const tables = hits
    .map((hit) => hit - TEXT_ENTRY)
    .filter((table) => {
      const page = memory.read(table, 4096);
      return page.subarray(0, HALF).every((byte) => byte === 0) && hasSame(page, half);
    });
  const [table, another] = tables;
  return table === undefined || another !== undefined
    ? undefined
    : table - image.physical + image.virtual;
}

function hasSame(page: Buffer, half: Buffer): boolean {
  for (let at = 0; at < HALF; at += 8) {
    const [one, other] = [page.readBigUInt64LE(HALF + at), half.readBigUInt64LE(at)];
    if ((one & SAME) !== (other & SAME)) return false;
  }
  return true;
}
