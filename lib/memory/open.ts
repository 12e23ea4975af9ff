import { VmiError } from '../errors.js';
import {
  checkFlag,
  checkFunction,
  checkOptions,
  checkSignal,
  type OptionNames,
} from '../options.js';
import { checkTarget, parseTarget, type Target } from '../target.js';
import { openImage } from './image/image.js';
import { openRecording } from './image/recording.js';
import { openLibvmiSource } from './libvmi/libvmi.js';
import type { AbortOptions } from './physical-memory.js';
import { openProcess } from './process/open-process.js';
import { openLibvirt, openQemuProcess, openQmpSocket } from './qemu/qemu.js';
import type { Opening, Source } from './source.js';

/** How a source is opened: see {@link openSource}. */
export interface OpenOptions extends AbortOptions, Opening {
  /** Runs libvmi, where it is the source, in a process of its own. */
  readonly isolate?: boolean | undefined;
}

const NAMES: OptionNames<OpenOptions> = {
  signal: true,
  meanwhile: true,
  isolate: true,
  write: true,
};

/**
 * Opens what a target names: finds it, and says how its RAM can be laid out. `attach` does this,
 * and looks for a kernel in the candidates; here it is for tools that want the memory alone.
 *
 * @param given as a string or as an object, as `attach` takes it
 * @returns at least one candidate; what `open()` gives, and what is not kept, is the caller's to
 *   close
 * @throws {VmiError} `VMI_ATTACH`, `VMI_LIBRARY_MISSING`, `VMI_ADDON_MISSING`, `VMI_ABORTED`;
 *   `VMI_UNSUPPORTED`: `write` of what cannot be written
 * @throws {TypeError} no target, or an option that there is not, or of another type
 * @throws {RangeError} a target of no form that there is
 * @example
 * const source = await openSource('image:/tmp/guest.elf');
 * await using memory = source.candidates[0].open();
 * memory.read(0x1000, 16);
 */
export async function openSource(
  given: string | Target,
  options: OpenOptions = {},
): Promise<Source> {
  const target = typeof given === 'string' ? parseTarget(given) : checkTarget(given);
  checkOptions(options, NAMES);
  checkSignal(options.signal);
  checkFlag(options.isolate, 'isolate');
  checkFlag(options.write, 'write');
  checkFunction(options.meanwhile, 'meanwhile');
  switch (target.kind) {
    case 'qemu':
      return openQemuProcess(target.pid, options);
    case 'qmp':
      return openQmpSocket(target.socket, options);
    case 'libvirt':
      return openLibvirt(target, options);
    case 'replay':
      if (options.write === true)
        throw new VmiError('VMI_UNSUPPORTED', `replay:${target.path} cannot be written`);
      return openRecording(target.path);
    case 'process':
      return openProcess(target.pid, options);
    case 'image':
      if (options.write === true)
        throw new VmiError(
          'VMI_UNSUPPORTED',
          `image:${target.path} is not opened for writing: an image stays what it is. For a file that is a running guest's RAM, libvmi:${target.path} is`,
        );
      return openImage(target.path);
    case 'libvmi':
      return openLibvmiSource(
        { ...target, isolate: options.isolate ?? target.isolate },
        { signal: options.signal, write: options.write },
      );
  }
}
