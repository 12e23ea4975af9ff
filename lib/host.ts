import { accessSync, constants, readFileSync } from 'node:fs';

/** Whether this process may read and write what is at the path. */
export function mayUse(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** A file of this host as text, such as one of /proc; `undefined` when it cannot be read. */
export function readHostFile(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
