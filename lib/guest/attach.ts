import { VmiError } from '../errors.js';
import { Kernel, type KernelOptions, openCache } from '../kernel/kernel.js';
import { loadProfile } from '../kernel/profile/load-profile.js';
import type { Profile } from '../kernel/profile/profile.js';
import { openSource } from '../memory/open.js';
import type { Candidate, Source } from '../memory/source.js';
import { formatTarget, parseTarget, type Target } from '../target.js';
import { type Attached, Guest } from './guest.js';
import { proveLayout } from './layout-proof.js';

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
}

/**
 * Attaches to a guest: opens its memory, finds its kernel with no profile, and verifies what was
 * found.
 *
 * @param target `qemu:PID`, `libvirt:NAME`, `qmp:SOCKET`, `image:PATH`, `xen:NAME`, `kvm:NAME`,
 *   `libvmi:PATH`, or the same as an object
 * @throws {VmiError} `VMI_ATTACH`: no such guest, no right to read it, or no Linux kernel found in
 *   it, as while it still boots
 * @throws {VmiError} `VMI_LIBRARY_MISSING`, `VMI_ADDON_MISSING`, `VMI_ABORTED`
 * @throws {RangeError} the target has none of these forms
 */
export async function attach(target: string | Target, options: AttachOptions = {}): Promise<Guest> {
  const parsed = typeof target === 'string' ? parseTarget(target) : target;
  if (options.signal?.aborted === true) throw aborted(options.signal);
  const { profile, signal, cache, isolate } = options;
  const loaded =
    typeof profile === 'string' || Array.isArray(profile)
      ? await loadProfile(profile)
      : (profile as Profile);
  const opened = openCache(cache);
  const open = async (limit: AbortSignal | undefined) => {
    const source = await openSource(parsed, {
      signal: limit,
      isolate,
      meanwhile: () => opened?.prepare(),
    });
    return attachSource(parsed, source, { profile: loaded, cache, opened, signal: limit });
  };
  const { memory, kernel } = await open(signal);
  const guest = new Guest(formatTarget(parsed), memory, kernel, () => open(undefined));
  // What the tasks layer asked of the kernel's types need not be asked again at the next attach.
  guest.beforeClose(kernel.remember());
  return guest;
}

/** What a kernel looks like through a wrong layout of RAM. */
const LAYOUT_ERRORS: ReadonlySet<string> = new Set([
  'VMI_ATTACH',
  'VMI_FAULT',
  'VMI_CORRUPT',
  'VMI_SYMBOL',
  'VMI_TYPE',
]);

type LoadOptions = Pick<KernelOptions, 'profile' | 'cache' | 'opened' | 'signal'>;

async function attachSource(
  target: Target,
  source: Source,
  options: LoadOptions,
): Promise<Attached> {
  const refusals: string[] = [];
  let last: unknown;
  for (const candidate of source.candidates) {
    try {
      return await attachCandidate(candidate, options);
    } catch (error) {
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
  await source.close();
  if (refusals.length === 1) throw last;
  throw new VmiError(
    'VMI_ATTACH',
    `no way to lay out the RAM of ${formatTarget(target)} fits the guest's own page tables:\n  ${refusals.join('\n  ')}`,
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
