import { addon } from '../../addon.js';
import type { AddressLike } from '../../address.js';
import { fromNative, VmiError } from '../../errors.js';
import { escapeText } from '../../escape.js';
import {
  checkFlag,
  checkFunction,
  checkObject,
  checkOneOf,
  checkOptions,
  checkText,
  describe,
  type OptionNames,
} from '../../options.js';
import {
  type AbortOptions,
  type Addressing,
  type Machine,
  PhysicalMemory,
  type PhysicalRange,
  type VcpuRegisters,
} from '../physical-memory.js';
import { SCRIPTED } from '../scripted/engine.js';
import { type ReadMemory, ScriptedMemory } from '../scripted/scripted-memory.js';
import { checkRanges } from './ranges.js';
import { checkRegisters } from './registers.js';
import { type MemorySegment, type PlacedSegments, placeSegments } from './segments.js';

/** What a memory is besides its bytes. */
export interface MemoryControls {
  /**
   * One line for people: what it is. Default: what it is made of. What a terminal may act on is
   * escaped.
   */
  readonly description?: string | undefined;
  /**
   * Whether the guest may change while it is read. Default: `true` where a function or a process
   * gives the bytes, else `false`.
   */
  readonly live?: boolean | undefined;
  /** What its addresses count; default `guest-physical`. */
  readonly addressing?: Addressing | undefined;
  /** Control registers of every vCPU: with them the kernel is found at once, and surely. */
  readonly registers?: ((options?: AbortOptions) => Promise<VcpuRegisters[]>) | undefined;
  /** Stops the guest; goes with `resume`. */
  readonly pause?: (() => Promise<void>) | undefined;
  /** Lets it run again; also called by `close()` where it is stopped. */
  readonly resume?: (() => Promise<void>) | undefined;
  /** Called once, when the memory is closed. */
  readonly close?: (() => Promise<void> | void) | undefined;
}

/** RAM as pieces of files, buffers or a process. */
export interface SegmentedMemory extends MemoryControls {
  /** In any order; they must not overlap. */
  readonly segments: readonly MemorySegment[];
}

/** RAM whose bytes a function gives. */
export interface ReadableMemory extends MemoryControls {
  /** Where RAM is: whole pages, in any order; they must not overlap. */
  readonly ranges: readonly { readonly start: AddressLike; readonly length: AddressLike }[];
  readonly read: ReadMemory;
}

/** What a memory is made of: see {@link openMemory}. */
export type MemoryOptions = SegmentedMemory | ReadableMemory;

const CONTROLS: OptionNames<MemoryControls> = {
  description: true,
  live: true,
  addressing: true,
  registers: true,
  pause: true,
  resume: true,
  close: true,
};

/**
 * Makes a physical memory of what you have: pieces of files, buffers, a process, or a function
 * that reads. `attach({ memory })` then finds the kernel in it, as in any other.
 *
 * Segments are read by native code: a file is mapped, a process read in batches, a buffer copied
 * once, to a file without a name. A function is asked for whole pages, which are kept until the
 * next operation begins; loops over them are TypeScript, so a listing takes some ten times as long.
 *
 * @throws {TypeError} an option that there is not, or of another type
 * @throws {RangeError} addresses and lengths that are no whole pages, or overlap
 * @throws {VmiError} `VMI_ATTACH`: a file or a process that cannot be opened; `VMI_ADDON_MISSING`
 * @example
 * const memory = openMemory({
 *   ranges: [{ start: 0, length: 512 << 20 }],
 *   read: (address, into) => readSync(fd, into, 0, into.length, Number(address)),
 * });
 * await using guest = await attach({ memory });
 */
export function openMemory(options: MemoryOptions): PhysicalMemory {
  checkObject(options);
  if ('read' in options && options.read !== undefined) {
    checkOptions(options, { ...CONTROLS, ranges: true, read: true });
    checkControls(options);
    return openReadable(options);
  }
  const { read: _, ...rest } = options as SegmentedMemory & { readonly read?: undefined };
  checkOptions<SegmentedMemory>(rest, { ...CONTROLS, segments: true });
  checkControls(rest);
  return openSegments(rest);
}

/** @throws {TypeError} */
function checkControls(controls: MemoryControls): void {
  checkText(controls.description, 'description');
  checkFlag(controls.live, 'live');
  checkOneOf(controls.addressing, 'addressing', ['guest-physical', 'machine']);
  for (const name of ['registers', 'pause', 'resume', 'close'] as const)
    checkFunction(controls[name], name);
}

function openReadable(options: ReadableMemory): PhysicalMemory {
  if (typeof options.read !== 'function')
    throw new TypeError(`Expected read as a function but received ${describe(options.read)}`);
  const ranges = checkRanges(options.ranges);
  return new PhysicalMemory({
    native: new ScriptedMemory(ranges, options.read),
    engine: SCRIPTED,
    source: 'custom',
    description: escapeText(options.description ?? `${sizeOf(ranges)} read by a function`),
    live: options.live ?? true,
    addressing: options.addressing ?? 'guest-physical',
    machine: new CustomMachine(options),
  });
}

function openSegments(options: SegmentedMemory): PhysicalMemory {
  const machine = new CustomMachine(options);
  const placed = placeSegments(options.segments);
  try {
    const native = addon().openMemory({
      segments: placed.segments,
      ...(placed.pid === undefined ? {} : { pid: placed.pid }),
    });
    return new PhysicalMemory({
      native,
      source: 'custom',
      description: escapeText(options.description ?? placed.description),
      live: options.live ?? placed.pid !== undefined,
      addressing: options.addressing ?? 'guest-physical',
      machine,
    });
  } catch (error) {
    throw asOpening(error, placed);
  } finally {
    placed.release();
  }
}

/** The error of opening segments, with the paths of files in place of their descriptors. */
function asOpening(error: unknown, { files, description }: PlacedSegments): unknown {
  const known = fromNative(error);
  const { code, message } = known as NodeJS.ErrnoException;
  if (code === undefined || code.startsWith('ERR_')) return known;
  const text = message.replace(
    /file descriptor (\d+)/,
    (whole, fd: string) => files.get(Number(fd)) ?? whole,
  );
  if (known instanceof VmiError) return new VmiError(known.code, text, { cause: error });
  return new VmiError('VMI_ATTACH', `cannot open ${description}: ${text}`, { cause: error });
}

function sizeOf(ranges: readonly PhysicalRange[]): string {
  const bytes = ranges.reduce((sum, { length }) => sum + length, 0n);
  return bytes >= 1n << 20n ? `${bytes >> 20n} MiB` : `${bytes >> 10n} KiB`;
}

/** The controls that were given, checked; those that were not are absent. */
class CustomMachine implements Machine {
  readonly registers?: (options?: AbortOptions) => Promise<VcpuRegisters[]>;
  readonly pause?: () => Promise<void>;
  readonly resume?: () => Promise<void>;
  readonly #close: (() => Promise<void> | void) | undefined;
  #isPaused = false;

  constructor({ registers, pause, resume, close }: MemoryControls) {
    if ((pause === undefined) !== (resume === undefined))
      throw new TypeError('Expected pause and resume, both or neither, but received one of them');
    this.#close = close;
    if (registers !== undefined)
      this.registers = async (options) => checkRegisters(await registers(options));
    if (pause === undefined || resume === undefined) return;
    this.pause = async () => {
      await pause();
      this.#isPaused = true;
    };
    this.resume = async () => {
      if (!this.#isPaused) return;
      await resume();
      this.#isPaused = false;
    };
  }

  async close(): Promise<void> {
    await this.resume?.();
    await this.#close?.();
  }
}
