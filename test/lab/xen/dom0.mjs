// @ts-check
/**
 * What dom0 boots: an initramfs with Xen's tools, Node, this project, and libvmi where this host
 * has it.
 */
import { createHash } from 'node:crypto';
import {
  chmod,
  copyFile,
  cp,
  mkdir,
  readdir,
  readFile,
  realpath,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cached, cacheFolder, exists } from '../cache.mjs';
import { run, which } from '../run.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
const PROJECT = fileURLToPath(new URL('../../..', import.meta.url));

/** Modules of Debian's kernel that dom0 needs; those that they depend on come with them. */
const MODULES = [
  'xenfs',
  'xen-privcmd',
  'xen-evtchn',
  'xen-gntdev',
  'xen-gntalloc',
  'virtio_pci',
  '9pnet_virtio',
  '9p',
];
/** How long an image of dom0 that was built for something else stays, in ms. */
const KEEP = 7 * 24 * 3600 * 1000;
/** Parts of the unpacked packages that dom0 has no use for. */
const LEFT_OUT = /^(boot|version|usr\/share|usr\/lib\/(debug|python3)|etc\/(grub|default|pam))/;

/**
 * Builds the part of dom0 that stays the same from run to run.
 *
 * @param {import('./packages.mjs').Xen} xen
 * @param {import('../kernel.mjs').Kernel} kernel
 * @param {string | undefined} libvmi path of the host's library
 * @param {import('../run.mjs').Log} log
 * @returns {Promise<string>} path of an uncompressed cpio archive
 */
export async function dom0System(xen, kernel, libvmi, log) {
  const busybox = /** @type {string} */ (await which('busybox'));
  const node = process.execPath;
  const hash = createHash('sha256').update(
    `${xen.version} ${kernel.release} ${kernel.version} ${process.version}`,
  );
  for (const file of [busybox, join(HERE, 'init.sh'), fileURLToPath(import.meta.url), libvmi])
    if (file !== undefined) hash.update(file).update(await readFile(file));
  const folder = join(cacheFolder(), 'xen');
  for (const name of await readdir(folder)) {
    const old = join(folder, name);
    if (/^dom0-.*\.cpio$/.test(name) && Date.now() - (await stat(old)).mtimeMs > KEEP)
      await rm(old, { force: true });
  }
  const path = join(folder, `dom0-${hash.digest('hex').slice(0, 16)}.cpio`);
  return cached(path, async (temporary) => {
    log('building the image of dom0');
    const root = `${temporary}.root`;
    try {
      await cp(xen.root, root, {
        recursive: true,
        verbatimSymlinks: true,
        filter: (source) => !LEFT_OUT.test(source.slice(xen.root.length + 1)),
      });
      for (const folder of [
        'bin',
        'sbin',
        'usr/bin',
        'lab',
        'proc',
        'sys',
        'dev',
        'run',
        'tmp',
        'root',
        'var/lib',
        'var/log',
      ])
        await mkdir(join(root, folder), { recursive: true });
      await rm(join(root, 'var/run'), { recursive: true, force: true });
      await symlink('/run', join(root, 'var/run'));
      await copyFile(busybox, join(root, 'bin/busybox'));
      for (const applet of (await run(busybox, ['--list'])).trim().split('\n'))
        if (applet !== 'busybox') await symlink('busybox', join(root, 'bin', applet));
      await copyFile(node, join(root, 'usr/bin/node'));
      await withLibraries(node, root);
      if (libvmi !== undefined) {
        await copyTo(libvmi, join(root, libvmi));
        await withLibraries(libvmi, root);
        await writeFile(join(root, 'libvmi'), libvmi);
      }
      await developmentLinks(root);
      await copyModules(kernel, root);
      await copyFile(join(HERE, 'init.sh'), join(root, 'init'));
      await chmod(join(root, 'init'), 0o755);
      await pack(root, temporary);
    } finally {
      await rm(root, { recursive: true, force: true });
    }
  });
}

/**
 * Packs this project as it is built now, for /project of dom0.
 *
 * @param {string} path of the archive
 */
export async function dom0Project(path) {
  const root = `${path}.root`;
  try {
    const project = join(root, 'project');
    for (const name of [
      'dist',
      'build/Release/vmi_addon.node',
      'build/Release/libvmi_host',
      'package.json',
      ...(await runtimePackages()).map((one) => `node_modules/${one}`),
    ])
      await cp(join(PROJECT, name), join(project, name), { recursive: true, dereference: true });
    await mkdir(join(root, 'usr/bin'), { recursive: true });
    await writeFile(
      join(root, 'usr/bin/vmi'),
      '#!/bin/sh\nexec node /project/dist/cli/main.js "$@"\n',
      {
        mode: 0o755,
      },
    );
    await pack(root, path);
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

/** Names of the packages that this project needs at run time, and of those that they need. */
async function runtimePackages() {
  /** @type {Set<string>} */
  const names = new Set();
  const add = async (/** @type {string} */ folder) => {
    const text = await readFile(join(folder, 'package.json'), 'utf8');
    for (const name of Object.keys(JSON.parse(text).dependencies ?? {})) {
      if (names.has(name)) continue;
      names.add(name);
      await add(join(PROJECT, 'node_modules', name));
    }
  };
  await add(PROJECT);
  return [...names];
}

/** @param {string} root @param {string} path */
async function pack(root, path) {
  await run('sh', ['-c', 'cd "$0" && find . | cpio --quiet -o -H newc -R 0:0 > "$1"', root, path]);
}

/**
 * Copies the host's libraries that a program or library is linked with, and the loader.
 * @param {string} file
 * @param {string} root
 */
async function withLibraries(file, root) {
  for (const [, path] of (await run('ldd', [file])).matchAll(/(?:^|\s)(\/\S+)(?= \(0x)/gm))
    await copyTo(/** @type {string} */ (path), join(root, /** @type {string} */ (path)));
}

/**
 * Copies what a path leads to, in place of whatever is there.
 * @param {string} from
 * @param {string} to
 */
async function copyTo(from, to) {
  await mkdir(dirname(to), { recursive: true });
  await rm(to, { force: true });
  await copyFile(await realpath(from), to);
}

/**
 * libvmi opens `libxenctrl.so` and `libxenstore.so`: names that only the development package has.
 * @param {string} root
 */
async function developmentLinks(root) {
  const folder = join(root, 'usr/lib/x86_64-linux-gnu');
  const names = await readdir(folder);
  for (const library of ['libxenctrl.so', 'libxenstore.so']) {
    const real = names
      .filter((name) => name.startsWith(`${library}.`))
      .sort()
      .at(-1);
    if (real === undefined) throw new Error(`no ${library} among Xen's libraries`);
    if (!(await exists(join(folder, library)))) await symlink(real, join(folder, library));
  }
}

/**
 * Copies modules with what they depend on; `/modules` lists them in the order to load.
 * @param {import('../kernel.mjs').Kernel} kernel
 * @param {string} root
 */
async function copyModules(kernel, root) {
  const from = join(kernel.directory, 'lib/modules', kernel.release);
  /** @type {Map<string, string>} */
  const files = new Map();
  for (const entry of await readdir(from, { recursive: true })) {
    // a module's name has underscores where its file may have hyphens
    if (entry.endsWith('.ko'))
      files.set(basename(entry, '.ko').replaceAll('-', '_'), join(from, entry));
  }
  /** @type {string[]} */
  const order = [];
  const add = async (/** @type {string} */ name) => {
    const file = files.get(name.replaceAll('-', '_'));
    if (file === undefined) return; // built into the kernel
    if (order.includes(file)) return;
    const bytes = await readFile(file);
    const at = bytes.indexOf('\0depends=');
    const depends = at < 0 ? '' : bytes.toString('latin1', at + 9, bytes.indexOf(0, at + 9));
    for (const other of depends.split(',')) if (other !== '') await add(other);
    order.push(file);
  };
  for (const name of MODULES) await add(name);
  await mkdir(join(root, 'lib/modules'), { recursive: true });
  for (const file of order) await copyFile(file, join(root, 'lib/modules', basename(file)));
  await writeFile(
    join(root, 'modules'),
    order.map((file) => `/lib/modules/${basename(file)}\n`).join(''),
  );
}

/**
 * The libvmi that this host has.
 *
 * @returns {Promise<string | undefined>} its path, links kept
 */
export async function hostLibvmi() {
  const own = process.env.LIBVMI_LIBRARY;
  if (own) return own;
  for (const folder of [
    '/usr/local/lib',
    '/usr/local/lib/x86_64-linux-gnu',
    '/usr/lib/x86_64-linux-gnu',
    '/usr/lib',
  ]) {
    const path = join(folder, 'libvmi.so.0');
    if (await exists(path)) return path;
  }
  return undefined;
}
