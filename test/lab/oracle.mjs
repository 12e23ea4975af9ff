// @ts-check
/** Builds the oracle module for a kernel, with the compiler that built that kernel. */
import { createHash } from 'node:crypto';
import { copyFile, mkdir, readdir, readFile, rm, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Apt } from './apt.mjs';
import { cached, cacheFolder, exists } from './cache.mjs';
import { run, stderrLog, which } from './run.mjs';

const SOURCE = join(dirname(fileURLToPath(import.meta.url)), 'oracle');

/**
 * Returns the oracle module for a kernel, after building it if need be.
 *
 * @param {import('./kernel.mjs').Kernel} kernel
 * @param {{ log?: import('./run.mjs').Log }} [options]
 * @returns {Promise<string>} path of `oracle.ko`
 */
export async function oracle(kernel, { log = stderrLog } = {}) {
  const hash = createHash('sha256');
  const files = (await readdir(SOURCE)).sort();
  for (const file of files) hash.update(file).update(await readFile(join(SOURCE, file)));
  const id = `${kernel.release}_${kernel.version.replace(/[^\w.+-]/g, '_')}`;
  const path = join(cacheFolder(), 'oracles', id, `${hash.digest('hex').slice(0, 16)}.ko`);
  return cached(path, async (temporary) => {
    const root = await buildRoot(kernel, id, log);
    log(`building the oracle for ${kernel.release}`);
    const work = `oracle-${process.pid}`;
    try {
      await mkdir(join(root, work));
      for (const file of files) await copyFile(join(SOURCE, file), join(root, work, file));
      await insideRoot(root, [
        'make',
        '-s',
        '-C',
        await headers(root, kernel.release),
        `M=/${work}`,
        'modules',
      ]);
      await copyFile(join(root, work, 'oracle.ko'), temporary);
    } finally {
      await rm(join(root, work), { recursive: true, force: true });
    }
  });
}

/**
 * Unpacks the headers, the compiler and what they need into a folder to build in.
 *
 * @param {import('./kernel.mjs').Kernel} kernel
 * @param {string} id
 * @param {import('./run.mjs').Log} log
 * @returns {Promise<string>} the folder
 */
function buildRoot(kernel, id, log) {
  return cached(join(cacheFolder(), 'roots', id), async (root) => {
    await new Apt(kernel.suite, log).unpack(
      [`linux-headers-${kernel.release}`, 'make', 'libc6-dev'],
      (all) => all,
      root,
    );
    await complete(root);
  });
}

/**
 * Gives a root what an installation would have added: the folders, and the shell and small tools
 * that a kernel build calls, all from the host's static busybox.
 *
 * @param {string} root
 */
async function complete(root) {
  for (const name of ['proc', 'dev', 'tmp']) await mkdir(join(root, name), { recursive: true });
  for (const name of ['bin', 'sbin', 'lib', 'lib64']) {
    await mkdir(join(root, 'usr', name), { recursive: true });
    if (!(await exists(join(root, name)))) await symlink(`usr/${name}`, join(root, name));
  }
  const busybox = /** @type {string} */ (await which('busybox'));
  await copyFile(busybox, join(root, 'usr/bin/busybox'));
  for (const tool of (await run(busybox, ['--list'])).trim().split('\n')) {
    if (!(await exists(join(root, 'usr/bin', tool))))
      await symlink('busybox', join(root, 'usr/bin', tool));
  }
  if (!(await exists(join(root, 'bin/sh'))))
    await symlink('/usr/bin/busybox', join(root, 'bin/sh'));
}

/**
 * @param {string} root
 * @param {string} release
 * @returns {Promise<string>} the headers' folder inside the root
 */
async function headers(root, release) {
  for (const folder of [`/usr/src/linux-headers-${release}`, `/usr/lib/modules/${release}/build`]) {
    if (await exists(join(root, folder, 'Makefile'))) return folder;
  }
  throw new Error(`no kernel headers for ${release} in ${root}`);
}

/**
 * Runs a command in a root with /proc and /dev in it; the mounts are seen by nobody else and end
 * with the command.
 *
 * @param {string} root
 * @param {string[]} command
 */
function insideRoot(root, command) {
  const user = process.getuid?.() === 0 ? [] : ['--map-root-user'];
  const script =
    'mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"';
  return run('unshare', ['--mount', ...user, 'sh', '-c', script, root, ...command], {
    env: { PATH: '/usr/bin:/usr/sbin:/bin:/sbin', HOME: '/tmp', LC_ALL: 'C' },
  });
}
