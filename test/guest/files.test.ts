import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attach, type Guest, loadProfile } from '../../lib/index.js';
import { TOKEN_PATTERN } from '../../lib/kernel/symbols/kallsyms-tokens.js';
import { guestImage } from '../hostile/image.mjs';
import { kernel } from '../lab/kernel.mjs';
import { oracle } from '../lab/oracle.mjs';
import { which } from '../lab/run.mjs';
import { isBuilt, testKernel } from '../lab/test-kernels.mjs';
import { wipe } from '../lab/wipe.mjs';

/** What a user has of a kernel, for a guest that tells neither symbols nor types. docs/files.md. */
const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-files-'));
const ram = join(folder, 'guest.ram');
let debian: Awaited<ReturnType<typeof kernel>>;
let right = '';
let pidAt = 0;

const answers = (guest: Guest) =>
  JSON.stringify(guest.tasks({ threads: true }).map((task) => task.toJSON()));

beforeAll(async () => {
  debian = await kernel({ suite: 'bookworm', flavour: 'cloud' });
  execFileSync('cp', ['--sparse=always', (await guestImage('bookworm')).ram, ram]);
  await using guest = await attach(`image:${ram}`, { cache: false });
  const { memory, symbols, types } = guest.kernel;
  right = answers(guest);
  pidAt = types.offset('task_struct', 'pid');
  const [start, stop] = [symbols.address('__start_BTF'), symbols.address('__stop_BTF')];
  writeFileSync(join(folder, 'vmlinux.btf'), memory.read(start, Number(stop - start)));
  wipe(ram, [memory.translate(start), ...(await guest.memory.scan(TOKEN_PATTERN, { max: 4096 }))]);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function listedWith(profile: string): Promise<{ symbols: string; types: string }> {
  await using guest = await attach(`image:${ram}`, { cache: false, profile });
  expect(answers(guest) === right).toBe(true);
  return guest.kernel.provenance;
}

describe('a guest whose kernel tells nothing, by a file that its user has', () => {
  it('is read with the bootable kernel', async ({ skip }) => {
    if (!(await which('xz')))
      return skip('xz is not installed, with which Debian packs its kernel');
    expect(await listedWith(debian.vmlinuz)).toMatchObject({
      symbols: debian.vmlinuz,
      types: debian.vmlinuz,
    });
    const profile = await loadProfile(debian.vmlinuz);
    expect(profile.banner).toContain(`Linux version ${debian.release} `);
    expect(profile.symbols!.count).toBeGreaterThan(50_000);
  });

  it('is read with a BTF file, packed or not', async () => {
    const file = join(folder, 'vmlinux.btf');
    expect(await listedWith(file)).toMatchObject({ symbols: 'contents', types: file });
    execFileSync('gzip', ['-k', file]);
    expect((await loadProfile(`${file}.gz`)).types!.offset('task_struct', 'pid')).toBe(pidAt);
  });

  it('is read with a module that has DWARF', async ({ skip }) => {
    if (!(await which('pahole'))) return skip('pahole is not installed (package dwarves)');
    const file = await oracle(debian);
    const profile = await loadProfile(file);
    expect(profile.symbols).toBeUndefined();
    expect(await listedWith(file)).toMatchObject({ symbols: 'contents', types: file });
  });

  it('is not read with the file of another kernel', async ({ skip }) => {
    if (!(await isBuilt('no-btf'))) return skip('the test kernel no-btf is not built');
    const { vmlinux } = await testKernel('no-btf');
    await expect(attach(`image:${ram}`, { cache: false, profile: vmlinux })).rejects.toThrow(
      /does not fit this guest/,
    );
  });
});

describe('a file of a kernel', () => {
  it('may be a vmlinux, with symbols and types', async ({ skip }) => {
    if (!(await isBuilt('base-small'))) return skip('the test kernel base-small is not built');
    const { vmlinux, vmlinuz, release } = await testKernel('base-small');
    const linked = await loadProfile(vmlinux);
    const packed = await loadProfile(vmlinuz);
    for (const { banner } of [linked, packed]) expect(banner).toContain(release);
    for (const name of ['init_task', 'linux_banner', '__per_cpu_offset', 'schedule']) {
      expect(packed.symbols!.find(name), name).toBe(linked.symbols!.address(name));
    }
    for (const member of ['pid', 'mm', 'real_cred']) {
      const offset = linked.types!.offset('task_struct', member);
      expect(packed.types!.offset('task_struct', member)).toBe(offset);
    }
    expect(linked.symbols!.at(linked.symbols!.address('schedule'))!.name).toBe('schedule');
  });

  it('may be a configuration, which says what is missing', async () => {
    const config = join(debian.directory, 'boot', `config-${debian.release}`);
    await expect(loadProfile(config)).rejects.toThrow(
      /is a kernel's configuration, .* has BTF, has kallsyms/,
    );
  });

  it('may be of no use, and says why', async () => {
    const file = (name: string, bytes: Buffer) => {
      writeFileSync(join(folder, name), bytes);
      return join(folder, name);
    };
    const vmlinuz = readFileSync(debian.vmlinuz);
    const cut = file('cut', vmlinuz.subarray(0, vmlinuz.length >> 1));
    await expect(loadProfile(cut)).rejects.toThrow(/cannot be unpacked: it is cut off/);
    const program = readFileSync('/bin/ls');
    await expect(loadProfile('/bin/ls')).rejects.toThrow(/neither symbols .* nor types/);
    const half = file('half', program.subarray(0, program.length >> 1));
    await expect(loadProfile(half)).rejects.toThrow(/its table of sections is cut off/);
    const btf = readFileSync(join(folder, 'vmlinux.btf'));
    const damaged = file('damaged', btf.subarray(0, btf.length >> 1));
    await expect(loadProfile(damaged)).rejects.toMatchObject({ code: 'VMI_ATTACH' });
  });
});
