#!/usr/bin/env node
// @ts-check
/**
 * Builds the native addon from source, where no binary came with the package for this host, as on
 * musl: `npx node-libvmi-build`. Nothing of this is run by an install.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** What node-gyp needs, and the name of its package where that is another. */
const TOOLS = [
  { command: process.env.PYTHON ?? 'python3', debian: 'python3', alpine: 'python3' },
  { command: 'make', debian: 'make', alpine: 'make' },
  { command: process.env.CXX ?? 'g++', debian: 'g++', alpine: 'g++ linux-headers' },
];

const missing = TOOLS.filter(
  ({ command }) => spawnSync(command, ['--version'], { stdio: 'ignore' }).error !== undefined,
);
if (missing.length > 0) {
  const names = missing.map(({ command }) => command).join(', ');
  const alpine = existsSync('/etc/alpine-release');
  const packages = missing.map((tool) => (alpine ? tool.alpine : tool.debian)).join(' ');
  const install = alpine ? `apk add ${packages}` : `sudo apt-get install ${packages}`;
  console.error(`node-libvmi-build: ${names} is not installed: ${install}`);
  process.exit(1);
}

const [command, ...words] = nodeGyp();
const { status, error } = spawnSync(command, [...words, 'rebuild', '--directory', root], {
  stdio: 'inherit',
});
if (error !== undefined || status !== 0) {
  console.error(
    `node-libvmi-build: the build failed${error === undefined ? '' : `: ${error.message}`}`,
  );
  process.exit(1);
}
console.error(`node-libvmi-build: built ${join(root, 'build', 'Release', 'vmi_addon.node')}`);

/**
 * The project's own node-gyp, the one that npm has, or one that npx fetches.
 * @returns {[string, ...string[]]}
 */
function nodeGyp() {
  const require = createRequire(import.meta.url);
  const npm = process.env.npm_execpath ?? '';
  const places = [
    () => require.resolve('node-gyp/bin/node-gyp.js'),
    () => join(dirname(npm), '..', 'node_modules', 'node-gyp', 'bin', 'node-gyp.js'),
    () =>
      join(
        dirname(process.execPath),
        '../lib/node_modules/npm/node_modules/node-gyp/bin/node-gyp.js',
      ),
  ];
  for (const place of places) {
    try {
      const path = place();
      if (existsSync(path)) return [process.execPath, path];
    } catch {
      // Not there: the next.
    }
  }
  return ['npx', '--yes', 'node-gyp'];
}
