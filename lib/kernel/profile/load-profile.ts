import { readFile, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { VmiError } from '../../errors.js';
import { parseConf } from '../../libvmi/conf.js';
import { describe } from '../../options.js';
import { parseIsf } from './isf.js';
import { confProfile } from './libvmi-conf.js';
import { isPlain, parsePlain } from './plain.js';
import type { Profile } from './profile.js';
import { parseSystemMap } from './system-map.js';

/**
 * Reads a profile from files, each recognised by its contents: a Volatility 3 symbol file, a
 * System.map, a libvmi.conf, or what `vmi profile --format json` wrote. Several are joined: symbols
 * from the first that has them, types likewise.
 * @param paths a path; `PATH#NAME` takes the entry `NAME` of a libvmi.conf
 * @throws {TypeError} no path
 * @throws {VmiError} `VMI_ATTACH`: no such file, or none of these forms
 */
export async function loadProfile(paths: string | readonly string[]): Promise<Profile> {
  const list = typeof paths === 'string' ? [paths] : paths;
  if (!Array.isArray(list) || list.some((path) => typeof path !== 'string'))
    throw new TypeError(`Expected a path, or a list of paths, but received ${describe(paths)}`);
  const parts = await Promise.all(list.map(loadOne));
  const symbols = parts.find((part) => part.symbols !== undefined)?.symbols;
  const types = parts.find((part) => part.types !== undefined)?.types;
  const banner = parts.find((part) => part.banner !== undefined)?.banner;
  return {
    source: parts.map((part) => part.source).join(', '),
    ...(symbols === undefined ? {} : { symbols }),
    ...(types === undefined ? {} : { types }),
    ...(banner === undefined ? {} : { banner }),
  };
}

async function loadOne(text: string): Promise<Profile> {
  const [, path = text, entry] = /^(.*?)(?:#([^#/]+))?$/.exec(text) ?? [];
  const bytes = await read(path);
  const head = bytes.toString('latin1', 0, 4096);
  if (isPlain(bytes)) return parsePlain(bytes, path);
  if (/^[0-9a-f]{8,16} [a-zA-Z?] /m.test(head)) return parseSystemMap(bytes.toString('utf8'), path);
  if (/^\s*([#"]|[^\s{}=;"#]+\s*\{)/.test(head) && !/^\s*\{/.test(head)) {
    const profile = confProfile(parseConf(bytes.toString('utf8'), path), entry, path);
    if (profile.sysmap === undefined) return profile;
    const map = resolve(dirname(path), profile.sysmap);
    const { symbols } = parseSystemMap((await read(map)).toString('utf8'), map);
    return { ...profile, ...(symbols === undefined ? {} : { symbols }) };
  }
  // JSON, or JSON in gzip or xz.
  if (!/^(?:\s*\{|\x1f\x8b|\xfd7zXZ)/.test(head)) {
    throw new VmiError(
      'VMI_ATTACH',
      `${path} is no profile: neither a System.map, Volatility's symbols, a libvmi.conf, nor what 'vmi profile' wrote`,
    );
  }
  return parseIsf(bytes, path);
}

async function read(path: string): Promise<Buffer> {
  try {
    const kind = await stat(path);
    // /dev/zero has no end; a pipe has.
    if (kind.isCharacterDevice() || kind.isBlockDevice()) throw new Error('it is a device');
    return await readFile(path);
  } catch (error) {
    throw new VmiError(
      'VMI_ATTACH',
      `cannot read the profile ${path}: ${(error as Error).message}`,
      {
        cause: error,
      },
    );
  }
}
