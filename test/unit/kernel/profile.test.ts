import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { parseIsf } from '../../../lib/kernel/profile/isf.js';
import { confProfile } from '../../../lib/kernel/profile/libvmi-conf.js';
import { loadProfile } from '../../../lib/kernel/profile/load-profile.js';
import { parseSystemMap } from '../../../lib/kernel/profile/system-map.js';
import { parseConf } from '../../../lib/libvmi/conf.js';

const refusal = (message: string | RegExp) =>
  expect.objectContaining({
    code: 'VMI_ATTACH',
    message: typeof message === 'string' ? message : expect.stringMatching(message),
  });

describe('System.map', () => {
  const lines = Array.from(
    { length: 200 },
    (_, i) => `ffffffff8100${i.toString(16).padStart(4, '0')} T symbol_${i}`,
  );

  it('is parsed; modules are left out', () => {
    const { symbols } = parseSystemMap(
      [
        ...lines,
        'ffffffffc0000000 t module_function [ext4]',
        '',
        '0000000000020000 A per_cpu',
      ].join('\n'),
    );
    expect(symbols!.count).toBe(201);
    expect(symbols!.find('module_function')).toBeUndefined();
    const moved = symbols!.moved(0x20_0000n);
    expect(moved.find('symbol_1')).toBe(0xffff_ffff_8120_0001n);
    expect(moved.find('per_cpu')).toBe(0x2_0000n);
    expect(moved.at(0xffff_ffff_8120_0001n)).toEqual({
      name: 'symbol_1',
      address: 0xffff_ffff_8120_0001n,
      offset: 0,
    });
    expect(symbols!.complete('symbol_19')).toHaveLength(11);
    expect(() => symbols!.address('symbol')).toThrow(
      /^no symbol 'symbol' in System\.map; did you mean symbol_0, /,
    );
  });

  it('is refused when it is a stub, as Debian ships, or has no addresses', () => {
    expect(() =>
      parseSystemMap(
        'ffffffffffffffff B The real System.map is in the linux-image-dbg package\n',
        '/boot/System.map',
      ),
    ).toThrow(
      refusal(
        "/boot/System.map has 0 symbols in 1 lines: it is a stub or no System.map; leave it out, the guest's own symbols will do",
      ),
    );
    expect(() =>
      parseSystemMap(lines.map((line) => line.replace(/^\w+/, '0000000000000000')).join('\n')),
    ).toThrow(
      refusal('System.map has only zero addresses: it was read without the right to see them'),
    );
  });
});

describe('libvmi.conf', () => {
  const text = `
# a comment
debian {
    ostype = "Linux";
    sysmap = "/boot/System.map-6.1"; # another
    linux_name = 0xba0;
    linux_tasks = 2192;
    linux_mm = 0x8e0; linux_pid = 0x970; linux_pgd = 0x48;
    linux_kaslr = 0x15200000;
}
"win7 pro" { ostype = "Windows"; win_tasks = 0x188; }
`;

  it('gives offsets, and the name of the System.map', () => {
    const profile = confProfile(parseConf(text), 'debian');
    expect(profile.sysmap).toBe('/boot/System.map-6.1');
    expect(profile.source).toBe('libvmi.conf (debian)');
    expect(profile.types!.offset('task_struct', 'tasks')).toBe(2192);
    expect(profile.types!.offset('struct task_struct', 'comm')).toBe(0xba0);
    expect(profile.types!.offset('mm_struct', 'pgd')).toBe(72);
    expect(profile.types!.findOffset('task_struct', 'active_mm')).toBeUndefined();
    expect(profile.types!.findSize('task_struct')).toBeUndefined();
  });

  it.each([
    [
      'an entry that is absent',
      () => confProfile(parseConf(text), 'debain'),
      "libvmi.conf: no entry 'debain'; did you mean debian? (it has debian, win7 pro)",
    ],
    [
      'no entry of several',
      () => confProfile(parseConf(text), undefined),
      'libvmi.conf: an entry must be named (it has debian, win7 pro)',
    ],
    [
      'an entry for Windows',
      () => confProfile(parseConf(text), 'win7 pro'),
      "libvmi.conf: entry 'win7 pro' is for Windows, not for Linux",
    ],
    [
      'an entry without anything',
      () => confProfile(parseConf('a { ostype = "Linux"; }'), 'a'),
      "libvmi.conf: entry 'a' has neither offsets (linux_tasks, …) nor a sysmap",
    ],
    [
      'an offset that is none',
      () => confProfile(parseConf('a { linux_tasks = 0xffffffff; }'), 'a'),
      "libvmi.conf: linux_tasks of entry 'a' is no offset: 4294967295",
    ],
    [
      'a missing semicolon',
      () => parseConf('a {\n x = 1\n}'),
      "libvmi.conf, line 3: expected ; but found '}'",
    ],
    [
      'a missing end',
      () => parseConf('a {\n x = 1;'),
      'libvmi.conf, line 2: the file ends where } belongs',
    ],
    [
      'a string that does not end',
      () => parseConf('a { x = "1; }'),
      'libvmi.conf, line 1: unexpected "\\""',
    ],
  ])('is refused with %s', (_, act, message) => {
    expect(act).toThrow(refusal(message));
  });
});

describe('a Volatility symbol file', () => {
  const isf = {
    metadata: { format: '6.2.0' },
    base_types: {
      'long unsigned int': { kind: 'int', size: 8, signed: false, endian: 'little' },
      char: { kind: 'char', size: 1, signed: true },
      int: { kind: 'int', size: 4, signed: true },
      pointer: { kind: 'int', size: 8 },
    },
    enums: { pid_type: { size: 4, base: 'int', constants: { PIDTYPE_PID: 0, PIDTYPE_TGID: 1 } } },
    user_types: {
      task_struct: {
        kind: 'struct',
        size: 100,
        fields: {
          pid: { offset: 8, type: { kind: 'base', name: 'int' } },
          unnamed_field_10: {
            offset: 16,
            anonymous: true,
            type: { kind: 'struct', name: 'unnamed_00ff' },
          },
          comm: {
            offset: 32,
            type: { kind: 'array', count: 16, subtype: { kind: 'base', name: 'char' } },
          },
          next: {
            offset: 48,
            type: { kind: 'pointer', subtype: { kind: 'struct', name: 'task_struct' } },
          },
          bit: {
            offset: 56,
            type: {
              kind: 'bitfield',
              bit_position: 3,
              bit_length: 2,
              type: { kind: 'base', name: 'int' },
            },
          },
          kind: { offset: 60, type: { kind: 'enum', name: 'pid_type' } },
          run: { offset: 64, type: { kind: 'pointer', subtype: { kind: 'function' } } },
          gone: { offset: 72, type: { kind: 'struct', name: 'opaque' } },
        },
      },
      unnamed_00ff: {
        kind: 'union',
        size: 8,
        fields: { mm: { offset: 0, type: { kind: 'base', name: 'long unsigned int' } } },
      },
    },
    symbols: {
      init_task: { address: 0 },
      linux_banner: {
        address: 0,
        constant_data: Buffer.from('Linux version 6.1.0 (x)\n\0').toString('base64'),
      },
    },
  };
  const text = JSON.stringify(isf).replace(
    '"init_task":{"address":0}',
    '"init_task":{"address":18446744071600538432}',
  );

  it.each([
    ['plain', Buffer.from(text), 'a.json'],
    ['gzip', gzipSync(text), 'a.json.gz'],
    ['Brotli', brotliCompressSync(text), 'a.json.br'],
  ])('is read as %s', (_, bytes, source) => {
    const profile = parseIsf(bytes, source);
    expect(profile.banner).toBe('Linux version 6.1.0 (x)');
    expect(profile.symbols!.find('init_task')).toBe(18446744071600538432n);
    const { types } = profile;
    expect(types!.offset('task_struct', 'mm')).toBe(16);
    expect(types!.size('task_struct')).toBe(100);
    expect(types!.size('pid_type')).toBe(4);
    const task = types!.struct('task_struct');
    expect(task.member('comm')).toMatchObject({
      offset: 32,
      size: 16,
      type: { kind: 'array', name: 'char[16]' },
    });
    expect(task.member('bit')).toMatchObject({ offset: 56, bitOffset: 451, bitSize: 2 });
    expect(task.member('next').type).toMatchObject({
      kind: 'pointer',
      name: 'struct task_struct *',
      target: { kind: 'struct', size: 100 },
    });
    expect(task.member('kind').type).toMatchObject({ kind: 'enum', signed: true });
    expect(task.member('run').type).toMatchObject({
      kind: 'pointer',
      target: { kind: 'function' },
    });
    expect(task.member('gone').type).toMatchObject({ kind: 'forward' });
  });

  it('is refused when packed with xz, broken, or something else', () => {
    expect(() =>
      parseIsf(Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 1, 2]), 'k.json.xz'),
    ).toThrow(
      refusal(
        "k.json.xz is packed with xz, which Node cannot unpack: run 'xz -dk k.json.xz' and give the .json file",
      ),
    );
    expect(() => parseIsf(gzipSync(text).subarray(0, 40), 'k.gz')).toThrow(
      refusal(/^cannot unpack k\.gz: /),
    );
    expect(() => parseIsf(Buffer.from('{'), 'k')).toThrow(refusal(/^k is no JSON: /));
    for (const other of ['{}', 'null', '[]', '{"metadata":{"format":"6"}}']) {
      expect(() => parseIsf(Buffer.from(other), 'k')).toThrow(
        refusal('k is no Volatility 3 symbol file: it has no metadata.format or no user_types'),
      );
    }
  });
});

describe('a symbol file of an object', () => {
  it('has types only: its symbols are no addresses of a kernel', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-profile-'));
    const path = join(folder, 'object.json');
    const isf = {
      metadata: { format: '6.2.0' },
      base_types: { int: { kind: 'int', size: 4, signed: true } },
      user_types: {
        task_struct: {
          kind: 'struct',
          size: 100,
          fields: { pid: { offset: 8, type: { kind: 'base', name: 'int' } } },
        },
      },
      enums: {},
      symbols: { init_module: { address: 16 } } as Record<string, { address: number }>,
    };
    try {
      writeFileSync(path, JSON.stringify(isf));
      const profile = await loadProfile(path);
      expect(profile.symbols).toBeUndefined();
      expect(profile.types!.offset('task_struct', 'pid')).toBe(8);
      isf.symbols._text = { address: 4096 };
      writeFileSync(path, JSON.stringify(isf));
      expect((await loadProfile(path)).symbols!.find('init_module')).toBe(16n);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
