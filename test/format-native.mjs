// @ts-check
/**
 * Checks that the C++ is laid out as clang-format does it: `node test/format-native.mjs [--write]`.
 *
 * Versions of clang-format differ in details, so only that of Debian 12 counts. Without it the
 * check is skipped, and says why.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const VERSION = '14';
const FOLDERS = ['native', 'test/native', 'test/fuzz', 'test/libvmi'];

const { values } = parseArgs({ options: { write: { type: 'boolean', default: false } } });
const root = fileURLToPath(new URL('..', import.meta.url));

/** Major version of a program, or undefined. @param {string} program */
function versionOf(program) {
  const { stdout } = spawnSync(program, ['--version'], { encoding: 'utf8' });
  return /version (\d+)\./.exec(stdout ?? '')?.[1];
}

const programs = [`clang-format-${VERSION}`, 'clang-format'];
const program = programs.find((name) => versionOf(name) === VERSION);
if (program === undefined) {
  const other = versionOf('clang-format');
  const why = other === undefined ? 'there is none' : `the one here is version ${other}`;
  console.log(
    `C++ format: skipped, needs clang-format ${VERSION} and ${why} (apt-get install clang-format-${VERSION})`,
  );
} else {
  const files = FOLDERS.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => /\.(cpp|h)$/.test(name))
      .map((name) => join(folder, name)),
  );
  const mode = values.write ? ['-i'] : ['--dry-run', '-Werror'];
  const { status, stderr } = spawnSync(program, [...mode, ...files], {
    cwd: root,
    encoding: 'utf8',
  });
  const wrong = new Set([...stderr.matchAll(/^(\S+?):\d+:\d+: error/gm)].map(([, file]) => file));
  if (wrong.size > 0) {
    console.error(`C++ format: run "npm run format" for\n  ${[...wrong].join('\n  ')}`);
  } else if (status !== 0) {
    console.error(stderr);
  }
  process.exitCode = status === 0 ? 0 : 1;
}
