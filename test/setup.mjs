// @ts-check
/**
 * Makes a fresh clone ready: npm packages, the addon and `dist/`. Needs Node, python3, make and g++; no npm package,
 * since it is what installs them.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Installs and builds what is missing or stale. @param {(message: string) => void} log */
export function setUpProject(log) {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    throw new Error(`Node 20.19 or later is needed; this is ${process.versions.node}`);
  }
  const marker = `${root}node_modules/.package-lock.json`;
  if (!existsSync(marker) || statSync(marker).mtimeMs < statSync(`${root}package-lock.json`).mtimeMs - 1000) {
    log('installing npm packages');
    npm(['ci', '--ignore-scripts', '--no-audit', '--no-fund']);
  }
  log('building the addon and dist/');
  npm(['run', existsSync(`${root}build/Makefile`) ? 'build' : 'rebuild', '--silent']);
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
