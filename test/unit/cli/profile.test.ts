import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { kaslrOffset } from '../../../lib/export/linked.js';
import { exportProfile, PROFILE_FORMATS, type ProfileFormat } from '../../../lib/export/profile.js';
import { Kernel } from '../../../lib/kernel/kernel.js';
import type { KernelOptions } from '../../../lib/kernel/kernel-options.js';
import { loadProfile } from '../../../lib/kernel/profile/load-profile.js';
import { buildGuest, registersOf } from '../kernel/support/build-guest.js';
import { fakeAddon, fakePhysicalMemory } from '../support/fake-memory.js';
import { vmi } from './fake-guest.js';

vi.mock('../../../lib/addon.js', () => ({ addon: () => fakeAddon }));

const built = buildGuest();
const load = (options: KernelOptions = {}) =>
  Kernel.load(fakePhysicalMemory(built.memory), {
    cache: false,
    registers: [registersOf(built.root)],
    ...options,
  });
const text = (
  kernel: Kernel,
  format: ProfileFormat,
  options: { name?: string; sysmap?: string } = {},
) => [...exportProfile(kernel, format, { name: 'guest', version: '1.2.3', ...options })].join('');

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'node-libvmi-profile-'));
});
afterEach(() => rm(folder, { recursive: true }));

/** The others are for tools only. */
const READ_BACK = PROFILE_FORMATS.filter((one) => one !== 'vmcoreinfo' && one !== 'btf');

describe('an exported profile', () => {
  it.each(READ_BACK)('%s gives the same kernel back', async (format) => {
    const kernel = await load();
    const path = join(folder, format);
    const map = join(folder, 'System.map');
    await writeFile(map, text(kernel, 'system-map'));
    await writeFile(path, text(kernel, format, { sysmap: map }));
    const again = await load({ profile: await loadProfile(path) });
    expect(again.provenance.symbols).toBe(format === 'libvmi-conf' ? map : path);
    expect(again.provenance.types).toContain(format === 'system-map' ? 'btf' : path);
    for (const name of ['_text', 'init_task', 'linux_banner', 'init_mm']) {
      expect(again.symbols.address(name), name).toBe(kernel.symbols.address(name));
    }
    for (const [struct, member] of [
      ['task_struct', 'tasks'],
      ['task_struct', 'pid'],
      ['task_struct', 'comm'],
      ['mm_struct', 'pgd'],
    ] as const) {
      expect(again.types.offset(struct, member), member).toBe(kernel.types.offset(struct, member));
    }
    expect(again.types.size('task_struct')).toBe(kernel.types.size('task_struct'));
    expect(again.root).toBe(kernel.root);
  });

  it('has symbols at the addresses they were linked to', async () => {
    const kernel = await load();
    const offset = kaslrOffset(kernel);
    expect(built.virtual - offset).toBe(0xffff_ffff_8100_0000n);
    const linked = (kernel.symbols.address('init_task') - offset).toString(16);
    expect(text(kernel, 'system-map')).toMatch(new RegExp(`^${linked} \\w init_task$`, 'm'));
    const isf = text(kernel, 'isf');
    expect(isf).toMatch(
      new RegExp(
        `^"init_task":{"type":{"kind":"struct","name":"task_struct"},"address":${BigInt(`0x${linked}`)}},?$`,
        'm',
      ),
    );
    const { metadata, symbols } = JSON.parse(isf);
    expect(metadata).toMatchObject({
      format: '6.2.0',
      producer: { name: 'node-libvmi', version: '1.2.3' },
    });
    expect(Buffer.from(symbols.linux_banner.constant_data, 'base64').toString()).toMatch(
      /^Linux version 6\.1\.0-test-amd64 .*\0$/s,
    );
  });

  it('has this boot in an entry of libvmi.conf, and says where it lacks symbols', async () => {
    const kernel = await load();
    const entry = text(kernel, 'libvmi-conf');
    expect(entry).toContain(`    kpgd = 0x${built.root.toString(16)};\n`);
    expect(entry).toContain(`    linux_kaslr = 0x${kaslrOffset(kernel).toString(16)};\n`);
    expect(entry).toContain(
      `    linux_init_task = 0x${kernel.symbols.address('init_task').toString(16)};\n`,
    );
    expect(entry).toContain('# sysmap = ');
    expect(text(kernel, 'libvmi-conf', { sysmap: '/etc/a.map' })).toContain(
      '    sysmap = "/etc/a.map";\n',
    );
  });

  it.each([
    [{ name: '10' }],
    [{ name: '0xab' }],
    [{ name: 'x' }],
    [{ name: 'my vm' }],
    [{ name: 'web:1' }],
    [{ name: 'a\nb' }],
    [{ sysmap: '/tmp/my maps/a' }],
    [{ sysmap: '/tmp/"a' }],
    [{ sysmap: 'a.map' }],
  ])("refuses %j, which libvmi's parser cannot read", async (options) => {
    const kernel = await load();
    expect(() => text(kernel, 'libvmi-conf', options)).toThrow(
      expect.objectContaining({ code: 'VMI_UNSUPPORTED' }),
    );
  });

  it('in JSON is read however another tool has formatted it', async () => {
    const kernel = await load();
    const path = join(folder, 'p.json');
    const written = JSON.parse(text(kernel, 'json')) as Record<string, unknown>;
    const sorted = Object.fromEntries(Object.entries(written).sort().reverse());
    for (const again of [
      JSON.stringify(written, undefined, 2),
      JSON.stringify(sorted),
      `\n ${JSON.stringify(sorted, undefined, '\t')}`,
    ]) {
      await writeFile(path, again);
      const { types } = await loadProfile(path);
      expect(types?.offset('task_struct', 'pid')).toBe(kernel.types.offset('task_struct', 'pid'));
    }
  });

  it('is refused when it was changed into something else', async () => {
    const path = join(folder, 'p.json');
    await writeFile(path, '{"format":"node-libvmi-profile-1"}');
    await expect(loadProfile(path)).rejects.toThrow(
      'is no profile of the format node-libvmi-profile-1',
    );
    await writeFile(path, '{"format":"node-libvmi-profile-1","types":{},"symbols":[{"name":"a"}]}');
    await expect(loadProfile(path)).rejects.toThrow(
      'has a symbol without name or address: {"name":"a"}',
    );
    await writeFile(path, '{"format":"node-libvmi-profile-1",');
    await expect(loadProfile(path)).rejects.toThrow(/p\.json is no JSON: /);
  });

  it('is refused when it is none, a device without an end, or no path', async () => {
    const path = join(folder, 'text');
    await writeFile(path, 'root:x:0:0\n');
    await expect(loadProfile(path)).rejects.toThrow(/is no profile: neither .* a System\.map, /);
    await expect(loadProfile('/dev/zero')).rejects.toThrow('/dev/zero: it is a device');
    for (const paths of [undefined, 5, [5]] as never[])
      await expect(loadProfile(paths)).rejects.toThrow(TypeError);
  });
});

describe('vmi profile', () => {
  it.each([
    [[], 'missing --format (libvmi-conf, system-map, isf, json, vmcoreinfo, btf)'],
    [
      ['--format', 'dwarf'],
      "Expected --format as one of libvmi-conf, system-map, isf, json, vmcoreinfo, btf but received 'dwarf'",
    ],
    [['--format', 'isf', '--name', 'a1'], '--name goes with --format libvmi-conf only'],
    [['--format', 'json', '--sysmap', '/a'], '--sysmap goes with --format libvmi-conf only'],
  ])('refuses %j', async (options, message) => {
    expect(await vmi(['profile', 'qemu:4242', ...options])).toMatchObject({
      code: 2,
      stdout: '',
      stderr: `vmi: ${message}; see 'vmi profile --help'\n`,
    });
  });
});
