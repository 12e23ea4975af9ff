import { PAGE_MASK, PHYSICAL_MASK } from '../address.js';
import type { Kernel } from '../kernel/kernel.js';
import { TEXT_ENTRY } from '../kernel/x86-64.js';

/** Halves of {@link PHYSICAL_MASK}, and the low one of {@link PAGE_MASK}. */
const LOW_MASK = Number(PHYSICAL_MASK & 0xffff_ffffn);
const HIGH_MASK = Number(PHYSICAL_MASK >> 32n);
const LOW_PAGE_MASK = Number(PAGE_MASK);

/**
 * Tells page directories of a kernel from all else: they are page-aligned, and have the kernel's
 * own entry for the kernel's text.
 */
export class PageTableTest {
  /** Address that the kernel's own entry for its text holds. */
  readonly entry: bigint;
  readonly #low: number;
  readonly #high: number;

  constructor(kernel: Kernel) {
    const entry = kernel.memory.physical.readU64(kernel.root + TEXT_ENTRY);
    this.entry = entry & PHYSICAL_MASK;
    this.#low = Number(this.entry & 0xffff_ffffn);
    this.#high = Number(this.entry >> 32n);
  }

  /**
   * @param pgd address of the page directory
   * @param entry what it has for the kernel's text
   */
  accepts(pgd: bigint, entry: bigint): boolean {
    return (pgd & PAGE_MASK) === 0n && (entry & PHYSICAL_MASK) === this.entry;
  }

  /**
   * The same by 32-bit words, low half first: for thousands of rows, and for a look-up that takes a
   * microsecond, to make bigints takes longer than to compare.
   */
  passes(pgdLow: number, entryLow: number, entryHigh: number): boolean {
    return (
      (pgdLow & LOW_PAGE_MASK) === 0 &&
      ((entryLow ^ this.#low) & LOW_MASK) === 0 &&
      ((entryHigh ^ this.#high) & HIGH_MASK) === 0
    );
  }
}
