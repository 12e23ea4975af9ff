import type { ListedSymbols } from '../symbols/listed.js';
import type { TypeTable } from '../types/table.js';

/**
 * What a user knows of a kernel, instead of what the guest says. Addresses are as linked, or as
 * they were in some run: how far KASLR moved them is solved by where the guest's image is.
 */
export interface Profile {
  readonly symbols?: ListedSymbols;
  readonly types?: TypeTable;
  /** For messages and provenance: the file. */
  readonly source: string;
  /** The text of `linux_banner`, where the profile has it. */
  readonly banner?: string;
}
