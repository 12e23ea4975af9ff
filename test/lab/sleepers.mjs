// @ts-check
/** Programs that sleep at the end of known calls, and a debugger to run inside a guest. */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, realpath } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Apt } from './apt.mjs';
import { cached, cacheFolder } from './cache.mjs';
import { run, stderrLog } from './run.mjs';

const SOURCES = join(dirname(fileURLToPath(import.meta.url)), 'sleepers');
/** Options of each build. @type {Record<string, string[]>} */
const BUILDS = {
  pie: ['-O0'],
  fixed: ['-O0', '-no-pie', '-fno-pie'],
  static: ['-O0', '-static'],
  'static-pie': ['-O0', '-static-pie'],
  optimised: ['-O2'],
};
export const MODES = ['deep', 'handler', 'threads', 'wait'];
/** The suite whose debugger runs in guests. */
const SUITE = 'bookworm';

/**
 * Builds the programs. Where the host has no 32-bit libraries that does not matter: that program
 * uses none.
 * @param {import('./run.mjs').Log} [log]
 * @returns {Promise<string>} the folder they are in
 */
async function programs(log = stderrLog) {
  const hash = createHash('sha256').update(JSON.stringify(BUILDS));
  for (const name of (await readdir(SOURCES)).sort())
    hash.update(await readFile(join(SOURCES, name)));
  const folder = join(cacheFolder(), 'sleepers', hash.digest('hex').slice(0, 16));
  return cached(folder, async (temporary) => {
    log('building the sleepers');
    await mkdir(temporary);
    const source = (/** @type {string} */ name) => join(SOURCES, name);
    const library = join(temporary, 'liboutside.so');
    await run('gcc', ['-shared', '-fPIC', '-g', '-O0', '-o', library, source('outside.c')]);
    for (const [name, options] of Object.entries(BUILDS)) {
      const outside = name.startsWith('static')
        ? [source('outside.c')]
        : ['-L', temporary, '-loutside', '-Wl,-rpath,$ORIGIN'];
      await run('gcc', [
        ...['-g', '-pthread', ...options, '-o', join(temporary, name), source('sleepers.c')],
        ...outside,
      ]);
    }
    await run('gcc', [
      ...['-m32', '-g', '-O0', '-nostdlib', '-static', '-fno-pie', '-no-pie'],
      ...['-fno-stack-protector', '-o', join(temporary, 'compat'), source('compat.c')],
    ]);
  });
}

/**
 * gdb with its libraries, unpacked.
 * @param {import('./run.mjs').Log} [log]
 * @returns {Promise<string>}
 */
function gdbInside(log = stderrLog) {
  return cached(join(cacheFolder(), 'debugger', SUITE), async (temporary) => {
    await new Apt(SUITE, log).unpack(['gdb-minimal'], (all) => all, temporary);
  });
}

/**
 * Libraries of a program by the name it asks for them.
 * @param {string} text of `ldd`
 * @returns {string[]}
 */
const libraries = (text) => [...text.matchAll(/\s(\/\S+) \(0x/g)].map(([, path = '']) => path);

/**
 * What a guest of {@link import('./guest.mjs').bootGuest} needs as `files`, and where the same
 * files are here.
 *
 * @param {{ log?: import('./run.mjs').Log, inside?: boolean }} [options] inside: with a debugger in
 *   the guest
 * @returns {Promise<{ files: Record<string, string>, folder: string, debug: string, start: string
 *   }>} folder: of the programs; debug: the command that runs gdb in the guest; start: the line for
 *   the guest's shell that starts all
 */
export async function sleepers({ log = stderrLog, inside = false } = {}) {
  const folder = await programs(log);
  /** @type {Record<string, string>} */ const files = {};
  for (const name of await readdir(folder)) files[`sleepers/${name}`] = join(folder, name);
  const text = await run('ldd', [join(folder, 'pie')]);
  for (const path of libraries(text))
    if (!path.startsWith(folder)) files[path.slice(1)] = await realpath(path);
  const loader = 'lib64/ld-linux-x86-64.so.2';
  const places = ['lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu'];
  if (inside) {
    const root = await gdbInside(log);
    const path = places.map((place) => join(root, place)).join(':');
    const program = join(root, 'usr/bin/gdb');
    const own = await run(join(root, loader), ['--library-path', path, '--list', program]);
    for (const name of [join(root, loader), program, ...libraries(own)])
      if (name.startsWith(root)) files[`debugger${name.slice(root.length)}`] = await realpath(name);
  }
  const within = places.map((place) => `/debugger/${place}`).join(':');
  const all = [
    ...Object.keys(BUILDS).flatMap((build) => MODES.map((mode) => `${build} ${mode}`)),
    'compat',
  ];
  return {
    files,
    folder,
    debug: `/debugger/${loader} --library-path ${within} /debugger/usr/bin/gdb -nx -batch`,
    start: `${all.map((line) => `/sleepers/${line} </dev/null >/dev/null 2>&1 &`).join(' ')} sleep 1`,
  };
}
