// @ts-check
/**
 * Kernels as people build them: from Debian's kernel source, one fragment of options a kernel, the
 * oracle built in.
 *
 * Debian's own kernels all bring types and every symbol. These leave out, shrink or shuffle what a
 * look from outside could lean on. Each is `make allnoconfig` plus `kernels/base.config` plus its
 * own fragment, so that it is small and builds in minutes.
 */
import { createHash } from 'node:crypto';
import { appendFile, copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Apt } from './apt.mjs';
import { cached, cacheFolder, exists } from './cache.mjs';
import { run, stderrLog, which } from './run.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
const FRAGMENTS = join(HERE, 'kernels');
const ORACLE = join(HERE, 'oracle');
/** The suite whose `linux-source` package is built. */
const SUITE = 'trixie';
/** Kernels whose options are drawn by lot, the same each time. */
const RANDOM = 5;

/** What a build runs, and the Debian package of each. */
const TOOLS = { make: 'make', gcc: 'gcc', flex: 'flex', bison: 'bison', bc: 'bc', xz: 'xz-utils' };
/** What only some kernels need. @type {Record<string, Record<string, string>>} */
const SPECIAL = {
  CONFIG_DEBUG_INFO_BTF: { pahole: 'dwarves' },
  CONFIG_LTO_CLANG_THIN: { clang: 'clang', 'ld.lld': 'lld', 'llvm-ar': 'llvm' },
};

/**
 * Options that are drawn by lot: each moves, adds or takes away members of the structures that
 * matter.
 */
const DRAWN = [
  'PREEMPT',
  'SCHEDSTATS',
  'SCHED_AUTOGROUP',
  'TASKSTATS',
  'TASK_XACCT',
  'AUDIT',
  'SECCOMP',
  'KEYS',
  'SWAP',
  'COMPACTION',
  'MEMCG',
  'CPUSETS',
  'CGROUP_SCHED',
  'CGROUP_PIDS',
  'USER_NS',
  'IPC_NS',
  'TIME_NS',
  'CHECKPOINT_RESTORE',
  'FUNCTION_TRACER',
  'PROFILING',
  'PERF_EVENTS',
  'LOCKDEP',
  'DEBUG_SPINLOCK',
  'DETECT_HUNG_TASK',
  'LATENCYTOP',
  'FAULT_INJECTION',
  'X86_5LEVEL',
  'IOMMU_SVA',
  'UPROBES',
  'RSEQ',
  'SYSVIPC',
  'NO_HZ_IDLE',
  'BLOCK',
  'NET',
  'INET',
  'TRANSPARENT_HUGEPAGE',
  'USERFAULTFD',
  'KSM',
  'CORE_SCHED',
  'PSI',
];

/** Names of all test kernels. @returns {Promise<string[]>} */
export async function testKernelNames() {
  const names = (await readdir(FRAGMENTS))
    .filter((file) => file.endsWith('.config') && file !== 'base.config')
    .map((file) => file.slice(0, -'.config'.length))
    .sort();
  for (let seed = 1; seed <= RANDOM; seed++) names.push(`random-${seed}`);
  return names;
}

/**
 * @typedef {object} TestKernel
 * @property {string} name
 * @property {string} release as `uname -r` prints it
 * @property {string} vmlinuz path of the bootable image
 * @property {string} vmlinux path of the linked kernel, with its symbols
 * @property {string} config path of the configuration that was built
 */

/**
 * Builds a test kernel, once; later calls give the same one.
 *
 * @param {string} name
 * @param {{ log?: import('./run.mjs').Log }} [options]
 * @returns {Promise<TestKernel>}
 * @throws {Error} when the host lacks a tool; the message names the packages
 */
export async function testKernel(name, { log = stderrLog } = {}) {
  const fragment = await fragmentOf(name);
  await needTools(fragment);
  const source = await sourceTree(log);
  const folder = await folderOf(name, fragment);
  await cached(folder, (temporary) => build(name, fragment, source, temporary, log));
  const release = (await readFile(join(folder, 'release'), 'utf8')).trim();
  return {
    name,
    release,
    vmlinuz: join(folder, 'bzImage'),
    vmlinux: join(folder, 'vmlinux'),
    config: join(folder, 'config'),
  };
}

/** Whether a test kernel is in the cache, so that it need not be built. @param {string} name */
export async function isBuilt(name) {
  return exists(await folderOf(name, await fragmentOf(name)));
}

/** @param {string} name @param {string} fragment */
async function folderOf(name, fragment) {
  const id = createHash('sha256')
    .update(fragment)
    .update(await readFile(join(FRAGMENTS, 'base.config')))
    .update(await oracleText())
    .digest('hex')
    .slice(0, 12);
  return join(cacheFolder(), 'test-kernels', `${name}-${id}`);
}

/** @param {string} name @returns {Promise<string>} its options, without the base's */
async function fragmentOf(name) {
  const seed = /^random-(\d+)$/.exec(name)?.[1];
  if (seed === undefined) return readFile(join(FRAGMENTS, `${name}.config`), 'utf8');
  const next = drawer(Number(seed));
  return DRAWN.filter(() => next() < 0.5)
    .map((option) => `CONFIG_${option}=y\n`)
    .join('');
}

/** Numbers from 0 to 1, the same ones for a seed (mulberry32). @param {number} seed */
function drawer(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** @param {string} fragment */
async function needTools(fragment) {
  /** @type {Record<string, string>} */ const tools = { ...TOOLS };
  for (const [option, more] of Object.entries(SPECIAL)) {
    if (fragment.includes(`${option}=y`)) Object.assign(tools, more);
  }
  const missing = [];
  for (const [tool, name] of Object.entries(tools)) if (!(await which(tool))) missing.push(name);
  // Headers have no program to look for; objtool needs libelf's.
  const libelf = await run('gcc', ['-E', '-x', 'c', '-'], { input: '#include <gelf.h>\n' }).then(
    () => true,
    () => false,
  );
  if (!libelf) missing.push('libelf-dev');
  if (fragment.includes('CONFIG_GCC_PLUGINS=y')) {
    const version = (await run('gcc', ['-dumpversion'])).trim();
    const plugins = (await run('gcc', ['-print-file-name=plugin'])).trim();
    if (!(await readdir(join(plugins, 'include')).catch(() => undefined)))
      missing.push(`gcc-${version.split('.')[0]}-plugin-dev`);
  }
  if (missing.length > 0)
    throw new Error(`apt-get install -y --no-install-recommends ${missing.join(' ')}`);
}

/**
 * Debian's kernel source, with the oracle in it.
 * @param {import('./run.mjs').Log} log
 * @returns {Promise<string>}
 */
async function sourceTree(log) {
  const id = createHash('sha256')
    .update(await oracleText())
    .digest('hex')
    .slice(0, 12);
  const folder = join(cacheFolder(), 'test-kernels', `source-${SUITE}`);
  await cached(folder, async (temporary) => {
    const packages = join(temporary, 'packages');
    await new Apt(SUITE, log).unpack(
      ['linux-source'],
      (all) => all.filter(({ name }) => /^linux-source-\d/.test(name)),
      packages,
    );
    const [archive] = (await readdir(join(packages, 'usr/src'))).filter((file) =>
      file.endsWith('.tar.xz'),
    );
    if (archive === undefined) throw new Error('no source archive in the package');
    log(`unpacking ${archive}`);
    const path = join(packages, 'usr/src', archive);
    await run('tar', ['-xJf', path, '-C', temporary, '--strip-components=1']);
    await rm(packages, { recursive: true });
    await appendFile(join(temporary, 'drivers/Makefile'), '\nobj-y += lab_oracle/\n');
  });
  const place = join(folder, 'drivers/lab_oracle');
  if ((await readFile(join(place, 'id'), 'utf8').catch(() => '')) !== id) {
    await mkdir(place, { recursive: true });
    await copyFile(join(ORACLE, 'oracle.c'), join(place, 'oracle.c'));
    const rules = await readFile(join(ORACLE, 'Kbuild'), 'utf8');
    await writeFile(join(place, 'Makefile'), rules.replace('obj-m', 'obj-y'));
    await writeFile(join(place, 'id'), id);
  }
  return folder;
}

/** @returns {Promise<string>} what the oracle is made of */
const oracleText = async () =>
  (await readFile(join(ORACLE, 'oracle.c'), 'utf8')) +
  (await readFile(join(ORACLE, 'Kbuild'), 'utf8'));

/**
 * @param {string} name
 * @param {string} fragment
 * @param {string} source
 * @param {string} folder where the results go
 * @param {import('./run.mjs').Log} log
 */
async function build(name, fragment, source, folder, log) {
  const work = `${folder}.build`;
  const options = [
    await readFile(join(FRAGMENTS, 'base.config'), 'utf8'),
    fragment,
    `CONFIG_LOCALVERSION="-${name}"\n`,
  ];
  const clang = fragment.includes('# compiler: clang') ? ['LLVM=1'] : [];
  /** @param {string[]} goals */
  const make = (goals) =>
    run('nice', ['make', '-s', '-C', source, `O=${work}`, ...clang, ...goals], {
      env: { ...process.env, KCONFIG_ALLCONFIG: join(work, 'wanted'), LC_ALL: 'C' },
    });
  const started = Date.now();
  log(`building the test kernel ${name}`);
  try {
    await mkdir(work, { recursive: true });
    await mkdir(folder, { recursive: true });
    await writeFile(join(work, 'wanted'), options.join(''));
    await make(['allnoconfig']);
    await make([`-j${availableParallelism()}`, 'bzImage']);
    await copyFile(join(work, 'arch/x86/boot/bzImage'), join(folder, 'bzImage'));
    await copyFile(join(work, 'vmlinux'), join(folder, 'vmlinux'));
    await copyFile(join(work, '.config'), join(folder, 'config'));
    await copyFile(join(work, 'include/config/kernel.release'), join(folder, 'release'));
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  log(`built ${name} in ${Math.round((Date.now() - started) / 1000)} s`);
}
