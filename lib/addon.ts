import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
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

/**
 * The binary is the one that `NODE_LIBVMI_ADDON` names, as a bundler that moved it has to say; else
 * one that was built from source; else the one that came with the package.
 */
function load(): Addon {
  const require = createRequire(import.meta.url);
  const named = process.env.NODE_LIBVMI_ADDON;
  if (named) {
    try {
      return require(resolve(named)) as Addon;
    } catch (error) {
      throw missing(`NODE_LIBVMI_ADDON names ${named}: ${firstLine(error)}`, error);
    }
  }
  const found = built(require);
  if (typeof found !== 'string') return found;
  try {
    return (require('node-gyp-build') as (folder: string) => Addon)(PACKAGE_ROOT);
  } catch (error) {
    const none = /^No native build was found for (\S+ \S+)/.exec(firstLine(error));
    const why =
      none === null
        ? firstLine(error)
        : `none came with the package for ${process.platform} ${process.arch}`;
    throw missing(`${why}, and none is built (${found})`, error);
  }
}

/** A binary that was built here, or where one was looked for. */
function built(require: NodeJS.Require): Addon | string {
  // Where node-gyp puts it; `bindings` looks there last, and tells where else it did.
  const usual = join(PACKAGE_ROOT, 'build', 'Release', 'vmi_addon.node');
  try {
    if (existsSync(usual)) return require(usual) as Addon;
  } catch (error) {
    throw missing(firstLine(error), error);
  }
  // An installed package was not built.
  if (!existsSync(join(PACKAGE_ROOT, 'build'))) return `there is no ${usual}`;
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
    if (tried !== undefined) return `not found at ${tried.join(', ')}`;
    throw missing(firstLine(error), error);
  }
}

function missing(reason: string, cause: unknown): VmiError {
  return new VmiError(
    'VMI_ADDON_MISSING',
    `cannot load the native addon: ${reason}. Build it with 'npx node-libvmi-build' (in a checkout: 'npm run build'); it needs python3, make and g++`,
    { cause },
  );
}

function firstLine(error: unknown): string {
  return String((error as Error).message).split('\n', 1)[0]!;
}
