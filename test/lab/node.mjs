// @ts-check
/**
 * Other releases of Node and of npm. The npm registry has Node as a package for each platform; what
 * was fetched is kept in the lab's cache.
 */
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { cached, cacheFolder } from './cache.mjs';
import { run } from './run.mjs';

/** Every major that the package supports. */
export const MAJORS = ['20', '22', '24', '26'];

/**
 * A package's files, unpacked.
 * @param {string} folder of all its versions @param {string} name @param {string} major @param
 *   {import('./run.mjs').Log} log
 * @param {string[]} only files of it, `package/…`; all when left out
 * @returns {Promise<{ version: string, folder: string } | undefined>} the newest release of a
 *   major, if there is one
 */
async function unpacked(folder, name, major, log, only = []) {
  const version = newest(await versions(folder, name, log), major);
  if (version === undefined) return undefined;
  const path = await cached(join(folder, version), async (temporary) => {
    log(`fetching ${name} ${version}`);
    await mkdir(temporary);
    const pack = ['pack', `${name}@${version}`, '--silent', '--pack-destination', temporary];
    const archive = join(temporary, (await run('npm', pack, { cwd: temporary })).trim());
    const into = ['-C', temporary, '--strip-components=1', '--no-same-owner'];
    await run('tar', ['-xzf', archive, ...into, ...only]);
    await rm(archive);
  });
  return { version, folder: path };
}

/**
 * What the registry has, or, where there is no way to it, the cache.
 * @param {string} folder @param {string} name @param {import('./run.mjs').Log} log @returns
 *   {Promise<string[]>}
 */
async function versions(folder, name, log) {
  try {
    return JSON.parse(await run('npm', ['view', name, 'versions', '--json']));
  } catch (error) {
    const names = await readdir(folder).catch(() => []);
    const kept = names.filter((one) => /^\d+\.\d+\.\d+$/.test(one));
    if (kept.length === 0) throw error;
    log(`the npm registry does not answer; using what was fetched before: ${kept.join(', ')}`);
    return kept;
  }
}

/** The newest release of a major. @param {string[]} all @param {string} major */
function newest(all, major) {
  const order = new Intl.Collator('en', { numeric: true });
  return all
    .filter((version) => version.startsWith(`${major}.`) && !version.includes('-'))
    .sort(order.compare)
    .at(-1);
}

/**
 * The program `node` of a major.
 * @param {string} major @param {import('./run.mjs').Log} log @param {string} [arch]
 * @returns {Promise<{ version: string, program: string } | undefined>} `undefined`: the registry
 *   has none
 */
export async function nodeOf(major, log, arch = process.arch) {
  const cache = join(cacheFolder(), arch === process.arch ? 'node' : `node-${arch}`);
  const found = await unpacked(cache, `node-linux-${arch}`, major, log, ['package/bin/node']);
  return found && { version: found.version, program: join(found.folder, 'bin', 'node') };
}

/**
 * npm itself.
 * @param {string} major @param {import('./run.mjs').Log} log
 * @returns {Promise<{ version: string, folder: string } | undefined>} with `bin/npm-cli.js` in its
 *   folder
 */
export function npmOf(major, log) {
  return unpacked(join(cacheFolder(), 'npm'), 'npm', major, log);
}
