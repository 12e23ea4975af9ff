import type { PhysicalMemory } from './physical-memory.js';

/**
 * One way to lay out the RAM of a source. Most sources have exactly one. A raw file, and a QEMU
 * without a monitor, do not say where the hole below 4 GiB starts: they offer every layout a PC can
 * have, and the guest's own page tables decide.
 */
export interface Candidate {
  /** What is assumed, for the message when nothing fits: `RAM split at 3 GiB (machine pc)`. */
  readonly assumption: string;
  /** Whether the source itself vouches for the layout, so that it needs no proof. */
  readonly proven: boolean;
  open(): PhysicalMemory;
}

/** A source that was found and can be read; which layout is right may still be open. */
export interface Source {
  /** In order of likelihood, never empty. */
  readonly candidates: readonly Candidate[];
  /** Called when a candidate is kept: releases what only the others would need. */
  readonly kept?: (() => void) | undefined;
  /**
   * Whether what a cache knows of the kernel may be used; default true. `false`: only what was read
   * when this was made can be.
   */
  readonly cacheable?: boolean;
  /** What is known of the kernel, for a cache of its own: texts by name. */
  readonly carried?: Readonly<Record<string, string>>;
  /** Releases what `candidates` share, when none of them is kept. */
  close(): Promise<void>;
}

/** How a source is opened. */
export interface Opening extends Waiting {
  /**
   * Whether guest memory may be written. RAM is opened read-only where not.
   */
  readonly write?: boolean | undefined;
}

/** What whoever opens a source can do while the source waits for others. */
export interface Waiting {
  /** Called once, if at all. */
  readonly meanwhile?: (() => void) | undefined;
}
