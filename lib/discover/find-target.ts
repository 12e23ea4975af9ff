import { existsSync } from 'node:fs';
import { VmiError } from '../errors.js';
import { checkName } from '../options.js';
import { didYouMean } from '../suggest.js';
import { parseTarget, TARGET_FORMS, type Target } from '../target.js';
import { type ListedGuest, listGuests } from './list-guests.js';

/**
 * Finds what a word means on this host: a target, `qemu:NAME`, or the bare PID or name of a guest
 * that runs here. Without a word it is the only guest.
 *
 * @throws {VmiError} `VMI_ATTACH`: no guest is meant, or several are; the message names them
 * @throws {RangeError} a target of no form that there is; {TypeError} no string
 * @example
 * await attach(findTarget('web'));
 */
export function findTarget(word?: string): Target {
  return targetAmong(word, listGuests());
}

/** The same among guests that were found already. */
export function targetAmong(word: string | undefined, guests: readonly ListedGuest[]): Target {
  if (word === undefined) return theOnly(guests);
  checkName(word, 'word');
  const name = /^qemu:(?![0-9-])(.+)$/s.exec(word)?.[1] ?? word;
  if (name === word && word.includes(':')) return parseTarget(word);
  const meant = guests.filter(
    (guest) => guest.name === name || String(guest.pid) === name || String(guest.domain) === name,
  );
  const [first] = meant;
  if (first === undefined) throw nobody(name, guests);
  if (meant.length === 1) return parseTarget(first.targets[0]!);
  throw new VmiError(
    'VMI_ATTACH',
    `several guests are called '${name}': ${listed(meant)}; name one of these`,
  );
}

function theOnly(guests: readonly ListedGuest[]): Target {
  const [only] = guests;
  if (only !== undefined && guests.length === 1) return parseTarget(only.targets[0]!);
  throw new VmiError(
    'VMI_ATTACH',
    only === undefined
      ? `no guest runs on this host that this user can see; name a target (${TARGET_FORMS})`
      : `${guests.length} guests run on this host: ${listed(guests)}; name one of these`,
  );
}

function nobody(name: string, guests: readonly ListedGuest[]): VmiError {
  if (existsSync(name)) {
    return new VmiError(
      'VMI_ATTACH',
      `no guest on this host is called '${name}', but a file is; did you mean image:${name}?`,
    );
  }
  const names = guests.map((guest) => guest.name).filter((one) => one !== '');
  const hint = didYouMean(name, names) || "; 'vmi list' shows what runs here";
  return new VmiError(
    'VMI_ATTACH',
    `no guest on this host is called '${name}'${hint} (a target is ${TARGET_FORMS})`,
  );
}

/** Targets of guests, few enough to read. */
function listed(guests: readonly ListedGuest[]): string {
  const shown = guests
    .slice(0, 6)
    .map(({ name, targets }) => (name === '' ? targets[0] : `${targets[0]} (${name})`));
  return `${shown.join(', ')}${guests.length > shown.length ? ', …' : ''}`;
}
