import { PAGE_MASK, PHYSICAL_MASK, wrap } from '../../address.js';
import { TEXT_ENTRY } from '../x86-64.js';
import { type GuestWords, isPointer } from './guest-words.js';

/** Tells page directories of the kernel's from other pages: each maps the kernel's text. */
export class PageDirectories {
  readonly #words: GuestWords;
  readonly #textEntry: bigint;

  constructor(words: GuestWords) {
    const { physical, root } = words.memory;
    this.#words = words;
    this.#textEntry = physical.readU64(root + TEXT_ENTRY) & PHYSICAL_MASK;
  }

  /** Whether an address is that of one. */
  has(address: bigint | undefined): boolean {
    if (!isPointer(address) || (address & PAGE_MASK) !== 0n) return false;
    const entry = this.#words.u64(wrap(address + TEXT_ENTRY));
    return entry !== undefined && (entry & PHYSICAL_MASK) === this.#textEntry;
  }
}
