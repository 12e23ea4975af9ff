// @ts-check
/**
 * The code blocks of the documentation, and how each is run.
 *
 *   js       a module; what a `console.log(…) // text` says is printed, in this order
 *   console  `$ command` lines in a shell that knows `vmi`, each followed by lines that it prints
 *   repl     `> expression` lines for `vmi repl`, with what it prints
 *   sh       commands whose output is not shown
 *
 * `<!-- not run: reason -->` above a block leaves it out. `qemu:4242` stands for the guest that is
 * there; `# exit N` behind a command for the code it ends with. A line of output is a pattern:
 * numbers, addresses and the space between columns are another guest's, and a line `…` stands for
 * any number of lines.
 */
import { spawn } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { transformSync } from 'esbuild';

export const root = fileURLToPath(new URL('../..', import.meta.url));
/** What documented commands name as the guest. */
export const GUEST = 'qemu:4242';
const LANGUAGES = ['js', 'console', 'repl', 'sh'];
const SECONDS = 60;

/**
 * @typedef {{ language: string, text: string, line: number, reason: string | undefined }} Block
 *   reason: why it is not run
 * @typedef {{ input: string, printed: string[], exit: number, at: number }} Part a command and what
 *   it is said to print; at: its line in the block
 * @typedef {{ status: number | null, output: string }} Done
 */

/** Pages of the documentation, by their paths from the checkout. @returns {string[]} */
export function pages() {
  const folder = join(root, 'docs');
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.md'))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .filter((path) => !/node_modules|^docs\/(reference\/api|\.vitepress)\//.test(path))
    .sort();
}

/** @param {string} page its text @returns {Block[]} */
export function blocksOf(page) {
  const lines = page.split('\n');
  /** @type {Block[]} */ const blocks = [];
  for (let at = 0; at < lines.length; at++) {
    const language = /^```([\w-]*)/.exec(lines[at] ?? '')?.[1];
    if (language === undefined) continue;
    let end = at + 1;
    while (end < lines.length && !/^```\s*$/.test(lines[end] ?? '')) end++;
    const reason = /^<!-- not run: (.*) -->$/.exec(lines[at - 1] ?? '')?.[1];
    blocks.push({ language, text: lines.slice(at + 1, end).join('\n'), line: at + 1, reason });
    at = end;
  }
  return blocks;
}

/** Whether blocks of a language are run at all. @param {Block} block */
export function isCode(block) {
  return LANGUAGES.includes(block.language);
}

/**
 * The commands of a block with what each is said to print.
 * @param {Block} block
 * @returns {Part[]}
 */
export function partsOf({ language, text }) {
  const lines = text.split('\n');
  if (language === 'js') {
    const said = [...text.matchAll(/console\.log\(.*\);?\s*\/\/ (.*)$/gm)];
    return [{ input: text, printed: said.map(([, line = '']) => line), exit: 0, at: 0 }];
  }
  /** @type {Part[]} */ const parts = [];
  const prompt = { console: '$ ', repl: '> ', sh: '' }[language] ?? '';
  for (const [at, line] of lines.entries()) {
    if (language === 'sh' && (line.trim() === '' || line.startsWith('#'))) continue;
    if (line.startsWith(prompt)) {
      const input = line.slice(prompt.length);
      parts.push({ input, printed: [], exit: Number(/# exit (\d+)/.exec(input)?.[1] ?? 0), at });
    } else parts.at(-1)?.printed.push(line);
  }
  return parts;
}

/** Runs blocks in a folder of their own inside the checkout, where the package's name resolves. */
export class Runner {
  /** @param {string} target @param {string} folder */
  constructor(target, folder) {
    this.target = target;
    this.folder = folder;
    mkdirSync(join(folder, 'bin'), { recursive: true });
    const shim = join(folder, 'bin', 'vmi');
    writeFileSync(
      shim,
      `#!/bin/sh\nexec ${process.execPath} ${join(root, 'dist/cli/main.js')} "$@"\n`,
    );
    chmodSync(shim, 0o755);
    copyFileSync(join(root, 'docs', 'tutorial.rec'), join(folder, 'tutorial.rec'));
  }

  /**
   * Runs a block. @param {Block} block
   * @returns {Promise<{ part: Part, done: Done }[]>} for each command what it did; a REPL's are one
   */
  async run(block) {
    const parts = partsOf(block);
    if (block.language === 'js') {
      const file = join(this.folder, 'block.mjs');
      // Node 20 has no `await using`.
      writeFileSync(
        file,
        transformSync(this.#here(block.text), { target: 'node20', format: 'esm' }).code,
      );
      return parts[0]
        ? [{ part: parts[0], done: await this.#spawn(process.execPath, [file]) }]
        : [];
    }
    if (block.language === 'repl') {
      const input = this.#here(parts.map((part) => part.input).join('\n'));
      const done = await this.#spawn('vmi', ['repl', this.target], `${input}\n`);
      const printed = parts.flatMap((part) => part.printed);
      return [{ part: { input: block.text, printed, exit: 0, at: 0 }, done }];
    }
    const all = [];
    for (const part of parts)
      all.push({ part, done: await this.#spawn('sh', ['-c', this.#here(part.input)]) });
    return all;
  }

  /** @param {string} text */
  #here(text) {
    return text.replaceAll(GUEST, this.target);
  }

  /**
   * @param {string} command
   * @param {string[]} words
   * @param {string} [input]
   * @returns {Promise<Done>}
   */
  async #spawn(command, words, input) {
    const env = { ...process.env, PATH: `${join(this.folder, 'bin')}:${process.env.PATH}` };
    const child = spawn(command, words, {
      cwd: this.folder,
      env: { ...env, NODE_LIBVMI_HISTORY: '', NO_COLOR: '1' },
      stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      timeout: SECONDS * 1000,
    });
    child.stdin?.end(input);
    let output = '';
    const take = (/** @type {string} */ piece) => {
      output += piece;
    };
    child.stdout?.setEncoding('utf8').on('data', take);
    child.stderr?.setEncoding('utf8').on('data', take);
    const status = await new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    return { status, output: output.replaceAll(this.target, GUEST) };
  }
}

/** A documented line as a pattern. @param {string} line */
export function pattern(line) {
  const parts = line.trim().split(/(0x[0-9a-f]+n?|\b\d[\w.+-]*|\s+)/);
  const source = parts.map((part, i) => {
    if (i % 2 === 0) return part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
    return part.trim() === '' ? '\\s+' : part.startsWith('0x') ? '0x[0-9a-f]+n?' : '[\\w.+-]+';
  });
  return new RegExp(`^\\s*${source.join('')}\\s*$`);
}

/**
 * The first documented line that was not printed, in their order.
 * @param {readonly string[]} printed
 * @param {string} output
 */
export function missingLine(printed, output) {
  const lines = output.split('\n');
  let at = 0;
  for (const line of printed) {
    if (line.trim() === '' || line.trim() === '…') continue;
    const wanted = pattern(line.replace(/…$/, ''));
    const found = lines.findIndex(
      (one, i) => i >= at && (line.endsWith('…') ? startsAs(wanted, one) : wanted.test(one)),
    );
    if (found < 0) return line;
    at = found + 1;
  }
  return undefined;
}

/** @param {RegExp} wanted @param {string} line */
function startsAs(wanted, line) {
  return new RegExp(wanted.source.replace(/\\s\*\$$/, '')).test(line);
}
