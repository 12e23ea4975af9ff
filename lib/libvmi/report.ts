import { addon } from '../addon.js';
import { fromNative } from '../errors.js';
import { INSTALLATION_GUIDE, MINIMUM_VERSION } from './session.js';

/** One of libvmi's drivers, as far as it can be told from outside. */
export interface LibvmiDriver {
  readonly name: 'xen' | 'kvm' | 'file';
  /** Whether this build of libvmi has it; `undefined` when that cannot be seen. */
  readonly present: boolean | undefined;
  /** Libraries it loads when it is used and that this host lacks. */
  readonly missing: readonly string[];
}

/** Which libvmi this host has, and what it can do. */
export interface LibvmiReport {
  /** Whether a library was found and could be loaded. */
  readonly loaded: boolean;
  /** Whether it has every call that is needed. */
  readonly usable: boolean;
  /** Absolute path, links resolved. */
  readonly path: string | undefined;
  /** `0.15`, or `0.14` or later, and so on; a library does not state it. */
  readonly version: string | undefined;
  /** Every name that was tried, and why it failed. */
  readonly tried: readonly { readonly name: string; readonly error: string | undefined }[];
  /** Why it cannot be used, and what to do. */
  readonly error: string | undefined;
  /** Calls that are absent and without which nothing works. */
  readonly needed: readonly string[];
  /** Calls that are absent, each one method of {@link Libvmi}. */
  readonly missing: readonly string[];
  readonly drivers: readonly LibvmiDriver[];
}

/**
 * Looks for libvmi as attaching does: the file given, else `$LIBVMI_LIBRARY`, else `libvmi.so.0`.
 * Attaches to nothing.
 * @throws {VmiError} `VMI_ADDON_MISSING`
 */
export function libvmiReport(library?: string): LibvmiReport {
  const report = native(library);
  const needed = report.needed ?? [];
  const tried = report.tried.map(({ name, error }) => ({
    name,
    error: error === '' ? undefined : error,
  }));
  const advice = `install libvmi ${MINIMUM_VERSION} or later (${INSTALLATION_GUIDE})`;
  const error = !report.loaded
    ? `${tried.map(({ name, error }) => `${name}: ${error}`).join('; ')}; ${advice}, or name the file in LIBVMI_LIBRARY`
    : needed.length > 0
      ? `${report.path} lacks ${needed.join(', ')}; ${advice}`
      : undefined;
  return {
    loaded: report.loaded,
    usable: error === undefined,
    path: report.path,
    version: report.version,
    tried,
    error,
    needed,
    missing: report.missing ?? [],
    drivers: (report.drivers ?? []).map(({ name, present, missing }) => ({
      name,
      present,
      missing,
    })),
  };
}

function native(library: string | undefined) {
  try {
    return addon().libvmiReport(library);
  } catch (error) {
    throw fromNative(error);
  }
}
