import { describe } from '../options.js';
import type { Guest } from './guest.js';

/**
 * Checks that what a function is to work on is a guest, or is like one.
 * @throws {TypeError}
 */
export function checkGuest(guest: Guest): void {
  const { target, kernel } = (guest ?? {}) as Partial<Guest>;
  if (typeof target === 'string' && typeof kernel === 'object') return;
  throw new TypeError(
    `Expected guest as a Guest (attach gives one) but received ${describe(guest)}`,
  );
}
