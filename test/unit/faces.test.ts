import { readdirSync, readFileSync } from 'node:fs';
import { posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

/**
 * What people see. A face knows the API with its helpers, what all faces print with, and leaves:
 * files right below lib/.
 */
const FACES = ['cli', 'repl', 'serve'];
const KNOWN = /^(text\/.*|helpers\/index|[\w-]+)\.ts$/;
/** Of each other, only the command knows what it starts. */
const BETWEEN = [
  'cli/commands/repl.ts -> repl/repl.ts',
  'cli/commands/run.ts -> repl/script.ts',
  'cli/commands/gdbserver.ts -> serve/gdb/server.ts',
  'cli/commands/gdbserver.ts -> serve/gdb/process-view.ts',
  'cli/commands/serve.ts -> serve/serve.ts',
];

const lib = fileURLToPath(new URL('../../lib/', import.meta.url));

it('faces know the API only, and not each other', () => {
  const wrong: string[] = [];
  const files = (readdirSync(lib, { recursive: true }) as string[]).filter((path) =>
    FACES.some((face) => path.startsWith(`${face}/`) && path.endsWith('.ts')),
  );
  expect(files.length).toBeGreaterThan(25);
  for (const path of files) {
    const face = path.split('/', 1)[0];
    const text = readFileSync(lib + path, 'utf8');
    for (const [, name = ''] of text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)\.js'/g)) {
      const from = `${posix.join(posix.dirname(path), name)}.ts`;
      const known = from.startsWith(`${face}/`) || KNOWN.test(from);
      if (!known && !BETWEEN.includes(`${path} -> ${from}`)) wrong.push(`${path} -> ${from}`);
    }
  }
  expect(wrong).toEqual([]);
});

it('commands load the API when they run, not for the help', () => {
  const eager = (readdirSync(`${lib}cli`, { recursive: true }) as string[])
    .filter((path) => path.endsWith('.ts'))
    .filter((path) =>
      /^import (?!type )[^;]*from '[./]*\/index\.js'/m.test(
        readFileSync(`${lib}cli/${path}`, 'utf8'),
      ),
    );
  // These make the help of all commands slower: they are to load it in run(), as the others do.
  const pending = ['commands/top.ts', 'commands/trace.ts', 'commands/watch.ts'];
  expect(eager.filter((path) => !pending.includes(path))).toEqual([]);
});
