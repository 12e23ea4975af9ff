import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

/*
 * The shape of the code, so that it stays one: imports point down only and never lead back, files,
 * functions and comments are short enough to be read. The length of functions in lib/ is the
 * linter's to check, which parses them (biome.json).
 */

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');

/**
 * Rooms from the ground up: a file imports from its own room and from those above it in this list.
 */
const ROOMS: readonly (readonly string[])[] = [
  // Files right below lib/ but index.ts: errors, addresses, the addon, targets.
  ['lib'],
  ['lib/memory'],
  ['lib/libvmi'],
  // A source of memory knows the contract in lib/memory, and no other source but those named before
  // it.
  // Memory that JavaScript reads, and what users make one of.
  ['lib/memory/scripted'],
  ['lib/memory/custom'],
  ['lib/memory/process'],
  ['lib/memory/image'],
  ['lib/memory/qemu'],
  ['lib/memory/libvirt'],
  ['lib/memory/libvmi'],
  // What knows all of them; the guard of a pause is a program of its own.
  ['lib/memory/open.ts', 'lib/memory/pause-guard-main.ts'],
  // What every file of lib/kernel may use.
  ['lib/kernel/x86-64.ts', 'lib/kernel/bytes.ts', 'lib/kernel/try-answer.ts'],
  ['lib/kernel/symbols', 'lib/kernel/types'],
  ['lib/kernel/profile'],
  ['lib/kernel/cpus.ts'],
  ['lib/kernel/layout'],
  ['lib/kernel'],
  ['lib/export'],
  ['lib/objects'],
  ['lib/stacks'],
  ['lib/helpers'],
  ['lib/tasks'],
  ['lib/monitor'],
  ['lib/guest'],
  ['lib/discover'],
  ['lib/text'],
  ['lib/index.ts'],
  ['lib/repl', 'lib/serve'],
  ['lib/cli'],
];

const MAX_FILE = 400;
const MAX_FUNCTION = 70;
const MAX_LINE = 100;

/** Flat tables that are longer than a file should be: one call a line, nothing to follow. */
const FLAT_TABLES = ['lib/libvmi/libvmi.ts'];

const files = [...walk('lib', /\.ts$/), ...walk('native', /\.(cpp|h)$/)];
const texts = new Map(files.map((file) => [file, readFileSync(join(ROOT, file), 'utf8')]));

function walk(folder: string, name: RegExp): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && name.test(entry.name))
    .map((entry) => relative(ROOT, join(entry.parentPath, entry.name)))
    .sort();
}

/** Files of lib/ that a file imports, types included. */
function imports(file: string): string[] {
  const found = texts.get(file)!.matchAll(/\b(?:from|import)\s*\(?\s*['"`](\.[^'"`]+)\.js['"`]/g);
  return [...found]
    .map(([, path]) => `${join(dirname(file), path!)}.ts`)
    .filter((target) => texts.has(target));
}

/**
 * The place of a file in {@link ROOMS}, from the ground up: that of the longest name in {@link
 * ROOMS} that it starts with.
 */
function roomOf(file: string): number {
  let best = { length: 0, at: -1 };
  for (const [at, rooms] of ROOMS.entries()) {
    for (const room of rooms) {
      const inside = file === room || file.startsWith(`${room}/`);
      // A file right below lib/ is on the ground; another folder there has no room.
      const counts = room !== 'lib' || dirname(file) === 'lib';
      if (inside && counts && room.length > best.length) best = { length: room.length, at };
    }
  }
  return best.at;
}

/** Functions of a native file: the formatter puts the brace that closes one below its start. */
function functions(file: string): { name: string; length: number }[] {
  const lines = texts.get(file)!.split('\n');
  const found: { name: string; length: number }[] = [];
  for (const [at, line] of lines.entries()) {
    if (!line.endsWith('{')) continue;
    const first = startOfNative(lines, at);
    const head = lines
      .slice(first, at + 1)
      .join(' ')
      .trim();
    if (!isNativeFunction(head)) continue;
    const indent = /^ */.exec(lines[first]!)![0];
    const end = lines.findIndex((other, i) => i > at && other.startsWith(`${indent}}`));
    const name = /([#\w~:]+)\s*[(<=]/.exec(head)?.[1] ?? head;
    found.push({ name, length: end - first + 1 });
  }
  return found;
}

function startOfNative(lines: readonly string[], at: number): number {
  let first = at;
  while (first > 0 && !/^\s*(\/\/.*|#.*|.*[;{}:])?$/.test(lines[first - 1]!)) first--;
  return first;
}

function isNativeFunction(head: string): boolean {
  if (/^(\}?\s*else|if|for|while|switch|do|namespace|class|struct|enum|union|case)\b/.test(head)) {
    return false;
  }
  return /\)\s*(const|noexcept|override|\s)*(->.*)?(\s:.*)?\{$/.test(head) && !/=\s*\{$/.test(head);
}

/** Files that lead back to themselves, each ring once. */
function rings(): string[] {
  const done = new Set<string>();
  const found = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    const at = path.indexOf(file);
    if (at >= 0) {
      found.add([...path.slice(at), file].join(' → '));
      return;
    }
    if (done.has(file)) return;
    for (const next of imports(file)) visit(next, [...path, file]);
    done.add(file);
  };
  for (const file of files) if (file.endsWith('.ts')) visit(file, []);
  return [...found];
}

describe('the house', () => {
  const scripts = files.filter((file) => file.endsWith('.ts'));

  it('gives every file a room', () => {
    expect(scripts.filter((file) => roomOf(file) < 0)).toEqual([]);
  });

  it('has imports that point down only', () => {
    const up = scripts.flatMap((file) =>
      imports(file)
        .filter((target) => roomOf(target) > roomOf(file))
        .map((target) => `${file} → ${target}`),
    );
    expect(up).toEqual([]);
  });

  it('has no import that leads back to itself', () => {
    expect(rings()).toEqual([]);
  });

  it('has files of at most 400 lines', () => {
    const long = files
      .filter((file) => !FLAT_TABLES.includes(file))
      .map((file) => ({ file, lines: texts.get(file)!.split('\n').length - 1 }))
      .filter(({ lines }) => lines > MAX_FILE);
    expect(long).toEqual([]);
  });

  it('imports its own files by their paths, and others by their names', () => {
    const hidden = scripts.filter((file) => {
      const text = texts.get(file)!;
      // Two modules load what a user names, and one of them the bundle.
      const free = ['lib/cli/start.ts', 'lib/repl/script.ts'].includes(file);
      const computed = /\bimport\(\s*[^'\s]/.test(text.replace(/^\s*(\/\/|\/?\*).*$/gm, ''));
      return (
        (computed && !free) ||
        /^(?:import|export|\}).* from 'node-libvmi|^import 'node-libvmi/m.test(text)
      );
    });
    expect(hidden).toEqual([]);
  });

  it('has native functions of at most 70 lines', () => {
    const native = files.filter((file) => !file.endsWith('.ts'));
    const long = native.flatMap((file) =>
      functions(file)
        .map(({ name, length }) => ({ name: `${file}: ${name}`, length }))
        .filter(({ length }) => length > MAX_FUNCTION),
    );
    expect(long).toEqual([]);
  });

  // Lines of code are the formatter's: what it leaves longer is one text that cannot be broken.
  it('has comments of at most 100 columns', () => {
    const rest = ['bench', 'examples', 'scripts', 'test'].flatMap((folder) =>
      walk(folder, /\.(ts|mjs|cjs|cpp|h)$/),
    );
    const long = [...files, ...rest].flatMap((file) =>
      readFileSync(join(ROOT, file), 'utf8')
        .split('\n')
        .filter((line) => line.length > MAX_LINE && /^\s*(\/\/|\/?\*)/.test(line))
        .map((line) => `${file}: ${line.trim()}`),
    );
    expect(long).toEqual([]);
  });
});
