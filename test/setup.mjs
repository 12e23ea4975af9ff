// @ts-check
/**
 * Makes a fresh clone ready: npm packages, the addon and `dist/`. Needs Node, python3, make and
 * g++; no npm package, since it is what installs them.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** What the addon is built from, and what dist/ is. */
const ADDON = { built: 'build/Release/vmi_addon.node', from: ['native', 'binding.gyp'] };
const DIST = {
  built: 'dist/index.js',
  from: ['lib', 'types', 'tsconfig.json', 'tsconfig.build.json'],
};

/**
 * Installs and builds what is missing or stale, and nothing else.
 * @param {(message: string) => void} log
 */
export function setUpProject(log) {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    throw new Error(`Node 20.19 or later is needed; this is ${process.versions.node}`);
  }
  const marker = `${root}node_modules/.package-lock.json`;
  if (
    !existsSync(marker) ||
    statSync(marker).mtimeMs < statSync(`${root}package-lock.json`).mtimeMs - 1000
  ) {
    log('installing npm packages');
    npm(['ci', '--ignore-scripts', '--no-audit', '--no-fund']);
  }
  if (stale(ADDON)) {
    log('building the addon and dist/');
    npm(['run', existsSync(`${root}build/Makefile`) ? 'build' : 'rebuild']);
  } else if (stale(DIST)) {
    log('building dist/');
    npm(['run', 'build:ts']);
  }
}

/**
 * Whether it is not there, or a file that it is built from is newer.
 * @param {typeof ADDON} target
 */
function stale({ built, from }) {
  if (!existsSync(root + built)) return true;
  const made = statSync(root + built).mtimeMs;
  return from.some((path) => newest(root + path) > made);
}

/** When a file, or the newest in a folder, was changed. @param {string} path @returns {number} */
function newest(path) {
  const stats = statSync(path);
  if (!stats.isDirectory()) return stats.mtimeMs;
  return Math.max(0, ...readdirSync(path).map((name) => newest(join(path, name))));
}

/** @param {string[]} args */
function npm(args) {
  const { status, stdout, stderr, error } = spawnSync('npm', args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`npm ${args.join(' ')} failed:\n${stdout}\n${stderr}`);
}
