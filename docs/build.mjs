#!/usr/bin/env node
/*
 * Builds the site from the pages here and the comments of the source. It fetches nothing: `npm ci` in this folder comes first.
 *
 *   npm run docs [-- --reference]     from the checkout; --reference: only the pages of the exports
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('.', import.meta.url));
const bin = (name) => join(here, 'node_modules', '.bin', name);
if (!existsSync(bin('vitepress'))) {
  console.error('docs: the tools of this folder are not installed: npm ci --prefix docs');
  process.exit(1);
}

function run(name, ...words) {
  const { status, error } = spawnSync(bin(name), words, { cwd: here, stdio: 'inherit' });
  if (error !== undefined || status !== 0) {
    console.error(`docs: ${name} failed${error === undefined ? '' : `: ${error.message}`}`);
    process.exit(1);
  }
}

const api = join(here, 'reference', 'api');
rmSync(api, { recursive: true, force: true });
run('typedoc', '--logLevel', 'Error');
// VitePress reads HTML in Markdown: what is a C or TypeScript type there is text.
for (const file of readdirSync(api, { recursive: true })) {
  if (!file.endsWith('.md')) continue;
  const path = join(api, file);
  const text = readFileSync(path, 'utf8');
  writeFileSync(path, text.replaceAll('{{', '&#123;&#123;'));
}
if (!process.argv.includes('--reference')) run('vitepress', 'build', '.');
