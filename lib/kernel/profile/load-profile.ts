import { readFile, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { VmiError } from '../../errors.js';
import { parseConf } from '../../libvmi/conf.js';
import { describe } from '../../options.js';
import { parseBtfHeader } from '../types/btf-sections.js';
import { isBzImage, unpackBzImage } from './bz-image.js';
import { isElf } from './elf.js';
import { parseIsf } from './isf.js';
import { confProfile } from './libvmi-conf.js';
import { isPlain, parsePlain } from './plain.js';
import type { Profile } from './profile.js';
import { parseSystemMap } from './system-map.js';
import { btfProfile, elfProfile } from './vmlinux.js';

/** Bytes of a file in gzip, unpacked: a whole kernel's symbols are 40–60 MB. */
const MAX_UNPACKED = 512 << 20;

/**
 * Reads a profile from files, each recognised by its contents: a vmlinux, a bzImage, a module or
 * object with DWARF, a BTF file, a System.map, a Volatility 3 symbol file, a libvmi.conf, or what
 * `vmi profile --format json` wrote. Several are joined: symbols from the first that has them,
 * types likewise. DWARF takes pahole, and a bzImage that is packed with xz takes xz.
 * @param paths a path; `PATH#NAME` takes the entry `NAME` of a libvmi.conf
 * @throws {TypeError} no path
 * @throws {VmiError} `VMI_ATTACH`: no such file, or none of these forms
 */
export async function loadProfile(paths: string | readonly string[]): Promise<Profile> {
  const list = typeof paths === 'string' ? [paths] : paths;
  if (
    !Array.isArray(list) ||
    list.length === 0 ||
    [...list].some((path) => typeof path !== 'string')
  )
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
  const raw = await read(path);
  const bytes = isGzip(raw) ? unpackGzip(raw, path) : raw;
  if (isElf(bytes)) return elfProfile(bytes, path, bytes === raw);
  if (isBzImage(bytes)) return elfProfile(await unpackBzImage(bytes, path), path, false);
  if (parseBtfHeader(bytes.subarray(0, 32)) !== undefined) return btfProfile(bytes, path);
  const head = bytes.toString('latin1', 0, 4096);
  if (isPlain(bytes)) return parsePlain(bytes, path);
  if (/^(?:# )?CONFIG_\w+(?:=| is not set)/m.test(head))
    throw configError(bytes.toString('latin1'), path);
  if (/^[0-9a-f]{8,16} [a-zA-Z?] /m.test(head)) return parseSystemMap(bytes.toString('utf8'), path);
  if (/^\s*([#"]|[^\s{}=;"#]+\s*\{)/.test(head) && !/^\s*\{/.test(head)) {
    const profile = confProfile(parseConf(bytes.toString('utf8'), path), entry, path);
    if (profile.sysmap === undefined) return profile;
    const map = resolve(dirname(path), profile.sysmap);
    const { symbols } = parseSystemMap((await read(map)).toString('utf8'), map);
    return { ...profile, ...(symbols === undefined ? {} : { symbols }) };
  }
  // JSON, or JSON in xz, which is refused there.
  if (!/^(?:\s*\{|\xfd7zXZ)/.test(head) && !path.endsWith('.br')) {
    throw new VmiError(
      'VMI_ATTACH',
      `${path} is no profile: neither a vmlinux, a bzImage, BTF, a System.map, Volatility's symbols, a libvmi.conf, nor what 'vmi profile' wrote`,
    );
  }
  return withoutLooseSymbols(parseIsf(bytes, path));
}

/**
 * A symbol file of an object has types, and symbols that are no addresses of the kernel: those must
 * not replace the guest's.
 */
function withoutLooseSymbols(profile: Profile): Profile {
  const { symbols, ...types } = profile;
  if (symbols === undefined) return profile;
  const isKernel = ['_text', '_stext', 'startup_64'].some((name) => symbols.find(name));
  return isKernel ? profile : types;
}

function isGzip(bytes: Buffer): boolean {
  return bytes[0] === 0x1f && bytes[1] === 0x8b;
}

function unpackGzip(bytes: Buffer, path: string): Buffer {
  try {
    return gunzipSync(bytes, { maxOutputLength: MAX_UNPACKED });
  } catch (error) {
    throw new VmiError('VMI_ATTACH', `cannot unpack ${path}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** What a kernel's configuration says of what is in its memory: no address, no offset. */
function configError(text: string, path: string): VmiError {
  const is = (option: string) => new RegExp(`^CONFIG_${option}=y$`, 'm').test(text);
  const facts = [
    is('DEBUG_INFO_BTF') ? 'has BTF' : 'has no BTF',
    !is('KALLSYMS')
      ? 'has no kallsyms'
      : is('KALLSYMS_ALL')
        ? 'has kallsyms'
        : 'names functions only',
    ...(is('RANDSTRUCT') || is('GCC_PLUGIN_RANDSTRUCT') ? ['shuffles its structures'] : []),
  ];
  return new VmiError(
    'VMI_ATTACH',
    `${path} is a kernel's configuration, which has no symbol and no offset; by it the kernel ${facts.join(', ')}`,
  );
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
