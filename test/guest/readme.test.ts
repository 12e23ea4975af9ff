import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const readme = readFileSync(join(root, 'README.md'), 'utf8');
const blocks = [...readme.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].map(
  ([, language = '', text = '']) => ({
    language,
    text,
  }),
);

/**
 * A line of documented output as a pattern: numbers and addresses are another guest's, and so is
 * the space that aligns them.
 */
function pattern(line: string): RegExp {
  const parts = line.trim().split(/(0x[0-9a-f]+n?|\b\d[\w.+-]*|\s+)/);
  const source = parts.map((part, i) => {
    if (i % 2 === 0) return part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
    return part.trim() === '' ? '\\s+' : part.startsWith('0x') ? '0x[0-9a-f]+n?' : '[\\w.+-]+';
  });
  return new RegExp(`^\\s*${source.join('')}\\s*$`);
}

describe('README.md', () => {
  let lab: LabGuest;
  // Inside the checkout, where the package's own name resolves.
  const folder = mkdtempSync(join(root, 'build', 'readme-'));

  beforeAll(async () => {
    lab = await bootGuest({ suite: 'bookworm', flavour: 'cloud', backend: 'file' });
  });
  afterAll(async () => {
    await lab?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it('has only blocks of the kinds that are run here', () => {
    expect(blocks.length).toBeGreaterThan(2);
    for (const { language } of blocks) expect(['js', 'sh', 'console', 'text']).toContain(language);
  });

  it('names npm scripts and commands that exist', () => {
    const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
      scripts: object;
    };
    const commands = blocks
      .filter(({ language }) => language === 'sh')
      .flatMap(({ text }) => text.trim().split('\n'));
    for (const command of commands) {
      const name = /^npm (?:run )?([\w:]+)/.exec(command)?.[1];
      expect(
        name === 'ci' || name === 'install' || Object.keys(scripts).includes(name ?? ''),
        command,
      ).toBe(true);
    }
  });

  it('prints what its code says it prints', () => {
    const code = blocks.filter(({ language }) => language === 'js');
    expect(code.length).toBeGreaterThan(0);
    for (const { text } of code) {
      const file = join(folder, 'block.mjs');
      writeFileSync(file, text.replaceAll('qemu:4242', `qemu:${lab.pid}`));
      const { status, stdout, stderr } = spawnSync(process.execPath, [file], { encoding: 'utf8' });
      expect(stderr).toBe('');
      expect(status).toBe(0);
      const printed = stdout.trim().split('\n');
      const promised = [...text.matchAll(/console\.log\(.*?\);\s*\/\/ (.*)$/gm)].map(
        ([, line = '']) => line,
      );
      // What stands in a loop is prose; the rest is output.
      for (const line of promised.filter((one) => !one.startsWith('every'))) {
        expect(
          printed.some((one) => pattern(line).test(one)),
          `${line}\n${stdout}`,
        ).toBe(true);
      }
    }
  });

  it('answers its transcripts', () => {
    for (const { text } of blocks.filter(({ language }) => language === 'console')) {
      const [command = '', ...lines] = text.trimEnd().split('\n');
      const args = command
        .replace(/^\$ vmi /, '')
        .replaceAll('qemu:4242', `qemu:${lab.pid}`)
        .split(' ');
      const input = lines.filter((line) => line.startsWith('> ')).map((line) => line.slice(2));
      const { status, stdout } = spawnSync(
        process.execPath,
        [join(root, 'dist/cli/main.js'), ...args],
        {
          encoding: 'utf8',
          input: `${input.join('\n')}\n`,
        },
      );
      expect(status, stdout).toBe(0);
      for (const line of lines.filter((one) => !one.startsWith('> '))) {
        expect(
          stdout.split('\n').some((one) => pattern(line).test(one.replace(/^(> )+/, ''))),
          `${line}\n${stdout}`,
        ).toBe(true);
      }
    }
  });
});
