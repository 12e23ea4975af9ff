import { createWriteStream } from 'node:fs';
import { lstat, open, rename, rm } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { OutputError } from './output.js';

/**
 * Finds out whether a file can be written before what goes into it is made; leaves none behind.
 * @throws {OutputError} it cannot
 */
export async function checkWritable(file: string): Promise<void> {
  const wasThere = await lstat(file).then(
    () => true,
    () => false,
  );
  try {
    await (await open(file, 'a', 0o600)).close();
    if (!wasThere) await rm(file);
  } catch (error) {
    throw new OutputError(file, error);
  }
}

/**
 * Writes a file that is there whole or not at all. What is no file, as a device, a pipe or a link,
 * is written to as it is: another in its place would be no device any more.
 * @throws {OutputError} it cannot be written
 */
export async function writeWhole(file: string, pieces: Iterable<string>): Promise<void> {
  const there = await lstat(file).catch(() => undefined);
  const isReplaced = there === undefined || there.isFile();
  const path = isReplaced ? `${file}.part` : file;
  try {
    await pipeline(Readable.from(pieces), createWriteStream(path));
    if (isReplaced) await rename(path, file);
  } catch (error) {
    if (isReplaced) await rm(path, { force: true });
    if ((error as NodeJS.ErrnoException).syscall === undefined) throw error;
    throw new OutputError(file, error);
  }
}
