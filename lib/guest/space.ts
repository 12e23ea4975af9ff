import type { AddressLike } from '../address.js';
import { checkOptions, type OptionNames } from '../options.js';

/** Which page table a virtual address is looked up in; the kernel's own when left out. */
export interface SpaceOptions {
  /** That of the task with this PID or TID. */
  readonly pid?: number | undefined;
  /** That of any value that a CR3 register can hold. */
  readonly cr3?: AddressLike | undefined;
}

const NAMES: OptionNames<SpaceOptions> = { pid: true, cr3: true };

/** @throws {TypeError} no such option, or both of them */
export function checkSpace(options: SpaceOptions): SpaceOptions {
  checkOptions(options, NAMES);
  if (options.pid !== undefined && options.cr3 !== undefined)
    throw new TypeError('Expected options with either pid or cr3 but received both');
  return options;
}
