import { describe } from './options.js';

/** Codes of every {@link VmiError}. Messages may change between releases, codes may not. */
export type VmiErrorCode =
  | 'VMI_ADDON_MISSING'
  | 'VMI_LIBRARY_MISSING'
  | 'VMI_ATTACH'
  | 'VMI_CLOSED'
  | 'VMI_BUSY'
  | 'VMI_FAULT'
  | 'VMI_SYMBOL'
  | 'VMI_TYPE'
  | 'VMI_NO_TASK'
  | 'VMI_CORRUPT'
  | 'VMI_UNSUPPORTED'
  | 'VMI_ABORTED'
  | 'VMI_CRASHED'
  | 'VMI_CHANGED'
  | 'VMI_EVENTS_TAKEN'
  | 'VMI_READ_ONLY';

/**
 * Any failure that is not a misuse of the API (those are `TypeError` and `RangeError`).
 * The message says what was tried, at which address, and what to do.
 */
export class VmiError extends Error {
  override readonly name: string = 'VmiError';
  /** Which failure it is. */
  readonly code: VmiErrorCode;

  constructor(code: VmiErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** Where a read or a write failed, and how far it came. */
export interface Fault {
  /** The first address that could not be read, or written. */
  readonly address: bigint;
  readonly space: 'physical' | 'virtual';
  /** Root of the page table that was walked; `undefined` for physical addresses. */
  readonly cr3: bigint | undefined;
  /** Bytes that were asked for. */
  readonly requested: number;
  /** Bytes that were read or written before it. */
  readonly transferred: number;
  /**
   * Paging level whose entry was not present, 5 (PML5) to 1 (PTE); 0: the address is not in RAM.
   */
  readonly level: number;
  /** What was read, where a value of a type was: `init_task.mm.pgd`. */
  readonly path?: string | undefined;
  /** Whether it was a write that failed; default false. */
  readonly write?: boolean | undefined;
  /**
   * With level 0: the address is in RAM, but the dump that is read does not have its page. Default
   * false.
   */
  readonly absent?: boolean | undefined;
}

/** Names of the paging levels by number (SDM vol. 3A, 4.5, table 4-2). */
export const LEVEL_NAMES = ['ram', 'pt', 'pd', 'pdpt', 'pml4', 'pml5'] as const;

/**
 * Guest memory that cannot be read or written: not present in the page table, not in RAM, or not in
 * the dump. Code `VMI_FAULT`.
 */
export class FaultError extends VmiError implements Fault {
  override readonly name = 'FaultError';
  /** The first address that could not be read, or written. */
  readonly address: bigint;
  /** Which kind of address it is. */
  readonly space: 'physical' | 'virtual';
  /** Root of the page table that was walked; `undefined` for physical addresses. */
  readonly cr3: bigint | undefined;
  /** Bytes that were asked for. */
  readonly requested: number;
  /** Bytes that were read or written before it. */
  readonly transferred: number;
  /**
   * Paging level whose entry was not present, 5 (PML5) to 1 (PTE); 0: the address is not in RAM.
   */
  readonly level: number;
  /** What was read, where a value of a type was: `init_task.mm.pgd`. */
  readonly path: string | undefined;
  /** Whether it was a write that failed. */
  readonly write: boolean;
  /** Whether the address is in RAM, but the dump that is read lacks its page. */
  readonly absent: boolean;

  constructor(fault: Fault, options?: ErrorOptions) {
    super('VMI_FAULT', describeFault(fault), options);
    this.address = fault.address;
    this.space = fault.space;
    this.cr3 = fault.cr3;
    this.requested = fault.requested;
    this.transferred = fault.transferred;
    this.level = fault.level;
    this.path = fault.path;
    this.write = fault.write ?? false;
    this.absent = fault.absent ?? false;
  }
}

/**
 * Guest data that breaks an invariant of the kernel: a cycle, a wild pointer. Code `VMI_CORRUPT`.
 */
export class CorruptError extends VmiError {
  override readonly name = 'CorruptError';
  /** Virtual address of the structure that breaks the invariant. */
  readonly address: bigint;
  /** Rows that were read before it. */
  readonly found: number;

  constructor(message: string, address: bigint, found = 0, options?: ErrorOptions) {
    super('VMI_CORRUPT', message, options);
    this.address = address;
    this.found = found;
  }
}

/**
 * The guest is no longer what was attached: it was reset, or its RAM was changed. Code
 * `VMI_CHANGED`. Every question ends in it from then on; `guest.reattach()` looks at the guest
 * anew.
 */
export class ChangedError extends VmiError {
  override readonly name = 'ChangedError';

  /** @param what what has changed, as a sentence about the guest */
  constructor(what: string, options?: ErrorOptions) {
    super(
      'VMI_CHANGED',
      `the guest has changed since it was attached: ${what}. Attach again, or call guest.reattach()`,
      options,
    );
  }
}

/** The process that libvmi runs in (`isolate`) ended in the middle of a call. Code `VMI_CRASHED`.
 */
export class CrashError extends VmiError {
  override readonly name = 'CrashError';
  /** Signal that ended it: `SIGSEGV`; `undefined` when it exited by itself. */
  readonly signal: string | undefined;
  /** Code that it exited with; `undefined` when a signal ended it. */
  readonly exitCode: number | undefined;
  /** What it printed, at most 4,096 bytes. */
  readonly stderr: string;

  constructor(
    message: string,
    end: {
      readonly signal?: string | undefined;
      readonly exitCode?: number | undefined;
      readonly stderr?: string | undefined;
    },
    options?: ErrorOptions,
  ) {
    super('VMI_CRASHED', message, options);
    this.signal = end.signal;
    this.exitCode = end.exitCode;
    this.stderr = end.stderr ?? '';
  }
}

/**
 * Formats an address the way every message, table and JSON line does.
 * @throws {TypeError} neither a bigint nor an integer
 */
export function hex(value: bigint | number): string {
  const isNumber = typeof value === 'bigint' || Number.isInteger(value);
  if (!isNumber)
    throw new TypeError(`Expected value as a bigint or an integer but received ${describe(value)}`);
  return value < 0 ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`;
}

function describeFault(fault: Fault): string {
  const where = fault.cr3 === undefined ? fault.space : `${fault.space}, cr3 ${hex(fault.cr3)}`;
  const why =
    fault.absent === true
      ? 'this page is not in the dump (excluded)'
      : fault.level === 0
        ? fault.space === 'physical'
          ? 'the address is not in guest RAM'
          : 'the page table points outside guest RAM'
        : `page not present at ${LEVEL_NAMES[fault.level] ?? `level ${fault.level}`}`;
  const [verb, done] = fault.write === true ? ['write', 'written'] : ['read', 'read'];
  const partly =
    fault.transferred > 0 ? ` (${fault.transferred} bytes were ${done} before it)` : '';
  const what = fault.path === undefined ? '' : ` of ${fault.path}`;
  return `cannot ${verb} ${fault.requested} bytes${what} at ${hex(fault.address)} (${where}): ${why}${partly}`;
}

interface NativeFields {
  readonly code?: string;
  readonly found?: number;
  readonly signal?: string;
  readonly exitCode?: number;
  readonly stderr?: string;
}

/**
 * Gives an error thrown by the addon its class. Anything else comes back as it is.
 * Use as `catch (error) { throw fromNative(error); }`.
 */
export function fromNative(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof VmiError) return error;
  const data = error as Error & Partial<Fault> & NativeFields;
  if (typeof data.code !== 'string' || !data.code.startsWith('VMI_')) return error;
  if (data.code === 'VMI_FAULT' && typeof data.address === 'bigint' && data.space !== undefined) {
    return new FaultError({
      address: data.address,
      space: data.space,
      cr3: data.cr3,
      requested: data.requested ?? 0,
      transferred: data.transferred ?? 0,
      level: data.level ?? 0,
      absent: data.absent,
    });
  }
  if (data.code === 'VMI_CORRUPT') {
    return new CorruptError(error.message, data.address ?? 0n, data.found ?? 0, { cause: error });
  }
  if (data.code === 'VMI_CRASHED') return new CrashError(error.message, data, { cause: error });
  return new VmiError(data.code as VmiErrorCode, error.message, { cause: error });
}
