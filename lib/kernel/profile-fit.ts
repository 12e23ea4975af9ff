import { wrap } from '../address.js';
import { hex, VmiError } from '../errors.js';
import type { VirtualMemory } from '../memory/virtual-memory.js';
import type { ImageCandidate } from './candidate.js';
import type { GuestTables } from './guest-tables.js';
import { OTHER_MEMBERS, TASK_MEMBERS } from './layout/members.js';
import type { Profile } from './profile/profile.js';
import type { SymbolTable } from './symbols/table.js';
import { tryAnswer } from './try-answer.js';

/**
 * A user's profile that does not fit the guest: final, whatever other ways to a kernel there are.
 */
export class ProfileError extends VmiError {
  constructor(profile: Profile, why: string, release: string) {
    super(
      'VMI_ATTACH',
      `the profile ${profile.source} does not fit this guest (Linux ${release}): ${why}`,
    );
  }
}

/** Symbols of a profile where KASLR put them: by where the image starts. */
export function movedProfile(
  profile: Profile,
  guest: GuestTables,
  { image, space }: ImageCandidate,
): SymbolTable {
  const symbols = profile.symbols!;
  const start = symbols.find('_text') ?? symbols.find('startup_64');
  if (start === undefined) {
    throw new ProfileError(
      profile,
      "it has neither '_text' nor 'startup_64', so it cannot be told how far KASLR moved it",
      'unknown release',
    );
  }
  const moved = symbols.moved(wrap(image.virtual - start));
  const banner = moved.find('linux_banner');
  const shown =
    banner === undefined
      ? ''
      : space.physical.contains(image.physical)
        ? textAt(space, banner)
        : '';
  if (!shown.startsWith('Linux version ')) {
    const release = tryBanner(space, guest);
    throw new ProfileError(
      profile,
      banner === undefined
        ? "it has no 'linux_banner'"
        : `there is no banner at its linux_banner (${hex(banner)}, moved by ${hex(wrap(image.virtual - start))})`,
      release ?? 'unknown release',
    );
  }
  return moved;
}

function textAt(space: VirtualMemory, address: bigint): string {
  const bytes = Buffer.alloc(64);
  return bytes.toString('latin1', 0, space.readInto(address, bytes));
}

function tryBanner(space: VirtualMemory, guest: GuestTables): string | undefined {
  try {
    const at = guest.symbols.find('linux_banner');
    return at === undefined ? undefined : /^Linux version (\S+)/.exec(textAt(space, at))?.[1];
  } catch {
    return undefined;
  }
}

const CHECKED_SYMBOLS = [
  'init_task',
  'init_mm',
  'init_top_pgt',
  'linux_banner',
  '__per_cpu_offset',
] as const;

/**
 * Compares a profile with the guest's banner, and with the guest's own symbols and types where it
 * has them.
 */
export function checkProfile(
  profile: Profile,
  guest: GuestTables,
  symbols: SymbolTable,
  banner: string,
  release: string,
): void {
  if (profile.banner !== undefined && profile.banner !== banner) {
    throw new ProfileError(
      profile,
      `it is for '${profile.banner}', the guest runs '${banner}'`,
      release,
    );
  }
  const differences: string[] = [];
  // Where there is no BTF, the guest's tasks are what a profile is held against.
  if (profile.types !== undefined && guest.btf() !== undefined) {
    for (const name of [...TASK_MEMBERS, ...OTHER_MEMBERS]) {
      const [struct, member] = name.split('.') as [string, string];
      const given = profile.types.findOffset(struct, member);
      const real =
        given === undefined ? undefined : tryAnswer(() => guest.types.findOffset(struct, member));
      if (real !== undefined && given !== real)
        differences.push(
          `${struct}.${member} is at ${given} in the profile, at ${real} in the guest's BTF`,
        );
    }
  }
  if (profile.symbols !== undefined) {
    for (const name of CHECKED_SYMBOLS) {
      const given = symbols.find(name);
      const real = given === undefined ? undefined : tryAnswer(() => guest.symbols.find(name));
      if (real !== undefined && given !== real)
        differences.push(
          `${name} is at ${hex(given!)} by the profile, at ${hex(real)} by the guest's kallsyms`,
        );
    }
  }
  if (differences.length > 0)
    throw new ProfileError(profile, differences.slice(0, 4).join('; '), release);
}
