#!/usr/bin/env node
/**
 * Starts `vmi`. Most of what a short command costs is to find, read and compile code. So the
 * program is two files of CommonJS, one of which has what every command needs, and V8's code for
 * what a command used is kept in the user's cache folder from its second run on.
 *
 * That code is run as it is read. It is taken only from a file that belongs to this user, that
 * nobody else can write to, and that holds it twice, since V8 runs into damaged code blindly. V8
 * refuses the code of another V8; the file's name tells everything else apart.
 * `NODE_DISABLE_COMPILE_CACHE` turns it off, as it does Node's own.
 */
import fs from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Script } from 'node:vm';

/** What tells one build from another; written here by scripts/bundle.mjs. */
declare const BUILD: string;
/** Of this file, which is CommonJS once it is bundled. */
declare const require: NodeJS.Require;

/** Code that is kept: files of some 300 KB, two for each command and kind of target. */
const MAX_FILES = 48;
/** Commands that import modules of the user, which may import this package: there is one of it. */
const IMPORTING = ['run', 'repl'];

type Define = (require: (name: string) => unknown, exports: object, module: object) => void;

const [word = '', target = ''] = process.argv.slice(2);
const kept = keptFile();
const defined: Record<string, Define> = {};
const loaded = new Map<string, { exports: object }>();
if (IMPORTING.includes(word)) {
  import(pathToFileURL(join(import.meta.dirname, 'main.js')).href);
} else {
  define('program');
  load('./main.js');
}

/** A module of either file, or one of Node or of a package. */
function load(name: string): unknown {
  // What loads the addon asks for a `require`: this one will do, and is there already.
  if (name === 'node:module') return { createRequire: () => require };
  if (!name.startsWith('.')) return require(name);
  const known = loaded.get(name);
  if (known !== undefined) return known.exports;
  if (defined[name] === undefined) define('rest');
  const module = { exports: {} };
  loaded.set(name, module);
  defined[name]!(load, module.exports, module);
  return module.exports;
}

/** Compiles one of the two files. */
function define(name: 'program' | 'rest'): void {
  const filename = join(import.meta.dirname, `${name}.cjs`);
  const code = kept === undefined ? undefined : readOwn(`${kept}-${name}`);
  // One byte a character: the bundle is ASCII.
  const script = new Script(fs.readFileSync(filename, 'latin1'), {
    filename,
    ...(code === undefined || code.length === 0 ? {} : { cachedData: code }),
  });
  if (kept !== undefined && (code === undefined || script.cachedDataRejected !== false)) {
    process.once('exit', (status) => {
      // What is used once is not worth its space: an empty file says that it was used.
      const now = code === undefined ? Buffer.alloc(0) : script.createCachedData();
      if (status === 0) keep(`${kept}-${name}`, now);
    });
  }
  Object.assign(defined, script.runInThisContext()(load, pathToFileURL(filename).href));
}

/** Where the code of this command is kept; `undefined`: help, or what is no command. */
function keptFile(): string | undefined {
  if (process.env.NODE_DISABLE_COMPILE_CACHE) return undefined;
  const isHelp = process.argv.some((arg) => arg === '-h' || arg === '--help');
  const command = isHelp ? 'help' : word;
  if (!/^[a-z0-9]+$/.test(command) || (isHelp && !/^-/.test(word))) return undefined;
  const kind = /^[a-z]+(?=:)/.exec(target)?.[0] ?? 'none';
  const base = process.env.XDG_CACHE_HOME || join(homedir(), '.cache');
  const folder = process.env.NODE_LIBVMI_CACHE || join(base, 'node-libvmi');
  const name = `${BUILD}-${process.version}-${process.arch}-${command}-${kind}`;
  return join(folder, 'code', name);
}

/**
 * Code that was kept in a file that is this user's alone; empty: the command ran once before.
 */
function readOwn(file: string): Buffer | undefined {
  let descriptor: number | undefined;
  try {
    descriptor = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW);
    const { uid, mode } = fs.fstatSync(descriptor);
    if (uid !== process.geteuid?.() || (mode & 0o022) !== 0) return undefined;
    const both = fs.readFileSync(descriptor);
    const code = both.subarray(0, both.length / 2);
    return code.equals(both.subarray(both.length / 2)) ? code : undefined;
  } catch {
    return undefined;
  } finally {
    if (descriptor !== undefined) fs.closeSync(descriptor);
  }
}

/** Keeps code; where that cannot be done, the next run compiles again. */
function keep(file: string, code: Buffer): void {
  const folder = dirname(file);
  const part = `${file}.${process.pid}`;
  try {
    fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
    // Another user's cache, as sudo may leave it in HOME, is left as it is.
    if (fs.statSync(folder).uid !== process.geteuid?.()) return;
    fs.writeFileSync(part, Buffer.concat([code, code]), { mode: 0o600, flag: 'wx' });
    fs.renameSync(part, file);
    const all = fs.readdirSync(folder).map((name) => join(folder, name));
    if (all.length <= MAX_FILES) return;
    const old = all.map((name) => ({ name, at: fs.statSync(name).mtimeMs }));
    old.sort((a, b) => a.at - b.at);
    for (const { name } of old.slice(0, all.length - MAX_FILES)) fs.rmSync(name);
  } catch {
    fs.rmSync(part, { force: true });
  }
}
