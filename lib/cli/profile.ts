import { existsSync, readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { VmiError } from '../errors.js';
import { parseIsf } from '../kernel/profile/isf.js';
import { confProfile, parseConf } from '../kernel/profile/libvmi-conf.js';
import type { Profile } from '../kernel/profile/profile.js';
import { parseSystemMap } from '../kernel/profile/system-map.js';
import type { Target } from '../target.js';

const ELF_MAGIC = Buffer.from([0x7f, 0x45, 0x4c, 0x46]);
/** What packed and plain ISF files start with: gzip, `{`. Brotli has no magic, xz is refused by the parser with advice. */
const ISF_START = /^(\x1f\x8b|\xfd7zXZ|\s*\{)/;

/**
 * Loads what `--profile` names: a System.map, a Volatility ISF, or a libvmi.conf with its System.map. What a file is, its
 * contents say. Of a libvmi.conf the entry is the one named like the guest, or after a colon: `libvmi.conf:NAME`.
 * @throws {VmiError} `VMI_ATTACH`: no such file, or none of these
 */
export function loadProfile(option: string, target: Target): Profile {
  const colon = option.lastIndexOf(':');
  const named = colon > 0 && !existsSync(option);
  const path = named ? option.slice(0, colon) : option;
  const bytes = readProfile(path);
  if (bytes.subarray(0, 4).equals(ELF_MAGIC)) {
    throw new VmiError(
      'VMI_ATTACH',
      `${path} is an ELF file; give its symbols instead: nm ${path} > System.map`,
    );
  }
  const start = bytes.toString('latin1', 0, 64);
  if (ISF_START.test(start) || /\.json(\.\w+)?$/.test(path)) return parseIsf(bytes, path);
  const text = bytes.toString('utf8');
  if (/^[0-9a-f]{1,16} \S /.test(start)) return parseSystemMap(text, path);
  if (!text.includes('{')) {
    throw new VmiError(
      'VMI_ATTACH',
      `${path} is no profile: neither libvmi.conf, System.map nor Volatility ISF`,
    );
  }
  const guestName = target.kind === 'libvmi' ? target.name : undefined;
  const entries = parseConf(text, path);
  const name = named
    ? option.slice(colon + 1)
    : entries.some((entry) => entry.name === guestName)
      ? guestName
      : undefined;
  const { sysmap, ...profile } = confProfile(entries, name, path);
  if (sysmap === undefined) return profile;
  const map = resolve(dirname(path), sysmap);
  const { symbols } = parseSystemMap(readProfile(map).toString('utf8'), map);
  return symbols === undefined ? profile : { ...profile, symbols };
}

function readProfile(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new VmiError('VMI_ATTACH', `cannot read the profile ${path}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
