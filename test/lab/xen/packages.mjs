// @ts-check
/**
 * Debian's Xen, unpacked: the hypervisor and the tools of dom0. Nothing of it is installed on the
 * host.
 */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { Apt } from '../apt.mjs';
import { cached, cacheFolder } from '../cache.mjs';
import { stderrLog } from '../run.mjs';

/** The suite whose Xen and whose dom0 kernel are used. */
export const SUITE = 'bookworm';

/**
 * @typedef {object} Xen
 * @property {string} version of the Debian package
 * @property {string} hypervisor path of the hypervisor, as QEMU's multiboot loader takes it
 * @property {string} root the unpacked tools, and every library they need
 */

/**
 * Downloads and unpacks Xen, once.
 *
 * @param {{ log?: import('../run.mjs').Log }} [options]
 * @returns {Promise<Xen>}
 */
export async function xen({ log = stderrLog } = {}) {
  const root = await cached(join(cacheFolder(), 'xen', SUITE), async (temporary) => {
    // the tools need libraries and programs; scripts in Python are not used here
    const packages = await new Apt(SUITE, log).unpack(
      ['xen-system-amd64'],
      (all) => all.filter(({ name }) => /^(lib(?!python)|xen|zlib)/.test(name)),
      temporary,
    );
    const boot = join(temporary, 'boot');
    const name = (await readdir(boot)).find((file) => /^xen-.*-amd64\.gz$/.test(file));
    if (name === undefined)
      throw new Error(`no hypervisor in the unpacked packages at ${temporary}`);
    await writeFile(join(boot, 'xen.elf'), gunzipSync(await readFile(join(boot, name))));
    const version = packages.find((one) => one.name.startsWith('xen-hypervisor-'))?.version;
    await writeFile(join(temporary, 'version'), String(version));
  });
  return {
    version: await readFile(join(root, 'version'), 'utf8'),
    hypervisor: join(root, 'boot/xen.elf'),
    root,
  };
}
