import { existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { addon } from '../../lib/addon.js';
import { FaultError, VmiError } from '../../lib/errors.js';
import { Libvmi, type LibvmiOptions } from '../../lib/libvmi/libvmi.js';
import { REGISTERS } from '../../lib/libvmi/registers.js';
import { count, StandIn } from './support/stand-in.js';

const read = (path: string) => readFileSync(fileURLToPath(new URL(path, import.meta.url)), 'utf8');
const TABLE = read('../../native/source/libvmi/abi.h');
const DOCS = read('../../docs/libvmi.md');
const HEADER = ['/usr/local/include', '/usr/include']
  .map((folder) => `${folder}/libvmi/libvmi.h`)
  .find((path) => existsSync(path));

const standIn = new StandIn();
const open = (options: Partial<LibvmiOptions> = {}) => {
  standIn.order();
  return Libvmi.init({ mode: 'kvm', name: standIn.ram, library: standIn.library, ...options });
};
afterEach(() => standIn.calls());
afterAll(() => standIn.remove());

/** Rows of the docs' table: function, method or `–`, why. */
const rows = [...DOCS.matchAll(/^\| `(vmi_\w+)` \| (?:`([\w.]+)`|–) \| (.*?) ?\|$/gm)].map(
  ([, name, method, why]) => ({
    name: name!,
    method,
    why: why!,
  }),
);

describe('the docs', () => {
  test.skipIf(HEADER === undefined)('list every function of libvmi.h and events.h', () => {
    const declared = ['libvmi.h', 'events.h']
      .map((name) => readFileSync(join(dirname(HEADER!), name), 'utf8'))
      .join('\n')
      .replace(/\/\*[\s\S]*?\*\//g, '');
    const functions = new Set([...declared.matchAll(/\b(vmi_\w+)\s*\(/g)].map(([, name]) => name!));
    expect(functions.size).toBeGreaterThan(115);
    expect(rows.map(({ name }) => name).sort()).toEqual([...functions].sort());
  });

  test('name a method that exists, or a reason', () => {
    expect(rows.length).toBeGreaterThan(100);
    for (const { name, method, why } of rows) {
      if (method === undefined) {
        expect(why, name).not.toBe('');
        continue;
      }
      const [, factory] = method.split('.');
      const found =
        factory === undefined
          ? Reflect.get(Libvmi.prototype, method)
          : Reflect.get(Libvmi, factory);
      expect(found, `${name} as ${method}`).toBeTypeOf('function');
    }
  });

  test('bind every call of the table, and nothing else', () => {
    const table = [...TABLE.matchAll(/X\(1[24], [^,]+, (vmi_\w+),/g)].map(([, name]) => name!);
    const composed = [
      'vmi_init_complete',
      'vmi_read_str_pa',
      'vmi_read_str_va',
      'vmi_read_str_ksym',
    ];
    const bound = rows.filter(({ method }) => method !== undefined).map(({ name }) => name);
    expect(bound.sort()).toEqual([...table, ...composed].sort());
  });
});

test("the registers have libvmi's numbers", () => {
  const table = TABLE.slice(TABLE.indexOf('LIBVMI_REGISTERS'), TABLE.indexOf('LIBVMI_CONSTANTS'));
  const numbers = Object.fromEntries(
    [...table.matchAll(/X\([\s\\]*(\w+), (\d+)\)/g)].map(([, name, value]) => [
      name,
      Number(value),
    ]),
  );
  expect(REGISTERS).toEqual(numbers);
});

describe('success with nothing is a failure', () => {
  test('a sleeping kernel thread has no page table', async () => {
    await using libvmi = await open();
    expect(await libvmi.pidToDtb(1)).toBe(0x1000n);
    await expect(libvmi.pidToDtb(2)).rejects.toMatchObject({ code: 'VMI_NO_TASK' });
    await expect(libvmi.pidToDtb(100)).rejects.toMatchObject({ code: 'VMI_NO_TASK' });
  });

  test('an offset that was not written', async () => {
    await using libvmi = await open();
    await expect(libvmi.getOffset('linux_tasks')).rejects.toMatchObject({
      code: 'VMI_TYPE',
      message: `kvm:${standIn.ram}: libvmi has no offset 'linux_tasks'`,
    });
  });

  test('an unknown symbol', async () => {
    await using libvmi = await open();
    expect(await libvmi.translateKsym2v('init_task')).toBe(0xffff_ffff_82a1_5940n);
    await expect(libvmi.translateKsym2v('nothing')).rejects.toMatchObject({ code: 'VMI_SYMBOL' });
  });

  test('a short read', async () => {
    await using libvmi = await open();
    expect(await libvmi.readPa(0x1000, 8)).toEqual(Buffer.from([0, 0x10, 0, 0, 0, 0, 0, 0]));
    const end = libvmi.getMemsize();
    const error = await libvmi.readPa(end - 4n, 16).catch((error) => error);
    expect(error).toBeInstanceOf(FaultError);
    expect(error).toMatchObject({ address: end, requested: 16, transferred: 4, space: 'physical' });
  });

  test.each(['short', 'lie'] as const)('a read that is told to %s', async (fault) => {
    // vmi_init, three caches, then the read.
    standIn.order(fault, 5);
    await using libvmi = await Libvmi.init({
      mode: 'kvm',
      name: standIn.ram,
      library: standIn.library,
    });
    await expect(libvmi.readPa(0x1000, 16)).rejects.toMatchObject({ code: 'VMI_FAULT' });
  });
});

test('what libvmi caches of guest memory is dropped before every call, symbols are not', async () => {
  await using libvmi = await open();
  standIn.calls();
  await libvmi.readPa(0, 8);
  expect(standIn.calls()).toEqual([
    'vmi_pagecache_flush',
    'vmi_v2pcache_flush',
    'vmi_pidcache_flush',
    'vmi_read_pa',
  ]);
});

test('strings are bounded', async () => {
  await using libvmi = await open();
  // Address 0x2020 and after hold bytes ` ` and 0, in pairs up to 8.
  expect(await libvmi.readStrPa(0x2020)).toBe('  ');
  expect(await libvmi.readStrPa(0x2020, { limit: 1 })).toBe(' ');
  standIn.calls();
  const end = libvmi.getMemsize();
  await expect(libvmi.readStrPa(end)).rejects.toBeInstanceOf(FaultError);
});

test('a call that this libvmi lacks', async () => {
  await using libvmi = await open();
  expect(libvmi.has('vmi_get_tsc_info')).toBe(false);
  expect(libvmi.has('vmi_pid_to_dtb')).toBe(true);
  await expect(libvmi.getTscInfo()).rejects.toMatchObject({
    code: 'VMI_UNSUPPORTED',
    message: expect.stringContaining('has no vmi_get_tsc_info'),
  });
});

test('wrong arguments never reach libvmi', async () => {
  await using libvmi = await open();
  standIn.calls();
  await expect(libvmi.readPa(-1, 8)).rejects.toBeInstanceOf(RangeError);
  await expect(libvmi.readPa(2n ** 64n, 8)).rejects.toBeInstanceOf(RangeError);
  await expect(libvmi.readPa(0, 1 << 30)).rejects.toBeInstanceOf(RangeError);
  await expect(libvmi.pidToDtb(2 ** 31)).rejects.toBeInstanceOf(RangeError);
  await expect(libvmi.pidToDtb('1' as never)).rejects.toBeInstanceOf(TypeError);
  await expect(libvmi.translateKsym2v('a\0b')).rejects.toBeInstanceOf(RangeError);
  await expect(libvmi.getVcpureg('CR9' as never)).rejects.toBeInstanceOf(RangeError);
  expect(standIn.calls()).toEqual([]);
});

test('a guest that was paused is resumed when the instance ends', async () => {
  const libvmi = await open();
  await libvmi.pauseVm();
  standIn.calls();
  await libvmi.destroy();
  await libvmi.destroy();
  expect(standIn.calls()).toEqual(['vmi_resume_vm', 'vmi_destroy']);
  await expect(libvmi.readPa(0, 8)).rejects.toMatchObject({ code: 'VMI_CLOSED' });
  expect(() => libvmi.getMemsize()).toThrow(VmiError);
});

test('calls queue up, and one that is withdrawn before its turn never runs', async () => {
  standIn.order('block', 2, 300);
  const libvmi = await Libvmi.init({ mode: 'kvm', name: standIn.ram, library: standIn.library });
  const slow = libvmi.pidToDtb(1);
  const controller = new AbortController();
  const waiting = libvmi.translateKsym2v('init_task', { signal: controller.signal });
  const next = libvmi.pidToDtb(3);
  controller.abort();
  await expect(waiting).rejects.toMatchObject({ code: 'VMI_ABORTED' });
  expect(await slow).toBe(0x1000n);
  expect(await next).toBe(0x3000n);
  await libvmi.destroy();
  expect(count(standIn.calls(), 'vmi_translate_ksym2v')).toBe(0);
});

test('a read on the calling thread and a queued call are never inside libvmi at once', async () => {
  standIn.order();
  const big = `${standIn.folder}/big`;
  writeFileSync(big, '');
  truncateSync(big, 64 << 20);
  const { Libvmi: Native } = addon();
  const native = new Native({
    driver: 'file',
    name: big,
    library: standIn.library,
    deadline: 5_000,
    direct: true,
  });
  await native.attach(5_000).done;
  const memory = native.memory(BigUint64Array.of(0n, 64n << 20n, 0n));
  for (let round = 0; round < 3; round++) {
    let scanning = true;
    const pattern = Buffer.from('nowhere to be found');
    // On a thread of its own, straight into libvmi.
    const scan = memory.scan({ pattern, stride: 1, offsets: [0], max: 1 }).finally(() => {
      scanning = false;
    });
    while (scanning) await native.call('vmi_pid_to_dtb', [1], 5_000, false).done;
    expect((await scan).length).toBe(0);
  }
  memory.close();
  await native.close().done;
  const calls = standIn.calls();
  expect(count(calls, 'vmi_read_pa')).toBeGreaterThan(10);
  expect(count(calls, 'vmi_pid_to_dtb')).toBeGreaterThan(10);
  expect(calls).not.toContain('OVERLAP');
});

describe('what is wrong with an argument', () => {
  const untyped = (value: unknown) => value as never;

  test('an option that there is not is refused by its name', async () => {
    await expect(Libvmi.init(untyped(undefined))).rejects.toThrow(
      'Expected options as an object but received undefined',
    );
    await expect(open(untyped({ dedline: 5 }))).rejects.toThrow(
      "but received 'dedline'; did you mean deadline?",
    );
    await expect(open(untyped({ mode: 'vmware' }))).rejects.toThrow(
      "Expected mode as one of xen, kvm, file but received 'vmware'",
    );
    const libvmi = await open();
    try {
      await expect(libvmi.pidToDtb(1, untyped({ signals: 1 }))).rejects.toThrow(
        "Expected options with signal, deadline, limit but received 'signals'; did you mean signal?",
      );
      await expect(libvmi.getPageMode(0, untyped({ signal: {} }))).rejects.toThrow(
        'Expected signal as an AbortSignal but received an object',
      );
      await expect(libvmi.initOs('global', untyped(null))).rejects.toThrow(
        'Expected options as an object but received null',
      );
    } finally {
      await libvmi.destroy();
    }
  });
});
