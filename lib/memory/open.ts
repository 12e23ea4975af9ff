import type { Target } from '../target.js';
import { openImage } from './image/image.js';
import { openLibvmiSource } from './libvmi/libvmi.js';
import type { AbortOptions } from './physical-memory.js';
import { openLibvirt, openQemuProcess, openQmpSocket } from './qemu/qemu.js';
import type { Source, Waiting } from './source.js';

export interface OpenOptions extends AbortOptions, Waiting {
  /** Runs libvmi, where it is the source, in a process of its own. */
  readonly isolate?: boolean | undefined;
}

/**
 * Opens what a target names.
 * @throws {VmiError} `VMI_ATTACH`, `VMI_LIBRARY_MISSING`, `VMI_ADDON_MISSING`
 */
export async function openSource(target: Target, options: OpenOptions = {}): Promise<Source> {
  switch (target.kind) {
    case 'qemu':
      return openQemuProcess(target.pid, options);
    case 'qmp':
      return openQmpSocket(target.socket, options);
    case 'libvirt':
      return openLibvirt(target, options);
    case 'image':
      return openImage(target.path);
    case 'libvmi':
      return openLibvmiSource({ ...target, isolate: options.isolate ?? target.isolate }, options);
  }
}
