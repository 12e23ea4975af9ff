// @ts-check
/**
 * Joins what tsc made of lib/ into few files, dist/bundle: to find and read some two hundred takes Node longer than to attach.
 * Entries share their code, so that an error is of one class wherever it was imported from. dist/ keeps the modules
 * themselves, for the programs that the library starts and for whoever reads them.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { build } from 'esbuild';

rmSync(new URL('../dist/bundle', import.meta.url), { recursive: true, force: true });
await build({
  absWorkingDir: new URL('..', import.meta.url).pathname,
  entryPoints: [
    'dist/index.js',
    'dist/helpers/index.js',
    'dist/libvmi/index.js',
    'dist/cli/main.js',
  ],
  outdir: 'dist/bundle',
  outbase: 'dist',
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node20.19',
  packages: 'external',
  sourcemap: true,
  logLevel: 'warning',
  keepNames: true,
});

// The manual page, which npm puts where `man vmi` finds it when the package is installed globally.
const { COMMANDS } = await import('../dist/cli/commands.js');
const { manPage } = await import('../dist/cli/man-page.js');
mkdirSync(new URL('../dist/man', import.meta.url), { recursive: true });
writeFileSync(new URL('../dist/man/vmi.1', import.meta.url), manPage(COMMANDS));
