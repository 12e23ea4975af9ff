import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

interface Declarations {
  /** Names that come from another file: that file, and the name there. */
  readonly from: ReadonlyMap<string, readonly [file: string, name: string]>;
  /** Text of each declaration, without comments. */
  readonly blocks: ReadonlyMap<string, string>;
}

/**
 * Types that the signatures of what a package exports lead to and that it does not export: whoever
 * calls it could not write them down.
 *
 * @param folder of declaration files
 * @param entries files that users import from
 * @returns `file#Type (in Export)`
 */
export function unexportedTypes(folder: string, entries: readonly string[]): string[] {
  const files = new Map<string, Declarations>();
  const load = (file: string) => {
    const known = files.get(file) ?? parse(file, readFileSync(join(folder, file), 'utf8'));
    files.set(file, known);
    return known;
  };
  const resolve = (file: string, name: string): readonly [string, string] | undefined => {
    const { from, blocks } = load(file);
    if (blocks.has(name)) return [file, name];
    const other = from.get(name);
    return other === undefined ? undefined : resolve(...other);
  };
  const exported = new Map<string, readonly [string, string]>();
  for (const entry of entries) {
    for (const name of load(entry).from.keys()) {
      const found = resolve(entry, name);
      if (found !== undefined) exported.set(found.join('#'), found);
    }
  }
  const missing = new Set<string>();
  for (const [file, name] of exported.values()) {
    const block = load(file).blocks.get(name)!;
    for (const [word] of block.matchAll(/\b[A-Z_]\w*\b/g)) {
      const found = word === name ? undefined : resolve(file, word);
      if (found === undefined || exported.has(found.join('#'))) continue;
      // `typeof CONSTANT` needs no name of the constant.
      if (/\bconst \w/.test(load(found[0]).blocks.get(found[1])!)) continue;
      missing.add(`${found.join('#')} (in ${name})`);
    }
    for (const [path] of block.matchAll(/import\("[^"]+"\)[.\w]*/g))
      missing.add(`${path} (in ${name})`);
  }
  return [...missing].sort();
}

function parse(file: string, text: string): Declarations {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, '');
  const from = new Map<string, readonly [string, string]>();
  const lists = /(?:import|export)\s+(?:type\s+)?\{([^}]*)\}\s*from\s*'(\.[^']+)'/g;
  for (const [, list = '', path = ''] of code.matchAll(lists)) {
    const target = join(dirname(file), path).replace(/\.js$/, '.d.ts');
    for (const one of list.split(',')) {
      const [name = '', as = name] = one
        .trim()
        .replace(/^type /, '')
        .split(/ as /);
      if (name !== '') from.set(as, [target, name]);
    }
  }
  const blocks = new Map<string, string>();
  const head =
    /^(?:export )?(?:declare )?(?:abstract )?(?:class|interface|type|const|function|enum) (\w+)/;
  for (const part of code.split(/\n(?=(?:export|declare|interface|type|import) )/)) {
    const name = head.exec(part.trim())?.[1];
    if (name !== undefined) blocks.set(name, (blocks.get(name) ?? '') + part);
  }
  return { from, blocks };
}
