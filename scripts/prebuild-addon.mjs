// @ts-check
/**
 * Builds the addon for hosts without a compiler: `prebuilds/linux-x64` and `prebuilds/linux-arm64`,
 * as node-gyp-build finds them. Needs clang++, lld and apt; links against Debian 11's libc, so that
 * it loads wherever there is glibc 2.31 or later, and with libstdc++ in it.
 *
 * `node scripts/prebuild-addon.mjs [--stale] [x64] [arm64]`; `--stale` leaves those that are newer
 * than what they are made of. The same sources give the same bytes wherever they are.
 */
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, homedir, tmpdir } from 'node:os';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { mirror } from '../test/lab/apt.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const require = createRequire(import.meta.url);

/** Node's names, Debian's, and the compiler's. */
const ARCHITECTURES = /** @type {const} */ ({
  x64: { debian: 'amd64', target: 'x86_64-linux-gnu' },
  arm64: { debian: 'arm64', target: 'aarch64-linux-gnu' },
});
/** Debian 11: glibc 2.31, the oldest that is looked after. */
const SUITE = 'bullseye';
const PACKAGES = [
  'libc6',
  'libc6-dev',
  'libgcc-10-dev',
  'libgcc-s1',
  'libstdc++-10-dev',
  'libstdc++6',
  'linux-libc-dev',
];
/** Newest version of glibc's symbols that a binary may ask for. */
const GLIBC = [2, 31];
/** Bytes that both binaries of one architecture may take in the package. */
const MAX_BYTES = 3 << 20;

/** @typedef {keyof typeof ARCHITECTURES} Architecture */
/**
 * @typedef {{ target_name: string, type?: string, sources: string[], include_dirs: string[],
 * defines: string[], ldflags?: string[], libraries?: string[] }} GypTarget
 */

const hasCcache = spawnSync('ccache', ['--version']).error === undefined;
const words = process.argv.slice(2);
const wanted = words.filter((word) => word !== '--stale');
const all = /** @type {Architecture[]} */ (Object.keys(ARCHITECTURES));
for (const one of wanted)
  if (!all.includes(/** @type {Architecture} */ (one)))
    throw new RangeError(`Expected ${all.join(' or ')} but received ${one}`);
for (const arch of all.filter((one) => wanted.length === 0 || wanted.includes(one)))
  if (!words.includes('--stale') || isStale(arch)) await build(arch);

/** Whether a binary is missing, or older than what it is made of. @param {Architecture} arch */
function isStale(arch) {
  const made = binaries(arch).map((path) => (existsSync(path) ? statSync(path).mtimeMs : 0));
  const sources = /** @type {string[]} */ (readdirSync(join(root, 'native'), { recursive: true }));
  const from = ['binding.gyp', ...sources.map((path) => join('native', path))];
  return Math.min(...made) < Math.max(...from.map((path) => statSync(join(root, path)).mtimeMs));
}

/**
 * @param {Architecture} arch
 * @returns {string[]} paths of the addon and of the program beside it
 */
function binaries(arch) {
  return ['node-libvmi.glibc.node', 'libvmi_host'].map((name) =>
    join(root, 'prebuilds', `linux-${arch}`, name),
  );
}

/** @param {string} command @param {string[]} args @param {string} [cwd] */
function run(command, args, cwd = root) {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd,
    encoding: 'utf8',
    maxBuffer: 64 << 20,
  });
  if (error !== undefined) throw new Error(`cannot run ${command}: ${error.message}`);
  if (status !== 0)
    throw new Error(`${command} ${args.join(' ')} ended with ${status}:\n${stderr}`);
  return stdout;
}

/** Debian 11's libraries and headers, without installing any of them. @param {Architecture} arch */
async function sysroot(arch) {
  const { debian } = ARCHITECTURES[arch];
  const cache = process.env.XDG_CACHE_HOME || join(homedir(), '.cache');
  const folder = join(cache, 'node-libvmi', 'sysroots', `${SUITE}-${debian}`);
  if (existsSync(join(folder, 'ready'))) return join(folder, 'root');
  for (const part of ['lists/partial', 'cache/archives/partial', 'debs', 'root'])
    mkdirSync(join(folder, part), { recursive: true });
  writeFileSync(join(folder, 'status'), '');
  const key = '/usr/share/keyrings/debian-archive-keyring.gpg';
  const signed = existsSync(key) ? ` signed-by=${key}` : '';
  writeFileSync(
    join(folder, 'sources.list'),
    `deb [arch=${debian}${signed}] ${await mirror()} ${SUITE} main\n`,
  );
  const options = [
    `Dir::Etc::sourcelist=${folder}/sources.list`,
    'Dir::Etc::sourceparts=-',
    `Dir::State=${folder}`,
    `Dir::State::lists=${folder}/lists`,
    `Dir::State::status=${folder}/status`,
    `Dir::Cache=${folder}/cache`,
    `APT::Architecture=${debian}`,
    `APT::Architectures=${debian}`,
    'APT::Sandbox::User=',
    'Acquire::Check-Valid-Until=false',
  ].flatMap((option) => ['-o', option]);
  run('apt-get', [...options, 'update', '--error-on=any']);
  run('apt-get', [...options, 'download', ...PACKAGES], join(folder, 'debs'));
  for (const file of run('ls', [join(folder, 'debs')])
    .split('\n')
    .filter((name) => name.endsWith('.deb')))
    run('dpkg', ['-x', join(folder, 'debs', file), join(folder, 'root')]);
  stayInside(join(folder, 'root'));
  writeFileSync(join(folder, 'ready'), '');
  return join(folder, 'root');
}

/** Turns links to `/lib/…` into links within the folder. @param {string} folder */
function stayInside(folder) {
  for (const path of /** @type {string[]} */ (readdirSync(folder, { recursive: true }))) {
    const link = join(folder, path);
    if (!lstatSync(link).isSymbolicLink()) continue;
    const target = readlinkSync(link);
    if (!target.startsWith('/')) continue;
    rmSync(link);
    symlinkSync(relative(dirname(link), join(folder, target)), link);
  }
}

/** @param {Architecture} arch */
async function build(arch) {
  const { target } = ARCHITECTURES[arch];
  const system = await sysroot(arch);
  const work = mkdtempSync(join(tmpdir(), 'node-libvmi-prebuild-'));
  const folder = join(root, 'prebuilds', `linux-${arch}`);
  mkdirSync(folder, { recursive: true });
  const compiler = [`--target=${target}`, `--sysroot=${system}`, `--gcc-toolchain=${system}/usr`];
  try {
    const gyp = /** @type {{ targets: GypTarget[] }} */ (
      JSON.parse(readFileSync(join(root, 'binding.gyp'), 'utf8'))
    );
    for (const one of gyp.targets) {
      const isAddon = one.type !== 'executable';
      const flags = [
        ...compiler,
        ...[
          '-std=c++17',
          '-O2',
          '-g0',
          '-fexceptions',
          '-fPIC',
          '-fvisibility=hidden',
          '-pthread',
          '-DNDEBUG',
        ],
        ...one.defines.map((define) => `-D${define}`),
        ...(isAddon
          ? [`-DNODE_GYP_MODULE_NAME=${one.target_name}`, '-DBUILDING_NODE_EXTENSION']
          : []),
        // Seen from the checkout: no path of it gets into a binary.
        '-Inative',
        `-I${relative(root, require('node-addon-api').include_dir.replaceAll('"', ''))}`,
        `-I${join(process.execPath, '../../include/node')}`,
        ...nodeHeaders(),
      ];
      const objects = await compile(one.sources, flags, join(work, one.target_name));
      const output = join(folder, isAddon ? 'node-libvmi.glibc.node' : one.target_name);
      run('clang++', [
        ...compiler,
        ...[
          '-fuse-ld=lld',
          '-pthread',
          '-static-libstdc++',
          '-static-libgcc',
          '-Wl,--strip-all',
          '-Wl,--gc-sections',
        ],
        ...(isAddon
          ? [
              '-shared',
              '-Wl,-z,nodelete',
              `-Wl,--version-script=${join(root, 'native/addon/exports.map')}`,
            ]
          : []),
        ...objects,
        ...['-o', output, '-ldl', '-lpthread'],
      ]);
      check(output, target);
    }
  } finally {
    rmSync(work, { recursive: true });
  }
}

/** Headers of Node-API, which are the same on every architecture; where node-gyp keeps them. */
function nodeHeaders() {
  const folder = join(homedir(), '.cache', 'node-gyp', process.versions.node, 'include', 'node');
  return existsSync(folder) ? [`-I${folder}`] : [];
}

/**
 * @param {string[]} sources
 * @param {string[]} flags
 * @param {string} folder
 * @returns {Promise<string[]>} objects
 */
async function compile(sources, flags, folder) {
  mkdirSync(folder, { recursive: true });
  const { spawn } = await import('node:child_process');
  const queue = sources.map((source, i) => ({
    source,
    object: join(folder, `${i}-${basename(source)}.o`),
  }));
  const objects = queue.map(({ object }) => object);
  const worker = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const { source, object } = next;
      const words = ['clang++', ...flags, '-c', source, '-o', object];
      // What was compiled before, in any checkout, is not compiled again.
      const [command = '', ...args] = hasCcache ? ['ccache', ...words] : words;
      const child = spawn(command, args, {
        cwd: root,
        env: { ...process.env, CCACHE_BASEDIR: root, CCACHE_NOHASHDIR: '1' },
        stdio: ['ignore', 'inherit', 'inherit'],
      });
      const code = await new Promise((resolve) => child.once('close', resolve));
      if (code !== 0) throw new Error(`cannot compile ${source}`);
    }
  };
  await Promise.all(Array.from({ length: Math.min(4, availableParallelism()) }, worker));
  return objects;
}

/**
 * What the binary asks of its host, and whether that is too much.
 * @param {string} path
 * @param {string} target
 */
function check(path, target) {
  const objdump = target.startsWith('x86_64') ? 'objdump' : `${target}-objdump`;
  const symbols = run(objdump, ['-T', path]);
  const versions = [...symbols.matchAll(/GLIBC_(\d+)\.(\d+)/g)].map(([, a, b]) => [
    Number(a),
    Number(b),
  ]);
  const newest = versions.reduce(
    (most, one) => (one[0] * 1000 + one[1] > most[0] * 1000 + most[1] ? one : most),
    [2, 0],
  );
  if (newest[0] > GLIBC[0] || newest[1] > GLIBC[1])
    throw new Error(
      `${path} asks for glibc ${newest.join('.')}, and is to load with ${GLIBC.join('.')}`,
    );
  if (/GLIBCXX_/.test(symbols)) throw new Error(`${path} asks for libstdc++, which is to be in it`);
  const { size } = statSync(path);
  if (size > MAX_BYTES) throw new Error(`${path} has ${size} bytes`);
  process.stderr.write(`${path}: ${size} bytes, glibc ${newest.join('.')}\n`);
}
