import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type CachedKernel, cacheFolder, KernelCache } from '../../../lib/kernel/cache.js';

const IMAGE = 0xffff_ffff_8100_0000n;
const BUILD_ID = '00112233445566778899aabbccddeeff00112233';
const kernel: CachedKernel = {
  buildId: BUILD_ID,
  buildIdAt: 0x1234,
  release: '6.1.0',
  tables: {
    count: 2500,
    form: 'percpu',
    names: IMAGE + 1n,
    tokenTable: IMAGE + 2n,
    tokenIndex: IMAGE + 3n,
    offsets: IMAGE + 4n,
    base: IMAGE,
    seqs: undefined,
  },
  btf: { at: IMAGE + 0x5000n, length: 100 },
  symbols: new Map([
    ['init_task', IMAGE + 0x40n],
    ['current_task', 0x1_fac0n],
    ['pcpu_hot', null],
    ['below', IMAGE - 16n],
  ]),
  offsets: new Map([
    ['task_struct.pid', 2416],
    ['task_struct.state', null],
  ]),
};

let folder = '';
let cache: KernelCache;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vmi-cache-'));
  cache = new KernelCache(join(folder, 'deep', 'er'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const file = () => join(cache.folder, `${BUILD_ID}-1234.json`);

it('gives back what was saved, moved with the image', async () => {
  expect(await cache.save(kernel, IMAGE)).toBe(true);
  expect(cache.entries()).toEqual([{ buildId: BUILD_ID, buildIdAt: 0x1234 }]);
  expect(cache.load({ buildId: BUILD_ID, buildIdAt: 0x1234 }, IMAGE)).toEqual(kernel);
  const moved = cache.load({ buildId: BUILD_ID, buildIdAt: 0x1234 }, IMAGE + 0x20_0000n);
  expect(moved?.symbols.get('init_task')).toBe(IMAGE + 0x20_0040n);
  expect(moved?.symbols.get('current_task')).toBe(0x1_fac0n);
  expect(moved?.tables?.base).toBe(IMAGE + 0x20_0000n);
  expect((await readdir(cache.folder)).filter((name) => name.includes('tmp'))).toEqual([]);
});

it.each([
  ['is empty', ''],
  ['is cut short', '{"version":1'],
  ['is of another version', '{"version":2}'],
  [
    'is of another kernel',
    `{"version":1,"buildId":"${'f'.repeat(40)}","release":"x","symbols":{},"offsets":{}}`,
  ],
  [
    'has a symbol that is no address',
    `{"version":1,"buildId":"${BUILD_ID}","release":"x","symbols":{"a":"12"},"offsets":{}}`,
  ],
  [
    'has an offset that is no number',
    `{"version":1,"buildId":"${BUILD_ID}","release":"x","symbols":{},"offsets":{"a":-1}}`,
  ],
  [
    'has tables of no known form',
    `{"version":1,"buildId":"${BUILD_ID}","release":"x","tables":{},"symbols":{},"offsets":{}}`,
  ],
  ['is null', 'null'],
])('ignores a file that %s, and replaces it', async (_, text) => {
  await cache.save(kernel, IMAGE);
  await writeFile(file(), text);
  expect(cache.load({ buildId: BUILD_ID, buildIdAt: 0x1234 }, IMAGE)).toBeUndefined();
  await cache.save(kernel, IMAGE);
  expect(cache.load({ buildId: BUILD_ID, buildIdAt: 0x1234 }, IMAGE)).toEqual(kernel);
});

it('is no error when it cannot be written or read', async () => {
  await writeFile(join(folder, 'file'), '');
  const bad = new KernelCache(join(folder, 'file', 'below'));
  expect(await bad.save(kernel, IMAGE)).toBe(false);
  expect(bad.entries()).toEqual([]);
  expect(bad.hints()).toEqual([]);
  expect(await bad.hint(1n)).toBe(false);
});

it('keeps hints, last one first, and only so many', async () => {
  for (let i = 0n; i < 40n; i++) await cache.hint(0x1000n * i);
  await cache.hint(0x3_0000n - 0x1_0000n);
  const hints = cache.hints();
  expect(hints).toHaveLength(32);
  expect(hints.slice(0, 3)).toEqual([0x2_0000n, 0x2_7000n, 0x2_6000n]);
  await writeFile(
    join(cache.folder, 'vmcoreinfo.json'),
    '{"version":1,"addresses":["0x1000",7,"x"]}',
  );
  expect(cache.hints()).toEqual([0x1000n]);
});

it('keeps places, the last new one first, and only so many', async () => {
  expect(cache.places()).toEqual([]);
  for (let i = 0n; i < 10n; i++) await cache.place({ root: 0x1000n * i, levels: i === 9n ? 5 : 4 });
  await cache.place({ root: 0x5000n, levels: 4 });
  const fresh = () => new KernelCache(cache.folder).places();
  expect(fresh()).toHaveLength(8);
  expect(fresh().slice(0, 3)).toEqual([
    { root: 0x9000n, levels: 5 },
    { root: 0x8000n, levels: 4 },
    { root: 0x7000n, levels: 4 },
  ]);
  await cache.place({ root: 0x9000n, levels: 4 });
  expect(fresh()[0]).toEqual({ root: 0x9000n, levels: 4 });
  for (const [text, expected] of [
    [
      '{"version":1,"places":[{"root":"0x1000","levels":4},{"root":7,"levels":4},{"root":"0x2000","levels":3}]}',
      1,
    ],
    ['{"version":1,"places":[null]}', 0],
    ['{"version":1,"places":7}', 0],
    ['{"version":2,"places":[{"root":"0x1000","levels":4}]}', 0],
    ['null', 0],
    ['', 0],
  ] as const) {
    await writeFile(join(cache.folder, 'places.json'), text);
    expect(fresh()).toHaveLength(expected);
  }
  expect(cache.entries()).toEqual([]);
});

it('gives what was there when it was prepared, and reads the rest', async () => {
  for (let i = 0; i < 6; i++)
    await cache.save({ ...kernel, buildId: i.toString(16).padStart(40, '0') }, IMAGE);
  await cache.place({ root: 0x1000n, levels: 4 });
  const prepared = new KernelCache(cache.folder);
  prepared.prepare();
  const entries = prepared.entries();
  expect(entries).toHaveLength(6);
  for (const entry of entries) expect(prepared.load(entry, IMAGE)?.buildId).toBe(entry.buildId);
  await rm(cache.folder, { recursive: true });
  expect(prepared.entries()).toEqual(entries);
  expect(prepared.places()).toEqual([{ root: 0x1000n, levels: 4 }]);
  const there = entries.filter((entry) => prepared.load(entry, IMAGE) !== undefined);
  expect(there).toHaveLength(4);
  new KernelCache(join(folder, 'none')).prepare();
});

it('keeps only so many kernels', async () => {
  for (let i = 0; i < 70; i++)
    await cache.save({ ...kernel, buildId: i.toString(16).padStart(40, '0') }, IMAGE);
  expect(cache.entries().length).toBe(64);
  expect(
    JSON.parse(
      await readFile(
        join(cache.folder, `${(69).toString(16).padStart(40, '0')}-1234.json`),
        'utf8',
      ),
    ).version,
  ).toBe(1);
});

it('is where the environment says', () => {
  expect(cacheFolder({ NODE_LIBVMI_CACHE: '/x' })).toBe('/x');
  expect(cacheFolder({ XDG_CACHE_HOME: '/y' })).toBe('/y/node-libvmi/kernels');
  expect(cacheFolder({})).toMatch(/\/\.cache\/node-libvmi\/kernels$/);
});
