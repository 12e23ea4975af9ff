import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const LIB = fileURLToPath(new URL('../../lib/', import.meta.url));

/** A file that gives names to others: the names that another file exports from it. */
const GIVEN = /export (?:type )?\{([^}]*)\} from '([^']+)\.js'/g;

/** Names of an entrance that no comment stands above where they are declared. */
function undocumented(file: string, wanted?: ReadonlySet<string>): string[] {
  const text = readFileSync(join(LIB, file), 'utf8');
  const missing: string[] = [];
  for (const [, names = '', from = ''] of text.matchAll(GIVEN)) {
    const given = names
      .split(',')
      .map((name) => name.replace(/^\s*type /, '').trim())
      .filter((name) => name !== '' && (wanted?.has(name) ?? true));
    if (given.length > 0)
      missing.push(...undocumented(`${join(dirname(file), from)}.ts`, new Set(given)));
  }
  for (const [, from = ''] of text.matchAll(/export \* from '([^']+)\.js'/g))
    missing.push(...undocumented(`${join(dirname(file), from)}.ts`));
  const declared =
    /^export (?:declare |abstract |async )*(?:interface|type|class|function\*?|const) (\w+)/gm;
  for (const { 1: name = '', index } of text.matchAll(declared)) {
    if (wanted !== undefined && !wanted.has(name)) continue;
    const before = text.slice(0, index).replace(/(?:\/\/.*\n)+$/, '');
    // Of a function with several forms the first one is told.
    const isFirst = text.search(new RegExp(`^export .*\\b${name}\\b`, 'm')) === index;
    if (isFirst && !before.endsWith('*/\n')) missing.push(`${file}: ${name}`);
  }
  return missing;
}

it.each(['index.ts', 'libvmi/index.ts', 'helpers/index.ts'])(
  'every name that %s exports says what it is',
  (file) => {
    expect(undocumented(file)).toEqual([]);
  },
);
