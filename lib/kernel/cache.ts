import { readdirSync, readFileSync, statSync } from 'node:fs';
import { mkdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { AddressForm, KallsymsTables } from './symbols/kallsyms-tables.js';
import { KERNEL_HALF } from './x86-64.js';

/** Form of the files; another number is another form, and is ignored. */
const VERSION = 1;
/** Kernels kept; the ones unused longest go first. */
const MAX_FILES = 64;
const MAX_HINTS = 32;
/** Files that are read before it is known which one it takes. */
const PREPARED = 4;
const MAX_FILE_BYTES = 1 << 20;
const HINTS = 'vmcoreinfo.json';
const MAX_PLACES = 8;
const PLACES = 'places.json';
/**
 * BUILD-ID, then where in the image its bytes are: the name says how to recognise the kernel
 * without opening a file.
 */
const FILE_NAME = /^([0-9a-f]{16,64})-([0-9a-f]{1,8})\.json$/;

/**
 * What makes the next attach to the same kernel quick. Addresses are relative to the image, so
 * KASLR does not matter.
 */
export interface CachedKernel {
  readonly buildId: string;
  /** Bytes from the image's start to the build-id. */
  readonly buildIdAt: number;
  readonly release: string;
  /** Tables of kallsyms; `undefined` where the kernel has none that was found. */
  readonly tables: KallsymsTables | undefined;
  /** Where BTF is; `undefined` where the kernel has none. */
  readonly btf: { readonly at: bigint; readonly length: number } | undefined;
  readonly symbols: ReadonlyMap<string, bigint | null>;
  readonly offsets: ReadonlyMap<string, number | null>;
}

/** A kernel the cache may know, by the file's name alone. */
export interface CacheEntry {
  readonly buildId: string;
  readonly buildIdAt: number;
}

/** A kernel's own page table in some guest's RAM. */
export interface KernelPlace {
  readonly root: bigint;
  readonly levels: 4 | 5;
}

/** The cache's folder: `NODE_LIBVMI_CACHE`, else below the user's cache folder. */
export function cacheFolder(env: NodeJS.ProcessEnv = process.env): string {
  if (env.NODE_LIBVMI_CACHE) return env.NODE_LIBVMI_CACHE;
  const base = env.XDG_CACHE_HOME || join(homedir(), '.cache');
  return join(base, 'node-libvmi', 'kernels');
}

/**
 * Kernels seen before, a file for each build-id. Nothing in it is believed: what it says is
 * verified against the guest, a file that cannot be read or parsed counts as absent, and failing to
 * write one is no error. The files are a page long, so reading is synchronous; nobody waits for
 * writing.
 */
export class KernelCache {
  readonly folder: string;
  /** What {@link prepare} read. */
  #entries: CacheEntry[] | undefined;
  readonly #prepared = new Map<string, unknown>();
  #places: KernelPlace[] | undefined;

  constructor(folder = cacheFolder()) {
    this.folder = folder;
  }

  /** Reads already, while there is nothing else to do, what an attach will most likely ask for. */
  prepare(): void {
    this.#entries = this.#listed();
    this.#places = this.places();
    for (const entry of this.#entries.slice(0, PREPARED)) {
      const path = this.#path(entry);
      this.#prepared.set(
        path,
        attempt(() => this.read(path)),
      );
    }
  }

  /** Kernels there are files of, or were when this was prepared. */
  entries(): CacheEntry[] {
    return this.#entries ?? this.#listed();
  }

  #listed(): CacheEntry[] {
    const names = attempt(() => this.names()) ?? [];
    const entries: CacheEntry[] = [];
    for (const name of names) {
      const match = FILE_NAME.exec(name);
      if (match !== null)
        entries.push({ buildId: match[1]!, buildIdAt: Number.parseInt(match[2]!, 16) });
    }
    return entries;
  }

  /** What is known of a kernel; `undefined` when the file is absent or broken. */
  load(entry: CacheEntry, imageVirtual: bigint): CachedKernel | undefined {
    return attempt(() => {
      const path = this.#path(entry);
      return decode(this.#prepared.get(path) ?? this.read(path), entry, imageVirtual);
    });
  }

  /** Names of the files. */
  protected names(): string[] {
    return readdirSync(this.folder);
  }

  /** @throws {Error} no such file, or none that can be read */
  protected read(path: string): unknown {
    if (statSync(path).size > MAX_FILE_BYTES) throw new RangeError('too large');
    return JSON.parse(readFileSync(path, 'utf8'));
  }

  /** Writes a kernel's file, whole or not at all. Returns whether it could. */
  async save(kernel: CachedKernel, imageVirtual: bigint): Promise<boolean> {
    const saved = await this.write(this.#path(kernel), encode(kernel, imageVirtual));
    if (saved) await this.#prune();
    return saved;
  }

  /** Physical addresses at which guests kept VMCOREINFO, last one first. */
  hints(): bigint[] {
    return (
      attempt(() => {
        const data: unknown = JSON.parse(readFileSync(join(this.folder, HINTS), 'utf8'));
        const { version, addresses } = data as { version?: unknown; addresses?: unknown };
        if (version !== VERSION || !Array.isArray(addresses)) return [];
        return addresses
          .slice(0, MAX_HINTS)
          .filter(isHex)
          .map((text) => BigInt(text));
      }) ?? []
    );
  }

  /** Puts an address first among the hints. */
  async hint(address: bigint): Promise<boolean> {
    const before = this.hints();
    if (before[0] === address) return true;
    const addresses = [address, ...before.filter((other) => other !== address)].slice(0, MAX_HINTS);
    return this.write(
      join(this.folder, HINTS),
      JSON.stringify({ version: VERSION, addresses: addresses.map(hexText) }),
    );
  }

  /** Where kernels were found last, the latest first. */
  places(): KernelPlace[] {
    return (
      this.#places ??
      attempt(() => {
        const { version, places } = this.read(join(this.folder, PLACES)) as Raw;
        if (version !== VERSION || !Array.isArray(places)) return [];
        return places.slice(0, MAX_PLACES).flatMap(({ root, levels }: Raw): KernelPlace[] => {
          return isHex(root) && (levels === 4 || levels === 5)
            ? [{ root: BigInt(root), levels }]
            : [];
        });
      }) ??
      []
    );
  }

  /** Puts a place first, unless it is known. */
  async place(found: KernelPlace): Promise<boolean> {
    const before = this.places();
    if (before.some(({ root, levels }) => root === found.root && levels === found.levels))
      return true;
    this.#places = [found, ...before].slice(0, MAX_PLACES);
    const places = this.#places.map(({ root, levels }) => ({ root: hexText(root), levels }));
    return this.write(join(this.folder, PLACES), JSON.stringify({ version: VERSION, places }));
  }

  #path({ buildId, buildIdAt }: CacheEntry): string {
    return join(this.folder, fileName({ buildId, buildIdAt }));
  }

  /** Writes a file, whole or not at all. Returns whether it could. */
  protected async write(path: string, text: string): Promise<boolean> {
    const temporary = `${path}.${process.pid}.${Math.random().toString(36).slice(2)}.tmp`;
    try {
      await mkdir(this.folder, { recursive: true, mode: 0o700 });
      await writeFile(temporary, text, { mode: 0o600 });
      await rename(temporary, path);
      return true;
    } catch {
      await rm(temporary, { force: true }).catch(() => {});
      return false;
    }
  }

  async #prune(): Promise<void> {
    const entries = this.#listed();
    if (entries.length <= MAX_FILES) return;
    const aged = await Promise.all(
      entries.map(async (entry) => {
        const path = this.#path(entry);
        return {
          path,
          age: await stat(path).then(
            (found) => found.mtimeMs,
            () => 0,
          ),
        };
      }),
    );
    aged.sort((a, b) => a.age - b.age);
    for (const { path } of aged.slice(0, aged.length - MAX_FILES))
      await rm(path, { force: true }).catch(() => {});
  }
}

/** The name of a kernel's file. */
export function fileName({ buildId, buildIdAt }: CacheEntry): string {
  return `${buildId}-${buildIdAt.toString(16)}.json`;
}

/** A cache that cannot be read counts as empty. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

function hexText(value: bigint): string {
  return `0x${value.toString(16)}`;
}

function isHex(text: unknown): text is string {
  return typeof text === 'string' && /^0x[0-9a-f]{1,16}$/.test(text);
}

/** Kernel addresses relative to the image, as `+0x…`; per-cpu offsets as they are. */
function relative(address: bigint, image: bigint): string {
  if (address < KERNEL_HALF) return hexText(address);
  return address >= image ? `+${hexText(address - image)}` : `-${hexText(image - address)}`;
}

function absolute(text: unknown, image: bigint): bigint {
  if (isHex(text)) return BigInt(text);
  if (typeof text === 'string' && isHex(text.slice(1))) {
    const distance = BigInt(text.slice(1));
    if (text[0] === '+') return BigInt.asUintN(64, image + distance);
    if (text[0] === '-') return BigInt.asUintN(64, image - distance);
  }
  throw new RangeError('not an address');
}

/** The text of a kernel's file. */
export function encode(kernel: CachedKernel, image: bigint): string {
  const { tables, btf } = kernel;
  const at = (address: bigint) => relative(address, image);
  return JSON.stringify({
    version: VERSION,
    buildId: kernel.buildId,
    release: kernel.release,
    ...(tables === undefined
      ? {}
      : {
          tables: {
            count: tables.count,
            form: tables.form,
            names: at(tables.names),
            tokenTable: at(tables.tokenTable),
            tokenIndex: at(tables.tokenIndex),
            offsets: at(tables.offsets),
            base: at(tables.base),
            ...(tables.seqs === undefined ? {} : { seqs: at(tables.seqs) }),
          },
        }),
    ...(btf === undefined ? {} : { btf: { at: at(btf.at), length: btf.length } }),
    symbols: Object.fromEntries(
      [...kernel.symbols].map(([name, value]) => [name, value === null ? null : at(value)]),
    ),
    offsets: Object.fromEntries(kernel.offsets),
  });
}

type Raw = Record<string, unknown>;
const FORMS: readonly AddressForm[] = ['percpu', 'base', 'place'];

/** The reverse of {@link encode}; throws on anything that is not as written. */
function decode(data: unknown, entry: CacheEntry, image: bigint): CachedKernel {
  const { version, buildId, release, tables, btf, symbols, offsets } = data as Raw;
  if (version !== VERSION || buildId !== entry.buildId || typeof release !== 'string')
    throw new RangeError('other form');
  const at = (text: unknown) => absolute(text, image);
  const known = new Map<string, bigint | null>();
  for (const [name, value] of Object.entries(symbols as Raw))
    known.set(name, value === null ? null : at(value));
  const answers = new Map<string, number | null>();
  for (const [question, value] of Object.entries(offsets as Raw)) {
    if (value !== null && !(Number.isInteger(value) && (value as number) >= 0))
      throw new RangeError('not an offset');
    answers.set(question, value as number | null);
  }
  return {
    ...entry,
    release,
    tables: tables === undefined ? undefined : decodeTables(tables as Raw, at),
    btf:
      btf === undefined
        ? undefined
        : { at: at((btf as Raw).at), length: count((btf as Raw).length) },
    symbols: known,
    offsets: answers,
  };
}

function decodeTables(raw: Raw, at: (text: unknown) => bigint): KallsymsTables {
  const form = FORMS.find((known) => known === raw.form);
  if (form === undefined) throw new RangeError('no form');
  return {
    count: count(raw.count),
    form,
    names: at(raw.names),
    tokenTable: at(raw.tokenTable),
    tokenIndex: at(raw.tokenIndex),
    offsets: at(raw.offsets),
    base: at(raw.base),
    seqs: raw.seqs === undefined ? undefined : at(raw.seqs),
  };
}

function count(value: unknown): number {
  if (!Number.isInteger(value) || (value as number) < 0 || (value as number) > 0x1000_0000)
    throw new RangeError('no count');
  return value as number;
}
