import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

/**
 * What CONTRIBUTING says must be touched to add a thing is enough: shown on a copy of the checkout.
 */
const root = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);
let copy: string;
let table: Map<string, string[]>;

beforeAll(async () => {
  copy = await mkdtemp(join(tmpdir(), 'node-libvmi-toys-'));
  for (const path of ['lib', 'types', 'package.json', 'tsconfig.json', 'tsconfig.build.json'])
    await cp(join(root, path), join(copy, path), { recursive: true });
  for (const path of ['node_modules', 'build']) await symlink(join(root, path), join(copy, path));
  const text = await readFile(join(root, 'CONTRIBUTING.md'), 'utf8');
  const rows = [...text.matchAll(/^\| (a [\w ]+) \| (`.*?`) \| /gm)];
  table = new Map(
    rows.map(([, what = '', files = '']) => [
      what,
      [...files.matchAll(/`([^`]+)`/g)].map(([, path]) => path!),
    ]),
  );
});
afterAll(() => rm(copy, { recursive: true }));

const TOY_COMMAND = `import { ATTACH_OPTIONS, type Command, TARGET } from '../command.js';
import { EXIT } from '../exit-code.js';

export const toy: Command = {
  name: 'toy',
  summary: 'say how much RAM there is',
  operands: [TARGET],
  options: ATTACH_OPTIONS,
  examples: ['vmi toy qemu:4242'],
  run: ({ out, withGuest }) =>
    withGuest((guest) => {
      out.line(String(guest.memory.size));
      return EXIT.done;
    }),
};
`;
const TOY_SOURCE = `import { openMemory } from '../custom/open-memory.js';
import type { Source } from '../source.js';

/** RAM in a file whose bytes are all turned around. */
export function openToy(file: string): Source {
  const memory = openMemory({ segments: [{ physical: 0, file }], description: \`\${file} (toy)\` });
  return {
    candidates: [{ assumption: 'a toy', proven: true, open: () => memory }],
    close: () => memory.close(),
  };
}
`;

/** Edits of files of the copy: what stands there, and what comes behind it. */
async function edit(path: string, edits: readonly (readonly [string, string])[]): Promise<void> {
  let text = await readFile(join(copy, path), 'utf8');
  for (const [before, added] of edits) {
    expect(text, `${path}: ${before}`).toContain(before);
    text = text.replace(before, () => before + added);
  }
  await writeFile(join(copy, path), text);
}

async function write(path: string, text: string): Promise<void> {
  await mkdir(dirname(join(copy, path)), { recursive: true });
  await writeFile(join(copy, path), text);
}

describe('to add', () => {
  it('as many files as were promised', () => {
    const counts = Object.fromEntries([...table].map(([what, files]) => [what, files.length]));
    expect(counts).toEqual({
      'a source of memory': 3,
      'a command': 2,
      'a kernel helper': 1,
      'a call of libvmi': 3,
    });
  });

  it('a source and a command, by their files alone', async () => {
    const [source, open, target] = table.get('a source of memory')!;
    const [command, commands] = table.get('a command')!;
    await write(source!.replaceAll('NAME', 'toy'), TOY_SOURCE);
    await edit(open!, [
      [
        "import { openLibvmiSource } from './libvmi/libvmi.js';\n",
        "import { openToy } from './toy/toy.js';\n",
      ],
      ['switch (target.kind) {\n', "    case 'toy':\n      return openToy(target.path);\n"],
    ]);
    await edit(target!, [
      ['export type Target =\n', "  | { readonly kind: 'toy'; readonly path: string }\n"],
      [
        'export const TARGETS: readonly TargetForm[] = [\n',
        "  { prefix: 'toy', name: 'FILE', summary: 'a toy' },\n",
      ],
      ['switch (kind) {\n', "    case 'toy':\n      return { kind, path: rest };\n"],
      ["  qmp: { socket: 'string' },\n", "  toy: { path: 'string' },\n"],
      ['switch (target.kind) {\n', "    case 'toy':\n      return 'toy:' + target.path;\n"],
    ]);
    await write(command!.replaceAll('NAME', 'toy'), TOY_COMMAND);
    await edit(commands!, [
      [
        "import type { Command } from './command.js';\n",
        "import { toy } from './commands/toy.js';\n",
      ],
      ['export const COMMANDS: readonly Command[] = [\n', '  toy,\n'],
    ]);
    const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
    const built = await run(process.execPath, [tsc, '-p', join(copy, 'tsconfig.build.json')], {
      cwd: copy,
    }).catch((error) => error as { stdout: string });
    expect(built.stdout).toBe('');
    const vmi = (...args: string[]) =>
      run(process.execPath, [join(copy, 'dist/cli/main.js'), ...args]).catch(
        (error) => error as { stdout: string; stderr: string },
      );
    const help = await vmi('--help');
    expect(help.stdout).toContain('toy TARGET');
    expect(help.stdout).toMatch(/toy:FILE +a toy/);
    expect((await vmi('completion', 'bash')).stdout).toContain("'toy 0') REPLY='@targets'");
    expect((await vmi('man')).stdout).toMatch(/^\.SS "vmi toy TARGET"$/m);
    await writeFile(join(copy, 'ram'), '');
    await truncate(join(copy, 'ram'), 64 << 20);
    // No kernel is in it, but both were reached.
    const { stderr } = await vmi('toy', `toy:${join(copy, 'ram')}`);
    expect(stderr).toContain('no running Linux kernel found in');
    expect(stderr).toContain('ram (toy)');
  }, 120_000);

  it('a helper: what a topic exports is public', async () => {
    const [topic] = table.get('a kernel helper')!;
    const folder = dirname(topic!);
    const index = await readFile(join(root, folder, 'index.ts'), 'utf8');
    expect(index).toContain("export * from './boot.js';");
  });

  it('a call of libvmi: each is in its three files', async () => {
    const [abi, method, docs] = await Promise.all(
      table.get('a call of libvmi')!.map((path) => readFile(join(root, path), 'utf8')),
    );
    expect(abi).toContain('vmi_get_memsize');
    expect(method).toContain('getMemsize()');
    expect(docs).toContain('| `vmi_get_memsize` | `getMemsize` |');
  });
});
