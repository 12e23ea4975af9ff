import type { Kernel } from '../kernel/kernel.js';
import { exportBtf } from './btf.js';
import { exportIsf } from './isf.js';
import { exportJson } from './json.js';
import { exportLibvmiConf } from './libvmi-conf.js';
import { exportSystemMap } from './system-map.js';
import { vmcoreinfoText } from './vmcoreinfo.js';

/** The forms in which what was found of a kernel can be given to other tools. */
export const PROFILE_FORMATS = [
  'libvmi-conf',
  'system-map',
  'isf',
  'json',
  'vmcoreinfo',
  'btf',
] as const;
/** A name of {@link PROFILE_FORMATS}. */
export type ProfileFormat = (typeof PROFILE_FORMATS)[number];

export interface ExportOptions {
  /** The guest's name, in a libvmi.conf. */
  readonly name: string;
  /** Path of the System.map that a libvmi.conf names. */
  readonly sysmap?: string | undefined;
  /** This package's, for the symbol file. */
  readonly version: string;
}

/**
 * Writes a kernel's symbols and types in a form that other tools read; all but `vmcoreinfo` and
 * `btf` are read by `loadProfile`, too.
 * Symbols stand at the addresses they were linked to.
 * @returns pieces of text, or of bytes, of any length
 * @throws {VmiError} `VMI_UNSUPPORTED`: libvmi could not read the name or the path, or the kernel
 *   has no BTF; `VMI_SYMBOL`, `VMI_TYPE`: this kernel lacks what the form is made of
 */
export function exportProfile(
  kernel: Kernel,
  format: ProfileFormat,
  options: ExportOptions,
): Iterable<string | Uint8Array> {
  switch (format) {
    case 'libvmi-conf':
      return exportLibvmiConf(kernel, options);
    case 'system-map':
      return exportSystemMap(kernel);
    case 'isf':
      return exportIsf(kernel, options);
    case 'json':
      return exportJson(kernel);
    case 'vmcoreinfo':
      return [vmcoreinfoText(kernel)];
    case 'btf':
      return exportBtf(kernel);
  }
}
