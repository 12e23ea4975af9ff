// @ts-check
/** Debian's kernels, unpacked. */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Apt } from './apt.mjs';
import { cached, cacheFolder, exists } from './cache.mjs';
import { stderrLog } from './run.mjs';

/**
 * @typedef {object} Kernel
 * @property {string} suite
 * @property {'cloud' | 'generic' | 'rt'} flavour
 * @property {string} release as `uname -r` prints it
 * @property {string} version of the Debian package
 * @property {string} vmlinuz path of the bootable image
 * @property {string} directory the unpacked packages (`boot`, `lib/modules` or `usr/lib/modules`)
 */

/** The package that always depends on the newest kernel of a flavour. */
const META = {
  cloud: 'linux-image-cloud-amd64',
  generic: 'linux-image-amd64',
  rt: 'linux-image-rt-amd64',
};

/**
 * Downloads and unpacks the newest kernel of a suite, once: later calls give the same kernel
 * without the network.
 *
 * @param {{ suite?: string | undefined, flavour?: 'cloud' | 'generic' | 'rt' | undefined, log?:
 *   import('./run.mjs').Log }} [options]
 * @returns {Promise<Kernel>}
 */
export async function kernel({ suite = 'bookworm', flavour = 'cloud', log = stderrLog } = {}) {
  if (!Object.hasOwn(META, flavour))
    throw new RangeError(
      `Expected flavour of ${Object.keys(META).join(', ')} but received ${flavour}`,
    );
  const directory = join(cacheFolder(), 'kernels', `${suite}-${flavour}`);
  await cached(directory, async (temporary) => {
    const packages = await new Apt(suite, log).unpack(
      [META[flavour]],
      (resolved) => resolved.filter(({ name }) => /^linux-(image|binary|modules)-\d/.test(name)),
      temporary,
    );
    const { vmlinuz, release } = await findImage(temporary);
    const version = packages[0]?.version;
    await writeFile(join(temporary, 'kernel.json'), JSON.stringify({ release, version, vmlinuz }));
  });
  const { release, version, vmlinuz } = JSON.parse(
    await readFile(join(directory, 'kernel.json'), 'utf8'),
  );
  return { suite, flavour, release, version, vmlinuz: join(directory, vmlinuz), directory };
}

/**
 * Finds the bootable image. Up to 6.x it is `boot/vmlinuz-RELEASE`; 7.x packages have it beside the
 * modules.
 *
 * @param {string} root
 * @returns {Promise<{ vmlinuz: string, release: string }>} path below `root`, and the kernel's
 *   release
 */
async function findImage(root) {
  for (const name of await list(join(root, 'boot'))) {
    if (name.startsWith('vmlinuz-'))
      return { vmlinuz: `boot/${name}`, release: name.slice('vmlinuz-'.length) };
  }
  for (const folder of ['usr/lib/modules', 'lib/modules']) {
    for (const release of await list(join(root, folder))) {
      const vmlinuz = `${folder}/${release}/vmlinuz`;
      if (await exists(join(root, vmlinuz))) return { vmlinuz, release };
    }
  }
  throw new Error(`no vmlinuz in the unpacked kernel package at ${root}`);
}

/** @param {string} folder */
const list = (folder) => readdir(folder).catch(() => /** @type {string[]} */ ([]));
