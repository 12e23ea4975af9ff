import { VmiError } from '../errors.js';
import type { KernelCache } from '../kernel/cache.js';
import { CarriedCache } from '../kernel/carried-cache.js';
import { Kernel } from '../kernel/kernel.js';
import {
  checkCache,
  checkNumber,
  type KernelOptions,
  openCache,
} from '../kernel/kernel-options.js';
import { loadProfile } from '../kernel/profile/load-profile.js';
import { checkProfile, type Profile } from '../kernel/profile/profile.js';
import { openSource } from '../memory/open.js';
import { PhysicalMemory } from '../memory/physical-memory.js';
import type { Candidate, Source } from '../memory/source.js';
import { checkFlag, checkOptions, checkSignal, describe, type OptionNames } from '../options.js';
import { didYouMean } from '../suggest.js';
import { checkTarget, formatTarget, parseTarget, TARGET_FORMS, type Target } from '../target.js';
import { type Attached, Guest } from './guest.js';
import { proveLayout, ShortMapError } from './layout-proof.js';

/** How a guest is attached: see {@link attach}. */
export interface AttachOptions extends Pick<KernelOptions, 'cache'> {
  readonly signal?: AbortSignal | undefined;
  /**
   * Symbols and types to use in place of the guest's own: files (libvmi.conf, System.map,
   * Volatility 3 symbols; see `loadProfile`), or a profile that is loaded already. None is needed.
   */
  readonly profile?: string | readonly string[] | Profile | undefined;
  /**
   * Runs libvmi in a process of its own (`xen:`, `kvm:`, `libvmi:`; of no effect on other targets);
   * default false. A crash of libvmi is a `CrashError` then, a call that hangs `VMI_BUSY`, and the
   * next operation starts it anew.
   */
  readonly isolate?: boolean | undefined;
  /**
   * Which of several kernels in RAM, by its number in `guest.kernel.inRam`: a crash, a kexec and a
   * warm reset leave the old one there. The one that runs, or ran last, when left out.
   */
  readonly kernel?: number | undefined;
  /**
   * Opens guest memory for writing, too; default false: every mapping and every descriptor of it is
   * read-only then, and a write is refused.
   */
  readonly write?: boolean | undefined;
}

/** What can be attached to: what a target names, or a memory that is open already. */
export type AttachTarget = string | Target | { readonly memory: PhysicalMemory };

const NAMES: OptionNames<AttachOptions> = {
  cache: true,
  signal: true,
  profile: true,
  isolate: true,
  kernel: true,
  write: true,
};

/**
 * Attaches to a guest: opens its memory, finds its kernel with no profile, and verifies what was
 * found.
 *
 * @param target `qemu:PID`, `libvirt:NAME`, `qmp:SOCKET`, `image:PATH`, `xen:NAME`, `kvm:NAME`,
 *   `libvmi:PATH`, the same as an object, or `{ memory }` of {@link openMemory}, which is closed
 *   with the guest, and when attaching fails
 * @throws {VmiError} `VMI_ATTACH`: no such guest, no right to read it, or no Linux kernel found in
 *   it, as while it still boots
 * @throws {VmiError} `VMI_LIBRARY_MISSING`, `VMI_ADDON_MISSING`, `VMI_ABORTED`
 * @throws {VmiError} `VMI_UNSUPPORTED`: `write` of what cannot be written, as an image is
 * @throws {RangeError} the target has none of these forms; `kernel` is no number
 * @throws {TypeError} the target is of another type, or there is no such option
 * @example
 * await using guest = await attach('qemu:4242');
 * guest.pidToCr3(1); // 0x2c10000n
 */
export async function attach(target: AttachTarget, options: AttachOptions = {}): Promise<Guest> {
  const given = toTarget(target);
  checkAttachOptions(options);
  if (options.signal?.aborted === true) throw aborted(options.signal);
  const { profile, signal, cache, isolate, kernel: number, write } = options;
  if (write === true && given instanceof PhysicalMemory) checkGivenWritable(given);
  const loaded =
    typeof profile === 'string' || Array.isArray(profile)
      ? await loadProfile(profile)
      : (profile as Profile);
  const opened = openCache(cache);
  const name =
    given instanceof PhysicalMemory ? `memory:${given.description}` : formatTarget(given);
  const open = async (limit: AbortSignal | undefined) => {
    const found = { profile: loaded, cache, opened, number, signal: limit };
    const source =
      given instanceof PhysicalMemory
        ? sourceOf(given)
        : await openSource(given, {
            signal: limit,
            isolate,
            write,
            meanwhile: () => opened?.prepare(),
          });
    return attachSource(name, source, found);
  };
  const { memory, kernel } = await open(signal);
  const reopen = async () =>
    given instanceof PhysicalMemory
      ? { memory, kernel: await Kernel.load(memory, { profile: loaded, cache, opened, number }) }
      : open(undefined);
  const guest = new Guest(name, memory, kernel, reopen);
  // What the tasks layer asked of the kernel's types need not be asked again at the next attach.
  guest.beforeClose(kernel.remember());
  return guest;
}

/**
 * @internal The same of a memory that is open, with a cache of its own.
 * @throws {VmiError} as {@link attach}
 */
export async function attachThrough(opened: KernelCache, memory: PhysicalMemory): Promise<Guest> {
  const name = `memory:${memory.description}`;
  const { kernel } = await attachSource(name, sourceOf(memory), { opened });
  return new Guest(name, memory, kernel);
}

/** @throws {TypeError} @throws {RangeError} */
function toTarget(target: AttachTarget): Target | PhysicalMemory {
  if (typeof target === 'string') return parseTarget(target);
  if (typeof target !== 'object' || target === null || Array.isArray(target))
    return checkTarget(target);
  if ('kind' in target) return checkTarget(target);
  if (!('memory' in target)) throw nothingToAttach(target);
  checkOptions(target, { memory: true }, 'target');
  if (target.memory instanceof PhysicalMemory) return target.memory;
  throw new TypeError(
    `Expected target.memory as a PhysicalMemory (openMemory makes one) but received ${describe(target.memory)}`,
  );
}

/** The error of an object that is no target, and has no memory either. */
function nothingToAttach(target: object): TypeError {
  const [key] = Object.keys(target);
  const received = key === undefined ? 'an empty object' : `an object with '${key}'`;
  const hint = key === undefined ? '' : didYouMean(key, ['kind', 'memory']);
  return new TypeError(
    `Expected target as a string (${TARGET_FORMS}), an object with kind, or one with memory (openMemory makes one) but received ${received}${hint}`,
  );
}

/** @throws {VmiError} `VMI_UNSUPPORTED` */
function checkGivenWritable(memory: PhysicalMemory): void {
  if (memory.capabilities.write) return;
  throw new VmiError(
    'VMI_UNSUPPORTED',
    `${memory.description} is a memory that cannot be written: openMemory() reads alone, and so does openSource() without { write: true }`,
  );
}

/** @throws {TypeError} */
function checkAttachOptions(options: AttachOptions): void {
  checkOptions(options, NAMES);
  checkSignal(options.signal);
  checkFlag(options.isolate, 'isolate');
  checkFlag(options.write, 'write');
  checkCache(options.cache);
  checkNumber(options.kernel, 'kernel');
  const { profile } = options;
  if (typeof profile === 'string' || profile === undefined) return;
  if (!Array.isArray(profile)) checkProfile(profile as Profile);
  else if (profile.length === 0 || [...profile].some((path) => typeof path !== 'string'))
    throw new TypeError(
      `Expected profile as a path, a list of paths or a profile but received ${profile.length === 0 ? 'an empty list' : 'a list with something else in it'}`,
    );
}

/** A memory that is open needs no choice of layout. */
function sourceOf(memory: PhysicalMemory): Source {
  const assumption = 'the memory that was given';
  return {
    candidates: [{ assumption, proven: true, open: () => memory }],
    close: () => memory.close(),
  };
}

/** What a kernel looks like through a wrong layout of RAM. */
const LAYOUT_ERRORS: ReadonlySet<string> = new Set([
  'VMI_ATTACH',
  'VMI_FAULT',
  'VMI_CORRUPT',
  'VMI_SYMBOL',
  'VMI_TYPE',
]);

type LoadOptions = Pick<KernelOptions, 'profile' | 'cache' | 'opened' | 'signal' | 'number'>;

async function attachSource(target: string, source: Source, given: LoadOptions): Promise<Attached> {
  const { carried } = source;
  const opened = carried === undefined ? undefined : new CarriedCache(carried);
  const options =
    source.cacheable === false
      ? { ...given, cache: opened === undefined ? false : undefined, opened }
      : given;
  const refusals: string[] = [];
  const short: Candidate[] = [];
  let last: unknown;
  for (const candidate of source.candidates) {
    try {
      const attached = await attachCandidate(candidate, options);
      source.kept?.();
      return attached;
    } catch (error) {
      if (error instanceof ShortMapError) short.push(candidate);
      if (options.signal?.aborted === true) throw aborted(options.signal);
      // Only what another layout could cure leads on to the next one.
      if (!(error instanceof VmiError) || !LAYOUT_ERRORS.has(error.code)) {
        await source.close();
        throw error;
      }
      last = error;
      refusals.push(`${candidate.assumption}: ${error.message}`);
    }
  }
  const [only, another] = short;
  if (only !== undefined && another === undefined) {
    const attached = await attachCandidate({ ...only, proven: true }, options);
    source.kept?.();
    return attached;
  }
  await source.close();
  if (refusals.length === 1) throw last;
  throw new VmiError(
    'VMI_ATTACH',
    `no way to lay out the RAM of ${target} fits the guest's own page tables:\n  ${refusals.join('\n  ')}`,
    { cause: last },
  );
}

async function attachCandidate(candidate: Candidate, options: LoadOptions): Promise<Attached> {
  const memory = candidate.open();
  try {
    const registers = memory.capabilities.registers
      ? memory.registers({ signal: options.signal })
      : [];
    const kernel = await Kernel.load(memory, { ...options, registers });
    if (!candidate.proven) proveLayout(kernel);
    return { memory, kernel };
  } catch (error) {
    await memory.close();
    throw error;
  }
}

function aborted(signal: AbortSignal): VmiError {
  return new VmiError('VMI_ABORTED', 'attaching was aborted', { cause: signal.reason });
}
