// @ts-check
/** The lab's cache: things that are built once, atomically, by whichever process comes first. */
import { link, mkdir, readFile, rename, rm, stat, unlink, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { processAlive, processMark } from './process.mjs';

/** The cache folder: `NODE_LIBVMI_LAB_CACHE`, else under the user's cache. @returns {string} */
export function cacheFolder() {
  return (
    process.env.NODE_LIBVMI_LAB_CACHE ??
    join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'node-libvmi', 'lab')
  );
}

let counter = 0;

/** A name beside `path` that nobody else uses. @param {string} path */
const beside = (path) => `${path}.${process.pid}.${counter++}.new`;

/** @param {string} path @returns {Promise<boolean>} */
export const exists = (path) =>
  stat(path).then(
    () => true,
    () => false,
  );

/**
 * Runs `work` while this process alone holds the lock at `path`. A lock whose holder died is taken
 * over.
 *
 * @template T
 * @param {string} path
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function locked(path, work) {
  await mkdir(dirname(path), { recursive: true });
  const mine = beside(path);
  await writeFile(mine, await processMark(process.pid));
  try {
    for (;;) {
      try {
        await link(mine, path);
        break;
      } catch (error) {
        if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'EEXIST') throw error;
      }
      const holder = await readFile(path, 'utf8').catch(() => undefined);
      if (holder !== undefined && !(await processAlive(holder))) await breakLock(path, holder);
      else await new Promise((resolve) => setTimeout(resolve, 100));
    }
  } finally {
    await unlink(mine);
  }
  try {
    return await work();
  } finally {
    await unlink(path).catch(() => {});
  }
}

/**
 * Removes the lock of a dead holder. Moving it away first makes sure that it is that lock, and not
 * one that another process took in the meantime.
 *
 * @param {string} path
 * @param {string} holder
 */
async function breakLock(path, holder) {
  const aside = beside(path);
  try {
    await rename(path, aside);
  } catch {
    return;
  }
  if ((await readFile(aside, 'utf8')) !== holder) await link(aside, path).catch(() => {});
  await unlink(aside);
}

/**
 * Returns the file or folder at `path`, after building it if it is not there. It appears whole or
 * not at all, and once, however many processes ask at the same time.
 *
 * @param {string} path
 * @param {(temporary: string) => Promise<void>} build makes the file or folder under the given name
 * @returns {Promise<string>} `path`
 */
export async function cached(path, build) {
  if (await exists(path)) return path;
  return locked(`${path}.lock`, async () => {
    if (await exists(path)) return path;
    const temporary = beside(path);
    try {
      await build(temporary);
      await rename(temporary, path);
    } catch (error) {
      await rm(temporary, { recursive: true, force: true });
      throw error;
    }
    return path;
  });
}
