import { describe } from '../../options.js';
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

/**
 * Checks a profile that the user gives: what `loadProfile` gives, or something that is like it.
 * @throws {TypeError}
 */
export function checkProfile(profile: unknown): void {
  const { source, symbols, types, banner } = (profile ?? {}) as Partial<
    Record<keyof Profile, unknown>
  >;
  const isTable = (table: unknown) => typeof table === 'object' && table !== null;
  const isProfile =
    typeof source === 'string' &&
    (symbols === undefined || isTable(symbols)) &&
    (types === undefined || isTable(types)) &&
    (symbols ?? types ?? banner) !== undefined;
  if (isProfile) return;
  throw new TypeError(
    `Expected profile as a path, a list of paths or a profile but received ${describe(profile)}; a profile has a source, and symbols or types, as loadProfile gives it`,
  );
}
