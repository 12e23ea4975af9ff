import { basename } from 'node:path';
import { type CachedKernel, encode, fileName, KernelCache } from './cache.js';

/** Most bytes of a file that is carried. */
const MAX_BYTES = 1 << 20;

/**
 * A cache in memory, which a recording carries: what was found out about a kernel by megabytes
 * of its tables need not be found out again. It keeps kernels alone, not where they were found: a
 * replay goes the way that was recorded.
 */
export class CarriedCache extends KernelCache {
  readonly #files: Map<string, string>;

  /** @param files texts by name, as {@link files} gives them */
  constructor(files: Readonly<Record<string, string>> = {}) {
    super('');
    this.#files = new Map(Object.entries(files));
  }

  /** Keeps what is known of a kernel, and what was known before. */
  keep(kernel: CachedKernel, imageVirtual: bigint): void {
    const before = this.load(kernel, imageVirtual);
    const merged =
      before === undefined
        ? kernel
        : {
            ...kernel,
            symbols: new Map([...before.symbols, ...kernel.symbols]),
            offsets: new Map([...before.offsets, ...kernel.offsets]),
          };
    this.#files.set(fileName(kernel), encode(merged, imageVirtual));
  }

  /** Texts by name. */
  get files(): Readonly<Record<string, string>> {
    return Object.fromEntries(this.#files);
  }

  protected override names(): string[] {
    return [...this.#files.keys()];
  }

  protected override read(path: string): unknown {
    const text = this.#files.get(basename(path));
    if (text === undefined || text.length > MAX_BYTES) throw new RangeError('no such file');
    return JSON.parse(text);
  }

  /** Only what is kept on purpose: hints and places are of a host. */
  protected override async write(): Promise<boolean> {
    return false;
  }
}
