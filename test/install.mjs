// @ts-check
/**
 * Installs the package in bare Debian systems, and lists the tasks of a guest there: no network, no
 * compiler, nothing but Node and npm beside it, and no script that runs.
 *
 *   npm run --silent test:install [-- --suite SUITE]… [-- --node MAJOR]… [-- --npm MAJOR]… [--
 *   --package FILE]
 *
 * Needs root (chroot, unshare) and debootstrap, and for arm64 qemu-user-static; what is missing is
 * said. The systems are kept in the lab's cache, with nothing of the package in them.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { copyFile, link, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { mirror } from './lab/apt.mjs';
import { cached, cacheFolder } from './lab/cache.mjs';
import { bootGuest } from './lab/guest.mjs';
import { MAJORS, nodeOf, npmOf } from './lab/node.mjs';
import { run, which } from './lab/run.mjs';

const { values } = parseArgs({
  options: {
    suite: { type: 'string', multiple: true, default: ['bullseye', 'bookworm', 'trixie'] },
    node: { type: 'string', multiple: true, default: MAJORS },
    npm: { type: 'string', multiple: true, default: ['10', '12'] },
    package: { type: 'string' },
  },
});
const root = fileURLToPath(new URL('..', import.meta.url));
const log = (/** @type {string} */ message) => console.error(`• ${message}`);
const lacks = [];
if (process.getuid?.() !== 0) lacks.push('root');
for (const tool of ['debootstrap', 'unshare'])
  if ((await which(tool)) === undefined) lacks.push(tool);
if (lacks.length > 0) {
  console.log(`test:install: skipped, this needs ${lacks.join(' and ')}`);
  process.exit(0);
}

const scratch = await mkdtemp(join(tmpdir(), 'node-libvmi-install-'));
let failed = 0;
try {
  const archive = values.package ? resolve(values.package) : await pack();
  const guest = join(scratch, 'guest.ram');
  const tasks = await copyOfGuest(guest);
  console.log('system     Node      npm       install and vmi ps   of it npm   tasks');
  for (const suite of values.suite) {
    const system = await bareSystem(suite);
    for (const major of values.node) {
      for (const npmMajor of values.npm) await inSystem(suite, system, major, npmMajor, archive);
    }
  }
  await onArm64(archive, guest, tasks);

  /**
   * One row of the table.
   * @param {string} suite
   * @param {string} system
   * @param {string} major
   * @param {string} npmMajor
   * @param {string} archive
   */
  async function inSystem(suite, system, major, npmMajor, archive) {
    const node = await nodeOf(major, log);
    const npm = await npmOf(npmMajor, log);
    const head = `${suite.padEnd(10)} ${(node?.version ?? major).padEnd(9)} ${(npm?.version ?? npmMajor).padEnd(9)} `;
    if (node === undefined || npm === undefined)
      return console.log(`${head}skipped, the npm registry has none`);
    const home = join(system, 'try');
    try {
      await mkdir(join(home, 'bin'), { recursive: true });
      await link(guest, join(home, 'guest.ram')).catch(() =>
        copyFile(guest, join(home, 'guest.ram')),
      );
      await copyFile(archive, join(home, 'node-libvmi.tgz'));
      await copyFile(node.program, join(home, 'bin', 'node'));
      await run('cp', ['-r', npm.folder, join(home, 'npm')]);
      await writeFile(join(home, 'package.json'), '{ "name": "consumer", "private": true }\n');
      const commands = [
        'exec 2>&1; set -e; mount -t proc proc /proc; cd /try; export HOME=/try PATH=/try/bin:/usr/bin:/bin',
        'node /try/npm/bin/npm-cli.js install ./node-libvmi.tgz --offline --no-audit --no-fund --loglevel=warn --foreground-scripts',
        'date +%s.%N; ./node_modules/.bin/vmi ps image:/try/guest.ram',
      ];
      const start = Date.now();
      const { status, stdout } = spawnSync(
        'unshare',
        [
          '--net',
          '--mount',
          '--pid',
          '--fork',
          `--root=${system}`,
          '/bin/sh',
          '-c',
          commands.join('\n'),
        ],
        { encoding: 'utf8', env: {} },
      );
      const seconds = (Date.now() - start) / 1e3;
      const [installed = '', stamp = '', listed = ''] = stdout.split(/^(\d{10}\.\d{9})\n/m);
      const rows = listed.trim().split('\n').length - 1;
      if (/does not support Node\.js/.test(installed))
        return console.log(`${head}skipped, this npm does not support this Node`);
      const scripts = status === 0 ? await installScripts(join(home, 'node_modules')) : [];
      const wrong =
        status !== 0
          ? `ended with ${status}: ${stdout.trim().split('\n').slice(0, 4).join(' | ')}`
          : rows !== tasks
            ? `${rows} tasks, and the guest has ${tasks}`
            : scripts.length > 0 || /install script|rebuild/i.test(installed)
              ? `scripts: ${scripts.join(', ')} ${installed}`
              : undefined;
      if (wrong !== undefined) failed++;
      const of = Number(stamp) - start / 1e3;
      console.log(
        wrong !== undefined
          ? `${head}FAILED: ${wrong}`
          : `${head}${`${seconds.toFixed(1)} s`.padStart(15)}${`${of.toFixed(1)} s`.padStart(15)}${String(rows).padStart(8)}`,
      );
    } finally {
      await rm(home, { recursive: true, force: true });
    }
  }
} finally {
  await rm(scratch, { recursive: true, force: true });
}
if (failed > 0) process.exitCode = 1;

/** The package of this checkout. @returns {Promise<string>} its path */
async function pack() {
  log('packing the package');
  await run('npm', ['pack', '--silent', '--pack-destination', scratch], { cwd: root });
  const [name = ''] = (await readdir(scratch)).filter((one) => one.endsWith('.tgz'));
  return join(scratch, name);
}

/**
 * The RAM of a guest, as a file.
 * @param {string} path
 * @returns {Promise<number>} how many tasks it has
 */
async function copyOfGuest(path) {
  log('booting a guest');
  const lab = await bootGuest({ suite: 'bookworm', memory: 192, cpus: 1, backend: 'file', log });
  try {
    await lab.stop();
    await run('cp', ['--sparse=always', lab.memoryPath ?? '', path]);
  } finally {
    await lab.close();
  }
  const vmi = join(root, 'dist', 'bundle', 'cli', 'vmi.cjs');
  const listed = await run(process.execPath, [vmi, 'ps', `image:${path}`]);
  return listed.trim().split('\n').length - 1;
}

/** A Debian with nothing in it. @param {string} suite @returns {Promise<string>} its folder */
async function bareSystem(suite) {
  return cached(join(cacheFolder(), 'systems', suite), async (temporary) => {
    log(`making a bare ${suite}`);
    // Node 26 itself needs libatomic.
    const minimal = ['--variant=minbase', '--include=libatomic1'];
    await run('debootstrap', [...minimal, suite, temporary, await mirror()]);
    await rm(join(temporary, 'var/cache/apt'), { recursive: true, force: true });
  });
}

/** Packages that ask npm to run something. @param {string} modules @returns {Promise<string[]>} */
async function installScripts(modules) {
  const found = [];
  for (const path of await readdir(modules, { recursive: true })) {
    if (!/(^|node_modules\/)(@[^/]+\/)?[^/]+\/package\.json$/.test(path)) continue;
    const { name, scripts = {}, gypfile } = JSON.parse(await readFile(join(modules, path), 'utf8'));
    const own = ['preinstall', 'install', 'postinstall'].filter((script) => script in scripts);
    const builds = existsSync(join(modules, path, '../binding.gyp')) && gypfile !== false;
    if (own.length > 0 || builds) found.push(`${name}: ${own.join(', ') || 'node-gyp rebuild'}`);
  }
  return found;
}

/**
 * The binary for arm64, under emulation, with npm's own Node.
 * @param {string} archive
 * @param {string} guest
 * @param {number} tasks
 */
async function onArm64(archive, guest, tasks) {
  const head = 'arm64      ';
  const emulator = await which('qemu-aarch64-static');
  const base = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache');
  const system = join(base, 'node-libvmi', 'sysroots', 'bullseye-arm64', 'root');
  if (emulator === undefined || !existsSync(system))
    return console.log(`${head}skipped, this needs qemu-user-static and npm run prebuild-addon`);
  const node = await nodeOf('20', log, 'arm64');
  if (node === undefined) return console.log(`${head}skipped, the npm registry has no Node for it`);
  const into = join(scratch, 'arm64');
  await mkdir(into);
  await run('tar', ['-xzf', archive, '-C', into]);
  const vmi = join(into, 'package', 'dist', 'bundle', 'cli', 'vmi.cjs');
  const words = ['-L', system, node.program, vmi, 'ps', `image:${guest}`];
  const start = Date.now();
  const { status, stdout, stderr } = spawnSync(emulator, words, { encoding: 'utf8' });
  const rows = stdout.trim().split('\n').length - 1;
  const good = status === 0 && rows === tasks;
  if (!good) failed++;
  const seconds = `${((Date.now() - start) / 1e3).toFixed(1)} s`;
  console.log(
    good
      ? `${head}${node.version.padEnd(20)}${seconds.padStart(15)}${String(rows).padStart(23)}   vmi ps alone, emulated`
      : `${head}${node.version} FAILED: ended with ${status}, ${rows} of ${tasks} tasks: ${stderr.trim().slice(-300)}`,
  );
}
