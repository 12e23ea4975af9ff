import { createRequire } from 'node:module';
import type * as Native from '../types/addon.js';
import { VmiError } from './errors.js';
import { PACKAGE_ROOT } from './package-root.js';

/** The binary's exports, as `types/addon.d.ts` declares them. */
export type Addon = typeof Native;

let loaded: Addon | undefined;

/**
 * Loads the native addon once.
 * @throws {VmiError} `VMI_ADDON_MISSING` with every path that was tried and the command that builds
 *   it
 */
export function addon(): Addon {
  loaded ??= load();
  return loaded;
}

function load(): Addon {
  const require = createRequire(import.meta.url);
  try {
    const bindings = require('bindings') as (options: object) => Addon;
    return bindings({
      bindings: 'vmi_addon.node',
      module_root: PACKAGE_ROOT,
      try: [
        ['module_root', 'build', 'Release', 'bindings'],
        ['module_root', 'build', 'Debug', 'bindings'],
      ],
    });
  } catch (error) {
    const tried = (error as { tries?: string[] }).tries;
    const reason = tried ? `not found at ${tried.join(', ')}` : (error as Error).message;
    throw new VmiError(
      'VMI_ADDON_MISSING',
      `cannot load the native addon: ${reason}. Build it with 'npm rebuild node-libvmi' (in a checkout: 'npm run build'); it needs python3, make and g++`,
      { cause: error },
    );
  }
}
