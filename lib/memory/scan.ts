import type { Memory } from '../../types/addon.js';
import { MAX_ADDRESS } from '../address.js';
import { fromNative, VmiError } from '../errors.js';
import {
  checkList,
  checkOptions,
  checkSignal,
  checkWhole,
  describe,
  type OptionNames,
} from '../options.js';
import type { AbortOptions } from './machine.js';

/** Where a scan looks, and how much it finds. */
export interface ScanOptions extends AbortOptions {
  /** Only addresses `k * stride + offsets[i]` are looked at; default 1, everywhere. */
  readonly stride?: number;
  /** Of each stride, each from 0 to less than `stride`; default 0 alone. */
  readonly offsets?: readonly number[];
  /** Physical range, end exclusive; whole RAM when left out. */
  readonly start?: bigint;
  readonly end?: bigint;
  /** Stop after so many hits, 1 to 65,536; default 1,024. */
  readonly max?: number;
  /**
   * Threads that look, 1 to 16; the hits are the same whatever the number. Default: one for each
   * 256 MiB to look at, at most 4 and at most the host's CPUs. libvmi answers one read at a time:
   * there it is always one.
   */
  readonly threads?: number;
}

const SCAN_NAMES: OptionNames<ScanOptions> = {
  signal: true,
  stride: true,
  offsets: true,
  start: true,
  end: true,
  max: true,
  threads: true,
};

/**
 * Finds a byte pattern in a memory.
 * @returns ascending addresses
 * @throws {RangeError} an option is out of its range
 * @throws {VmiError} `VMI_ABORTED` when the signal fires
 */
export async function scan(
  native: Memory,
  pattern: Uint8Array,
  options: ScanOptions,
): Promise<bigint[]> {
  checkScan(pattern, options);
  const { signal } = options;
  if (signal?.aborted) throw aborted('the scan', signal);
  const cancel = new Uint8Array(1);
  const onAbort = () => {
    cancel[0] = 1;
  };
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    const hits = await native.scan({
      pattern,
      stride: options.stride ?? 1,
      offsets: [...(options.offsets ?? [0])],
      ...(options.start === undefined ? {} : { start: options.start }),
      ...(options.end === undefined ? {} : { end: options.end }),
      max: options.max ?? 1024,
      ...(options.threads === undefined ? {} : { threads: options.threads }),
      cancel,
    });
    return Array.from(hits);
  } catch (error) {
    throw signal?.aborted ? aborted('the scan', signal) : fromNative(error);
  } finally {
    signal?.removeEventListener('abort', onAbort);
  }
}

/** @throws {TypeError} @throws {RangeError} */
function checkScan(pattern: unknown, options: ScanOptions): void {
  if (!(pattern instanceof Uint8Array))
    throw new TypeError(
      `Expected pattern as a Buffer or Uint8Array but received ${describe(pattern)}`,
    );
  checkOptions(options, SCAN_NAMES);
  checkSignal(options.signal);
  const { stride = 1, max = 1024, threads = 1, start = 0n, end = 0n } = options;
  checkWhole(stride, 'stride', 1, 0x7fff_ffff);
  checkWhole(max, 'max', 1, 65_536);
  checkWhole(threads, 'threads', 1, 16);
  checkList(options.offsets, 'offsets', (offset, name) => checkWhole(offset, name, 0, stride - 1));
  for (const [name, value] of Object.entries({ start, end })) {
    if (typeof value !== 'bigint')
      throw new TypeError(`Expected ${name} as a bigint but received ${describe(value)}`);
    // The end is exclusive, so that it may be one more than the last address.
    if (value < 0n || value > MAX_ADDRESS + 1n)
      throw new RangeError(`Expected ${name} between 0 and 2^64 but received ${value}n`);
  }
}

function aborted(what: string, signal: AbortSignal): VmiError {
  return new VmiError('VMI_ABORTED', `${what} was aborted`, { cause: signal.reason });
}
