import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { describe, expect, it } from 'vitest';
import { COMMANDS } from '../../lib/cli/commands.js';
import { EXIT, EXIT_HELP } from '../../lib/cli/exit-code.js';
import { blocksOf, isCode, missingLine, pages, partsOf, root } from '../docs/blocks.mjs';
import { commandTable } from '../docs/command-table.mjs';

/** Pages whose transcripts are written by the script that ran them. */
const WRITTEN = ['docs/xen-runs.md'];

const all = pages();
const read = (path: string) => readFileSync(join(root, path), 'utf8');
/** The first column of a page's table, in backquotes or not. */
const column = (page: string) =>
  [...read(page).matchAll(/^\| `?([\w ]+?)`? \|/gm)].map(([, name]) => name!).slice(1);

/** What a heading is called in a link. */
function anchor(heading: string): string {
  return heading
    .trim()
    .toLowerCase()
    .replace(/[`*]/g, '')
    .replace(/[^\p{L}\p{N}\s_-]/gu, '')
    .replace(/\s/g, '-');
}

function anchors(path: string): string[] {
  return [...read(path).matchAll(/^#+ (.*)$/gm)].map(([, heading]) => anchor(heading!));
}

describe('the pages', () => {
  it('are those of the site', () => {
    expect(all.length).toBeGreaterThan(40);
    for (const number of Array.from({ length: 20 }, (_, i) => String(i + 1).padStart(2, '0')))
      expect(
        all.some((path) => path.startsWith(`docs/how-to/${number}-`)),
        number,
      ).toBe(true);
  });

  it('have no dead link', () => {
    const dead: string[] = [];
    for (const page of [...all, 'README.md', 'CONTRIBUTING.md', 'ARCHITECTURE.md']) {
      const text = read(page).replace(/^```[\s\S]*?^```$/gm, '');
      for (const [, link = ''] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^https?:/.test(link)) continue;
        const [path = '', name] = link.split('#');
        const target = path === '' ? page : normalize(join(dirname(page), path));
        if (!existsSync(join(root, target))) dead.push(`${page}: ${link}`);
        else if (name !== undefined && !anchors(target).includes(name))
          dead.push(`${page}: ${link}`);
      }
    }
    expect(dead).toEqual([]);
  });

  it('say of every block that is not run why', () => {
    const known = ['', 'js', 'console', 'repl', 'sh', 'text', 'json', 'ts', 'xml', 'html'];
    for (const page of all.filter((path) => !WRITTEN.includes(path))) {
      for (const block of blocksOf(read(page))) {
        expect(known, `${page}:${block.line}`).toContain(block.language);
        if (!isCode(block)) continue;
        expect(block.reason === undefined || block.reason.length > 8, `${page}:${block.line}`).toBe(
          true,
        );
      }
    }
  });
});

/** Names that a file exports, and where each is declared. */
function exportsOf(file: string): { name: string; file: string }[] {
  const text = read(file);
  const found: { name: string; file: string }[] = [];
  const from = (path: string) => join(dirname(file), path).replace(/\.js$/, '.ts');
  for (const [, names = '', path = ''] of text.matchAll(
    /^export (?:type )?\{([^}]*)\} from '(.*)';/gm,
  ))
    for (const name of names.split(',').map((one) => one.trim().replace(/^type /, '')))
      if (name !== '') found.push({ name: name.replace(/ as .*/, ''), file: from(path) });
  for (const [, path = ''] of text.matchAll(/^export \* from '(.*)';/gm))
    found.push(...exportsOf(from(path)));
  for (const [, name = ''] of text.matchAll(DECLARATION)) found.push({ name, file });
  return found;
}
const DECLARATION =
  /^export (?:declare |abstract |async )*(?:class|function\*?|interface|type|const|enum) (\w+)/gm;

describe('the reference', () => {
  it('has a description of every exported name', () => {
    const bare: string[] = [];
    const entries = ['lib/index.ts', 'lib/helpers/index.ts', 'lib/libvmi/index.ts'];
    const names = entries.flatMap(exportsOf);
    expect(names.length).toBeGreaterThan(200);
    for (const { name, file } of names) {
      const text = read(file);
      const declared = [...text.matchAll(DECLARATION)].find(([, other]) => other === name);
      // What is passed on from another file is described there.
      if (declared === undefined) continue;
      const before = text
        .slice(0, declared.index)
        .replace(/\/\/ biome-ignore.*\n/g, '')
        .trimEnd();
      if (!before.endsWith('*/')) bare.push(`${file}: ${name}`);
    }
    expect(bare).toEqual([]);
  });

  it('has every error code', () => {
    const codes = [...read('lib/errors.ts').matchAll(/^ {2}\| '(VMI_\w+)'/gm)].map(
      ([, code]) => code,
    );
    expect(codes.length).toBeGreaterThan(10);
    expect(column('docs/reference/errors.md').sort()).toEqual(codes.sort());
  });

  it('has every exit code as the help says it', () => {
    const page = read('docs/reference/exit-codes.md');
    expect(column('docs/reference/exit-codes.md').map(Number)).toEqual(Object.values(EXIT));
    for (const [code, meaning] of EXIT_HELP)
      expect(page).toContain(`| ${code} | ${meaning.replaceAll(' vmi,', ' `vmi`,')} |`);
  });

  it('has every command', () => {
    // Written by test/docs/commands.mjs.
    expect(read('docs/reference/commands.md')).toContain(commandTable(COMMANDS));
  });

  it('has every environment variable that the source reads', () => {
    const source = ['lib', 'native']
      .flatMap((folder) =>
        readdirSync(join(root, folder), { recursive: true }).map((path) =>
          join(folder, String(path)),
        ),
      )
      .filter((path) => /\.(ts|cpp)$/.test(path))
      .map(read)
      .join('\n');
    const names = [
      ...source.matchAll(/\benv\.([A-Z][A-Z_]+)\b/g),
      ...source.matchAll(/getenv\("(\w+)"\)/g),
    ].map(([, name]) => name!);
    const told = column('docs/reference/environment.md');
    expect([...new Set(names)].filter((name) => !told.includes(name))).toEqual([]);
  });
});

describe('a block', () => {
  it('is parted into commands and what they print', () => {
    const [block] = blocksOf('<!-- not run: why -->\n```console\n$ a # exit 3\nx 1\n$ b\n```\n');
    expect(block!.reason).toBe('why');
    expect(partsOf(block!)).toEqual([
      { input: 'a # exit 3', printed: ['x 1'], exit: 3, at: 0 },
      { input: 'b', printed: [], exit: 0, at: 2 },
    ]);
  });

  it('is compared in order, numbers being another guest’s', () => {
    expect(
      missingLine(['pid 12  at 0x1f', '…', 'end'], 'pid 7 at 0xab\nmore\nend'),
    ).toBeUndefined();
    expect(missingLine(['end', 'pid 12'], 'pid 7\nend')).toBe('pid 12');
    expect(missingLine(['true'], 'false')).toBe('true');
    expect(missingLine(['begins as…'], 'begins as this')).toBeUndefined();
  });
});
