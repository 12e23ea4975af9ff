// @ts-check
/** QEMUs of other Debian suites, unpacked into the cache and started there; none is installed. */
import { mkdir, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Apt } from './apt.mjs';
import { cached, cacheFolder, exists } from './cache.mjs';

/**
 * What a guest's QEMU reads or writes by name lies below these: the same inside the root and
 * outside.
 */
const SHARED = ['/tmp', '/dev', '/proc', '/sys'];

/**
 * A folder with the QEMU of a suite and every library that it needs.
 *
 * @param {string} suite
 * @param {import('./run.mjs').Log} log
 * @returns {Promise<string>}
 */
function qemuRoot(suite, log) {
  return cached(join(cacheFolder(), 'qemus', suite), async (root) => {
    await new Apt(suite, log).unpack(['qemu-system-x86'], (all) => all, root);
    for (const name of ['bin', 'sbin', 'lib', 'lib64']) {
      await mkdir(join(root, 'usr', name), { recursive: true });
      if (!(await exists(join(root, name)))) await symlink(`usr/${name}`, join(root, name));
    }
    for (const name of SHARED) await mkdir(join(root, name), { recursive: true });
  });
}

/**
 * Words before QEMU's arguments that start the QEMU of a suite: with its own libraries, in a folder
 * of its own, so that paths below the lab's cache and the folder for temporary files are the same
 * for it and for us. It stays the process that is started.
 *
 * @param {string} suite
 * @param {import('./run.mjs').Log} log
 * @returns {Promise<string[]>}
 */
export async function otherQemu(suite, log) {
  const root = await qemuRoot(suite, log);
  const user = process.getuid?.() === 0 ? [] : ['--map-root-user'];
  const folders = [...SHARED, tmpdir(), cacheFolder()];
  const script =
    'root=$0; while [ "$1" != -- ]; do mkdir -p "$root$1"; mount --rbind "$1" "$root$1" || exit 1; shift; done; shift; ' +
    'exec chroot "$root" "$@"';
  return [
    ...['unshare', '--mount', ...user, 'sh', '-c', script, root, ...new Set(folders), '--'],
    'qemu-system-x86_64',
  ];
}
