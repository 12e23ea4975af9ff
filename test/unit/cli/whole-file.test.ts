import { lstat, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { OutputError } from '../../../lib/cli/output.js';
import { writeWhole } from '../../../lib/cli/whole-file.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'node-libvmi-whole-'));
});
afterEach(() => rm(folder, { recursive: true }));

it('a file is there whole, or is what it was', async () => {
  const file = join(folder, 'file');
  await writeWhole(file, ['one', 'two']);
  expect(await readFile(file, 'utf8')).toBe('onetwo');
  await expect(writeWhole(file, broken())).rejects.toThrow('no more');
  expect(await readFile(file, 'utf8')).toBe('onetwo');
  expect(await readdir(folder)).toEqual(['file']);
  await expect(writeWhole(join(folder, 'no/file'), ['x'])).rejects.toThrow(OutputError);
});

function* broken() {
  yield 'piece';
  throw new Error('no more');
}

it('what is no file stays what it is', async () => {
  const [file, link] = [join(folder, 'file'), join(folder, 'link')];
  await writeFile(file, '');
  await symlink(file, link);
  await writeWhole(link, ['text']);
  expect((await lstat(link)).isSymbolicLink()).toBe(true);
  expect(await readFile(file, 'utf8')).toBe('text');
  expect((await readdir(folder)).sort()).toEqual(['file', 'link']);
});
