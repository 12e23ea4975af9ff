// @ts-check
/**
 * Joins what tsc made of lib/ into few files, dist/bundle: to find and read some two hundred takes
 * Node longer than to attach. Entries share their code, so that an error is of one class wherever
 * it was imported from. dist/ keeps the modules themselves, for the programs that the library
 * starts and for whoever reads them.
 *
 * `vmi` is CommonJS besides, in two files whose compiled code can be kept: lib/cli/start.ts says
 * how and why.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { relative } from 'node:path';
import { build, transform } from 'esbuild';

const root = new URL('..', import.meta.url);
const bundle = new URL('dist/bundle/', root);
rmSync(bundle, { recursive: true, force: true });
/** @type {import('esbuild').BuildOptions} */
const common = {
  absWorkingDir: root.pathname,
  bundle: true,
  platform: 'node',
  target: 'node20.19',
  packages: 'external',
  logLevel: 'warning',
};
await build({
  ...common,
  entryPoints: [
    'dist/index.js',
    'dist/helpers/index.js',
    'dist/libvmi/index.js',
    'dist/cli/main.js',
  ],
  outdir: 'dist/bundle',
  outbase: 'dist',
  splitting: true,
  format: 'esm',
  sourcemap: true,
  keepNames: true,
});

// `vmi`: what every command needs in one file, what only some load in another.
const { outputFiles, metafile } = await build({
  ...common,
  entryPoints: ['dist/cli/main.js'],
  outdir: 'dist/bundle/cli',
  write: false,
  metafile: true,
  splitting: true,
  format: 'esm',
  define: { 'import.meta.url': 'moduleUrl' },
});
const first = reached('dist/bundle/cli/main.js');
const program = await join((path) => first.has(path));
const rest = await join((path) => !first.has(path));
writeFileSync(new URL('cli/program.cjs', bundle), program);
writeFileSync(new URL('cli/rest.cjs', bundle), rest);
const id = createHash('sha256').update(program).update(rest).digest('hex').slice(0, 16);
await build({
  ...common,
  entryPoints: ['dist/cli/start.js'],
  outfile: 'dist/bundle/cli/vmi.cjs',
  format: 'cjs',
  define: { BUILD: JSON.stringify(id), 'import.meta.dirname': '__dirname' },
});

// The manual page, which npm puts where `man vmi` finds it when the package is installed globally.
const { COMMANDS } = await import('../dist/cli/commands.js');
const { manPage } = await import('../dist/cli/man-page.js');
mkdirSync(new URL('dist/man', root), { recursive: true });
writeFileSync(new URL('dist/man/vmi.1', root), manPage(COMMANDS));

/** Files that are loaded with this one. @param {string} path @returns {Set<string>} */
function reached(path, found = new Set([path])) {
  for (const { path: next, kind } of metafile.outputs[path]?.imports ?? []) {
    if (kind !== 'import-statement' || found.has(next) || !(next in metafile.outputs)) continue;
    reached(next, found.add(next));
  }
  return found;
}

/**
 * One file of those modules: a function of `require` and the file's URL that gives each as a
 * function of what a module of CommonJS is given. It is ASCII, so that it takes a byte a character.
 * @param {(path: string) => boolean} isIn @returns {Promise<string>}
 */
async function join(isIn) {
  const modules = [];
  for (const { path, text } of outputFiles) {
    const output = relative(root.pathname, path);
    if (!isIn(output)) continue;
    const { code } = await transform(text, {
      format: 'cjs',
      target: common.target,
      minifyWhitespace: true,
      // To become a call of `require`, which gives modules of these files.
      supported: { 'dynamic-import': false },
    });
    const name = JSON.stringify(`./${relative('dist/bundle/cli', output)}`);
    modules.push(`${name}:function(require,exports,module){${code}}`);
  }
  return ascii(
    lazy(`(function(require,moduleUrl){"use strict";return{${modules.join(',\n')}}})\n`),
  );
}

/**
 * Lets a module of Node or of a package be loaded when it is first used, which most are not by any
 * one command. esbuild keeps each in a variable, and names its exports as that variable's
 * properties.
 * @param {string} code @returns {string}
 */
function lazy(code) {
  /** @type {Map<string, string>} what each variable was given */
  const variables = new Map();
  const without = code.replace(
    /\b(import_[\w$]+)=(__toESM\(require\("[^"]+"\),1\)|require\("[^"]+"\))/g,
    (_, name, value) => {
      variables.set(name, value);
      return `${name}=0`;
    },
  );
  const values = [...new Set(variables.values())];
  const modules = values.map(
    (value, i) =>
      `get m${i}(){const m=${value};Object.defineProperty(lazy,"m${i}",{value:m});return m}`,
  );
  const used = without.replace(/\bimport_[\w$]+(?=\.)/g, (name) => {
    const value = variables.get(name);
    return value === undefined ? name : `lazy.m${values.indexOf(value)}`;
  });
  return used.replace('"use strict";', `"use strict";const lazy={${modules.join(',')}};`);
}

/**
 * Escapes what is not ASCII. esbuild does in strings; regular expressions are left.
 * @param {string} code
 */
function ascii(code) {
  return code.replace(
    /[\u0080-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
