import { fileURLToPath } from 'node:url';

/**
 * This package's folder, with dist/, package.json and the addon in it; from lib/ and dist/ alike.
 */
export const PACKAGE_ROOT = fileURLToPath(new URL('..', import.meta.url));
