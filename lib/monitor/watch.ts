import { VmiError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import type { PhysicalMemory } from '../memory/physical-memory.js';
import { cannotSample, type SampleOptions, SwitchSampler } from './sampled-switches.js';
import type { SwitchSource } from './switch.js';
import { type StreamOptions, SwitchStream } from './switch-stream.js';

/** A guest as watching needs it. */
export interface WatchedGuest {
  readonly kernel: Kernel;
  readonly memory: PhysicalMemory;
}

export interface WatchOptions extends SampleOptions, StreamOptions {
  /** How switches become known; default `sampled`. */
  readonly by?: SwitchSource | undefined;
}

/**
 * Begins to watch a guest's switches.
 * @param closed called once, when the stream has ended
 */
export function watchSwitches(
  guest: WatchedGuest,
  options: WatchOptions,
  closed: () => void,
): SwitchStream {
  const { by = 'sampled' } = options;
  if (by !== 'sampled') {
    throw new VmiError('VMI_UNSUPPORTED', `switches that are ${by} cannot be watched here`);
  }
  checkPids(options.pids);
  return new SwitchStream(startSampling(guest, options), options, closed);
}

/**
 * Starts a sampler on a guest.
 * @throws {VmiError} `VMI_UNSUPPORTED`: it is an image, or its memory is read through libvmi
 */
export function startSampling(guest: WatchedGuest, options: SampleOptions): SwitchSampler {
  const { memory, kernel } = guest;
  if (!memory.live) throw cannotSample(memory.description, 'it is an image, and does not run');
  if (memory.source === 'libvmi') {
    throw cannotSample(
      memory.description,
      'a read through libvmi takes longer than most slices; where capabilities.events is true, cr3Writes() tells of every switch of address spaces',
    );
  }
  return new SwitchSampler(
    { kernel, startSampler: (native) => memory.startSampler(native) },
    options,
  );
}

function checkPids(pids: readonly number[] | undefined): void {
  for (const pid of pids ?? []) {
    if (!Number.isInteger(pid) || pid < 0 || pid > 0x7fff_ffff) {
      throw new RangeError(
        `Expected pids of integers between 0 and ${0x7fff_ffff} but received ${String(pid)}`,
      );
    }
  }
}
