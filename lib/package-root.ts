import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** This package's folder, with dist/, package.json and the addon in it. */
export const PACKAGE_ROOT = find(dirname(fileURLToPath(import.meta.url)));

/** The nearest one above this file, wherever it was built or bundled to. */
function find(folder: string): string {
  if (existsSync(join(folder, 'package.json')) || folder === dirname(folder)) return folder;
  return find(dirname(folder));
}
