// @ts-check
/** What the lab needs on the host. */
import { run, stderrLog, which } from './run.mjs';

/** Programs the lab runs, and the Debian package of each. */
const NEEDED = {
  'qemu-system-x86_64': 'qemu-system-x86',
  busybox: 'busybox-static',
  cpio: 'cpio',
  gcc: 'gcc',
  'apt-get': 'apt',
  dpkg: 'dpkg',
  unshare: 'util-linux',
  setpriv: 'util-linux',
  xz: 'xz-utils',
};

/** The C library to link the workload with, statically. */
const LIBRARY = { probe: '-print-file-name=libc.a', package: 'libc6-dev' };

/** @type {Promise<void> | undefined} */
let ready;

/**
 * Makes sure that QEMU and the other programs are there, and installs what is missing (as root, or
 * with `sudo -n`).
 *
 * @param {{ log?: import('./run.mjs').Log }} [options]
 * @returns {Promise<void>}
 * @throws {Error} when something is missing and cannot be installed; the message is the command
 *   that does it
 */
export function ensureHost({ log = stderrLog } = {}) {
  ready ??= ensure(log).catch((error) => {
    ready = undefined;
    throw error;
  });
  return ready;
}

/** @param {import('./run.mjs').Log} log */
async function ensure(log) {
  const packages = await missing();
  if (packages.length === 0) return;
  const command = `apt-get install -y --no-install-recommends ${packages.join(' ')}`;
  const root = process.getuid?.() === 0;
  if (
    !root &&
    !(await run('sudo', ['-n', 'true']).then(
      () => true,
      () => false,
    ))
  )
    throw new Error(`sudo ${command}`);
  log(`installing ${packages.join(' ')}`);
  const [first, ...rest] = [
    ...(root ? [] : ['sudo', '-n']),
    'env',
    'DEBIAN_FRONTEND=noninteractive',
  ];
  const words = command.split(' ');
  try {
    await run(first, [...rest, ...words]);
  } catch {
    // the package lists may be old or absent
    await run(first, [...rest, 'apt-get', 'update']).catch(() => {});
    await run(first, [...rest, ...words]).catch((error) => {
      throw new Error(`sudo ${command}`, { cause: error });
    });
  }
  const left = await missing();
  if (left.length > 0) throw new Error(`sudo apt-get install -y ${left.join(' ')}`);
}

/** The packages that are not there. @returns {Promise<string[]>} */
async function missing() {
  const packages = new Set();
  for (const [program, name] of Object.entries(NEEDED))
    if (!(await which(program))) packages.add(name);
  if (!packages.has('busybox-static') && !(await busyboxIsStatic())) packages.add('busybox-static');
  // gcc prints the bare name when it has no such file
  if (packages.has('gcc') || !(await run('gcc', [LIBRARY.probe])).includes('/'))
    packages.add(LIBRARY.package);
  return [...packages];
}

/** busybox comes in two packages; only the static one runs alone in an initramfs. */
async function busyboxIsStatic() {
  const { readFile } = await import('node:fs/promises');
  const bytes = await readFile(/** @type {string} */ (await which('busybox')));
  // ELF64: e_phoff at 32, e_phentsize at 54, e_phnum at 56; PT_INTERP is 3 (System V ABI, "Program
  // Header")
  const table = Number(bytes.readBigUInt64LE(32));
  for (let i = 0; i < bytes.readUInt16LE(56); i++) {
    if (bytes.readUInt32LE(table + i * bytes.readUInt16LE(54)) === 3) return false;
  }
  return true;
}
