import { checkOptions, checkSignal, checkWhole, type OptionNames } from '../options.js';

/** A vCPU loaded CR3. */
export interface RawCr3Write {
  readonly vcpu: number;
  /**
   * The value as it was written, with PCID. Xen strips the no-flush bit (63), and does not report a
   * write of the value that is loaded already.
   */
  readonly value: bigint;
  /** What the register held before. */
  readonly previous: bigint;
}

/** Which writes to CR3 are waited for, and how many may wait. */
export interface Cr3WriteOptions {
  /**
   * Writes that are kept for a slow reader, 1 to 1,048,576; default 4,096. Of more, the oldest are
   * dropped.
   */
  readonly queue?: number | undefined;
  /** Ends the stream with `VMI_ABORTED`. */
  readonly signal?: AbortSignal | undefined;
}

const NAMES: OptionNames<Cr3WriteOptions> = { queue: true, signal: true };
const MAX_QUEUE = 1 << 20;

/** @throws {TypeError} @throws {RangeError} an option */
export function checkCr3Writes(options: Cr3WriteOptions): void {
  checkOptions(options, NAMES);
  checkSignal(options.signal);
  if (options.queue !== undefined) checkWhole(options.queue, 'queue', 1, MAX_QUEUE);
}

/**
 * Writes to CR3 as a source reports them. Listening begins with the first `next()`, and ends with
 * `return()`, which leaving a `for await` calls, or with `close()`.
 */
export interface RawCr3Writes
  extends AsyncIterableIterator<RawCr3Write, undefined>,
    AsyncDisposable {
  /** Writes that were lost so far because nobody took them in time; as of now. */
  readonly dropped: number;
  /** When the last write that was given was taken at the latest, as `performance.now()`. */
  readonly taken: number;
  /** Writes that were lost by then: before the last one of those that came with it. */
  readonly droppedByThen: number;
  /** The next write; `done` once the stream is closed. */
  next(): Promise<IteratorResult<RawCr3Write, undefined>>;
  /** Ends listening and lets go of the guest. Idempotent. */
  return(): Promise<IteratorResult<RawCr3Write, undefined>>;
  /** The same as {@link return}. */
  close(): Promise<void>;
}
