import type { Memory } from '../../types/addon.js';
import type { Engine } from './engine.js';
import type { Machine, MachineLook } from './machine.js';
import type { WriteBytes } from './write.js';

/**
 * What a physical address of a source counts:
 * - `guest-physical`: what the guest itself calls physical, from 0 on.
 * - `machine`: frames of the machine, of which the guest has some here and there. That is what page
 *   tables and CR3 hold in a PV guest of Xen, and nowhere else; the guest's own numbering is then
 *   called pseudo-physical.
 */
export type Addressing = 'guest-physical' | 'machine';

/** What a source makes its memory of. */
export interface PhysicalMemoryOptions {
  readonly native: Memory;
  /** Default: the addon's. */
  readonly engine?: Engine;
  /** The kind of source: `qemu`, `image`, `libvmi`. */
  readonly source: string;
  /** One line for people: what was attached and how its RAM is reached. */
  readonly description: string;
  /** Whether the guest may change while it is read. */
  readonly live: boolean;
  readonly machine?: Machine;
  /**
   * Looks at the guest anew, at once; absent where a guest does not change but by its own doing.
   */
  readonly look?: (() => MachineLook) | undefined;
  /** Default: `guest-physical`. */
  readonly addressing?: Addressing;
  /**
   * Bytes of RAM, where the ranges only say between which addresses it lies: a read finds out what
   * is RAM.
   */
  readonly ramSize?: bigint;
  /** Writes guest memory where `native` does not. */
  readonly write?: WriteBytes;
}
