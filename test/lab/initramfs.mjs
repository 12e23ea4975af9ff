// @ts-check
/** The initramfs of a lab guest: busybox, the workload, the oracle, and init. */
import { createHash } from 'node:crypto';
import { chmod, copyFile, mkdir, readFile, rm, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cached, cacheFolder } from './cache.mjs';
import { run, stderrLog, which } from './run.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));

/**
 * Returns an initramfs that boots into the workload and serves the oracle.
 *
 * @param {string | undefined} module path of `oracle.ko`; none where the kernel has the oracle
 *   built in
 * @param {{ log?: import('./run.mjs').Log, files?: Record<string, string> | undefined }} [options]
 *   files: what else is in it, the host's path by the guest's
 * @returns {Promise<string>} path of an uncompressed cpio archive, which boots quickest
 */
export async function initramfs(module, { log = stderrLog, files = {} } = {}) {
  const init = join(HERE, 'init.sh');
  const worker = await workload(log);
  const busybox = /** @type {string} */ (await which('busybox'));
  const hash = createHash('sha256').update(worker);
  for (const file of [...(module ? [module] : []), init, busybox])
    hash.update(await readFile(file));
  for (const [name, file] of Object.entries(files)) hash.update(name).update(await readFile(file));
  const path = join(cacheFolder(), 'initramfs', `${hash.digest('hex').slice(0, 16)}.cpio`);
  return cached(path, async (temporary) => {
    const root = `${temporary}.root`;
    try {
      for (const folder of ['bin', 'proc', 'sys', 'dev', 'run', 'tmp'])
        await mkdir(join(root, folder), { recursive: true });
      await copyFile(busybox, join(root, 'bin/busybox'));
      for (const applet of (await run(busybox, ['--list'])).trim().split('\n')) {
        if (applet !== 'busybox') await symlink('busybox', join(root, 'bin', applet));
      }
      await copyFile(init, join(root, 'init'));
      await chmod(join(root, 'init'), 0o755);
      await copyFile(worker, join(root, 'workload'));
      if (module) await copyFile(module, join(root, 'oracle.ko'));
      for (const [name, file] of Object.entries(files)) {
        await mkdir(dirname(join(root, name)), { recursive: true });
        await copyFile(file, join(root, name));
      }
      await run('sh', [
        '-c',
        'cd "$0" && find . | cpio --quiet -o -H newc -R 0:0 > "$1"',
        root,
        temporary,
      ]);
    } finally {
      await rm(root, { recursive: true, force: true });
    }
  });
}

/**
 * What a guest needs to start another kernel when its own crashes: the kernel, an initramfs and
 * what loads both.
 *
 * @param {string} vmlinuz
 * @param {string} initrd
 * @param {{ log?: import('./run.mjs').Log }} [options]
 * @returns {Promise<Record<string, string>>} files for {@link initramfs}
 */
export async function crashFiles(vmlinuz, initrd, { log = stderrLog } = {}) {
  return { kexec: await initramfsProgram('kexec', log), vmlinuz, 'crash.cpio': initrd };
}

/**
 * Builds the workload, static.
 * @param {import('./run.mjs').Log} log
 * @returns {Promise<string>} path of the program
 */
const workload = (log) => initramfsProgram('workload', log);

/**
 * Builds a program of the lab, static.
 *
 * @param {string} source its name
 * @param {import('./run.mjs').Log} log
 * @returns {Promise<string>}
 */
export async function initramfsProgram(source, log) {
  const path = join(HERE, `${source}.c`);
  const name = createHash('sha256')
    .update(await readFile(path))
    .digest('hex')
    .slice(0, 16);
  return cached(join(cacheFolder(), source, name), async (temporary) => {
    log(`building ${source}`);
    await run('gcc', ['-static', '-O2', '-Wall', '-s', '-pthread', '-o', temporary, path]);
  });
}
