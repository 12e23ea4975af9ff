import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { exportProfile } from '../../lib/export/profile.js';
import { attach, CrashError, type Guest, libvmiKernel, type Target } from '../../lib/index.js';
import type { LibvmiConfig } from '../../lib/libvmi/config.js';
import { Libvmi } from '../../lib/libvmi/libvmi.js';
import { compareTasks, expectedCr3 } from '../lab/compare.mjs';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';
import type { Truth } from '../lab/truth.mjs';
import { hostsOf } from '../libvmi/support/hosts.js';
import { NO_LIBVMI } from '../libvmi/support/real.js';

const target = (lab: LabGuest, options: object = {}): Target =>
  ({ kind: 'libvmi', driver: 'file', name: lab.memoryPath!, ...options }) as Target;
/** Every read through vmi_read_pa, and the same from a process of libvmi's own. */
const WAYS = [{ map: false }, { map: false, isolate: true }] as const;

async function expectTruth(lab: LabGuest, truth: Truth, options: object): Promise<void> {
  await using guest = await attach(target(lab, options), { cache: false });
  expect(guest.capabilities.map).toBe(false);
  const tasks = guest.tasks({ threads: true }).map((task) => task.toJSON());
  expect(compareTasks(truth, tasks)).toEqual([]);
  for (const task of truth.tasks.filter(({ kind }) => kind === 'process' || kind === 'thread'))
    expect(guest.pidToCr3(task.pid), `PID ${task.pid}`).toBe(expectedCr3(truth, task).cr3);
}

describe.skipIf(NO_LIBVMI !== undefined)("libvmi's file driver on a guest that runs", () => {
  let lab: LabGuest;
  let guest: Guest;
  let folder: string;
  const homeBefore = process.env.HOME;

  beforeAll(async () => {
    lab = await bootGuest({
      suite: 'bookworm',
      flavour: 'cloud',
      backend: 'file',
      memory: 512,
      tasks: 60,
    });
    guest = await attach(`image:${lab.memoryPath}`, { cache: false });
    folder = mkdtempSync(join(tmpdir(), 'node-libvmi-conf-'));
    writeFileSync(
      join(folder, 'System.map'),
      [...exportProfile(guest.kernel, 'system-map', names('guest'))].join(''),
    );
    writeFileSync(
      join(folder, 'isf.json'),
      [...exportProfile(guest.kernel, 'isf', names('guest'))].join(''),
    );
  });
  afterAll(async () => {
    process.env.HOME = homeBefore;
    rmSync(folder, { recursive: true, force: true });
    await guest?.close();
    await lab?.close();
  });
  it('refuses a file that is smaller than a page', async () => {
    const file = join(folder, 'small');
    writeFileSync(file, 'no image');
    const error = await attach(`libvmi:${file}`).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'VMI_ATTACH' });
    expect((error as Error).message).toMatch(/no memory image/);
  });

  const names = (name: string) => ({ name, sysmap: join(folder, 'System.map'), version: '0' });
  const entry = (name: string) =>
    [...exportProfile(guest.kernel, 'libvmi-conf', names('guest'))]
      .join('')
      .replace(/^guest /m, `${name} `);
  const braces = () =>
    entry('guest')
      .replace(/^[^{]*\{/, '')
      .replace(/\}\s*$/, '');

  /** What libvmi says with this configuration, against what the kernel layer says. */
  async function expectRight(name: string, config: LibvmiConfig, symbols = true): Promise<void> {
    // libvmi reads a whole profile anew for every symbol.
    await using libvmi = await Libvmi.init({ mode: 'file', name, deadline: 60_000 });
    expect(await libvmi.initOs(config)).toBe('linux');
    const { kernel } = guest;
    const address = kernel.symbols.address('linux_banner');
    if (symbols) expect(await libvmi.translateKsym2v('linux_banner')).toBe(address);
    expect(await libvmi.translateKv2p(address)).toBe(kernel.memory.translate(address));
    expect(await libvmi.pidToDtb(1)).toBe(guest.pidToCr3(1));
  }

  it.each(['10', 'my vm', 'web:1', 'plain'])('a guest named %s, by a file', async (name) => {
    const path = join(folder, name);
    symlinkSync(lab.memoryPath!, path);
    const file = join(folder, 'libvmi.conf');
    // Where libvmi itself could not: quoted.
    const written = name.includes(' ') ? JSON.stringify(name) : name;
    writeFileSync(file, `${entry('another').replace('0x', '0x1')}\n${entry(written)}`);
    await expectRight(path, { file, entry: name });
  });

  it('by a string, with and without braces, and by a table', async () => {
    await expectRight(lab.memoryPath!, { string: braces() });
    await expectRight(lab.memoryPath!, { string: `{${braces()}}` });
    const { types, symbols, root } = guest.kernel;
    await expectRight(lab.memoryPath!, {
      table: {
        ostype: 'Linux',
        pagemode: 'VMI_PM_IA32E',
        sysmap: join(folder, 'System.map'),
        linux_tasks: types.offset('task_struct', 'tasks'),
        linux_mm: BigInt(types.offset('task_struct', 'mm')),
        linux_pid: types.offset('task_struct', 'pid'),
        linux_name: types.offset('task_struct', 'comm'),
        linux_pgd: types.offset('mm_struct', 'pgd'),
        linux_init_task: symbols.address('init_task'),
        linux_kaslr: symbols.address('init_task') - linked(folder),
        kpgd: root,
      },
    });
  });

  it("by libvmi's own file in $HOME", async () => {
    mkdirSync(join(folder, 'etc'));
    symlinkSync(lab.memoryPath!, join(folder, 'global-ram'));
    writeFileSync(join(folder, 'etc', 'libvmi.conf'), entry('global-ram'));
    process.env.HOME = folder;
    await expectRight(join(folder, 'global-ram'), 'global');
  });

  it('by the symbols of Volatility 3', async () => {
    await expectRight(lab.memoryPath!, { json: join(folder, 'isf.json') });
  });

  it("libvmi's kernel page table does not dangle where the process it was taken from ends", async () => {
    const sleeper = guest.tasks().find(({ comm }) => comm === 'filler')!.pid;
    const cr3 = guest.pidToCr3(sleeper)!;
    const before = await Libvmi.init({ mode: 'file', name: lab.memoryPath! });
    const after = await Libvmi.init({ mode: 'file', name: lab.memoryPath! });
    // As libvmi does on a live guest: whatever a vCPU has loaded.
    expect(
      await before.initOs({
        string: braces().replace(/kpgd = \w+/, `kpgd = 0x${cr3.toString(16)}`),
      }),
    ).toBe('linux');
    expect(await after.initOs({ kernel: libvmiKernel(guest.kernel) })).toBe('linux');
    expect(await before.getOffset('kpgd')).toBe(cr3);
    expect(await after.getOffset('kpgd')).toBe(guest.kernel.root);
    const address = guest.kernel.symbols.address('linux_banner');
    const physical = guest.kernel.memory.translate(address);
    expect(await before.translateKv2p(address)).toBe(physical);
    await lab.shell(`kill -9 ${sleeper}`);
    // Its page table is freed, and cleared by whoever gets it next.
    await lab.command('tasks 40');
    await lab.shell('dd if=/dev/zero of=/tmp/fill bs=1M count=64 2>/dev/null; rm /tmp/fill');
    const dangling = await before.translateKv2p(address).catch((error) => error);
    if (dangling === physical) console.log('the page of the dangling table was not used again');
    for (let i = 0; i < 10; i++) expect(await after.translateKv2p(address)).toBe(physical);
    expect(await after.pidToDtb(1)).toBe(guest.pidToCr3(1));
    await before.destroy();
    await after.destroy();
  });

  it.each(WAYS)('agrees with the oracle: %o', async (options) => {
    const truth = await lab.truth({ freeze: 'halt' });
    try {
      await expectTruth(lab, truth, options);
    } finally {
      await lab.thaw();
    }
  });

  it('libvmi is killed again and again, and no answer is wrong', async () => {
    await using through = await attach(target(lab, { map: false, isolate: true }), {
      cache: false,
    });
    const lasting = guest.tasks().filter(({ comm }) => comm.startsWith('filler'));
    const expected = new Map(
      (lasting.length > 0 ? lasting : guest.tasks())
        .filter(({ kthread }) => !kthread)
        .map(({ pid, cr3 }) => [pid, cr3]),
    );
    expect(expected.size).toBeGreaterThan(10);
    let crashes = 0;
    for (let round = 0; round < 40; round++) {
      for (const host of hostsOf(process.pid)) if (round % 2 === 0) process.kill(host, 'SIGKILL');
      try {
        const tasks = new Map(through.tasks().map(({ pid, cr3 }) => [pid, cr3]));
        for (const [pid, cr3] of expected) expect(tasks.get(pid), `PID ${pid}`).toBe(cr3);
      } catch (error) {
        if (!(error instanceof CrashError)) throw error;
        crashes++;
      }
    }
    expect(crashes).toBe(20);
    // A raw instance knows the kernel again, too.
    await using libvmi = await Libvmi.init({ mode: 'file', name: lab.memoryPath!, isolate: true });
    await libvmi.initOs({ kernel: libvmiKernel(guest.kernel) });
    const address = await libvmi.translateKsym2v('init_task');
    for (const host of hostsOf(process.pid)) process.kill(host, 'SIGKILL');
    await expect(libvmi.translateKsym2v('init_task')).rejects.toBeInstanceOf(CrashError);
    expect(await libvmi.translateKsym2v('init_task')).toBe(address);
    expect(await libvmi.pidToDtb(1)).toBe(guest.pidToCr3(1));
  });

  /** Where init_task was linked to. */
  function linked(folder: string): bigint {
    const map = [...exportProfile(guest.kernel, 'system-map', names(folder))].join('');
    return BigInt(`0x${/^([0-9a-f]+) \w init_task$/m.exec(map)![1]}`);
  }
});

// The smallest RAM that is split: all of it is read where the kernel is looked for.
describe.skipIf(NO_LIBVMI !== undefined).each([
  ['q35', 2816, WAYS[0]],
  ['pc', 3584, WAYS[1]],
] as const)(
  "libvmi's file driver on a RAM file with a hole: %s, %i MiB",
  (machine, memory, way) => {
    let lab: LabGuest;
    beforeAll(async () => {
      lab = await bootGuest({
        suite: 'bookworm',
        flavour: 'cloud',
        backend: 'file',
        machine,
        memory,
      });
    });
    afterAll(() => lab?.close());

    it('reads every byte at its place, or refuses', async () => {
      const truth = await lab.truth({ freeze: 'halt' });
      // What this is about: page tables above the hole.
      expect(truth.tasks.some(({ cr3 }) => cr3 >= 1n << 32n)).toBe(true);
      await expectTruth(lab, truth, way);
      await using guest = await attach(`image:${lab.memoryPath}`, { cache: false });
      await using libvmi = await Libvmi.init({ mode: 'file', name: lab.memoryPath! });
      expect(await libvmi.read64Pa(0x10_0000n)).toBe(guest.memory.readU64(0x10_0000n));
      for (const address of [0x8000_0000n, 0x1_0000_0000n, 0x1_2000_0000n])
        await expect(libvmi.readPa(address, 8)).rejects.toMatchObject({
          code: 'VMI_UNSUPPORTED',
          message: expect.stringContaining('a hole below 4 GiB'),
        });
      await expect(libvmi.initOs({ kernel: libvmiKernel(guest.kernel) })).rejects.toMatchObject({
        code: 'VMI_UNSUPPORTED',
        message: expect.stringContaining("use Guest's symbols and translations"),
      });
      await lab.thaw();
    }, 400_000);
  },
);

describe.skipIf(NO_LIBVMI !== undefined)("libvmi's file driver on a guest with 5 levels", () => {
  let lab: LabGuest;
  beforeAll(async () => {
    lab = await bootGuest({
      suite: 'bookworm',
      flavour: 'cloud',
      backend: 'file',
      memory: 512,
      levels5: true,
    });
  });
  afterAll(() => lab?.close());

  it('everything by physical reads works, what needs its own page walk is refused', async () => {
    const truth = await lab.truth({ freeze: 'halt' });
    for (const options of WAYS) await expectTruth(lab, truth, options);
    await using guest = await attach(target(lab), { cache: false });
    expect(guest.kernel.levels).toBe(5);
    const banner = guest.symbol('linux_banner');
    expect(guest.readString(banner).trimEnd()).toBe(guest.kernel.banner.trimEnd());
    await using libvmi = await Libvmi.init({ mode: 'file', name: lab.memoryPath! });
    const physical = guest.translate(banner);
    expect(await libvmi.readPa(physical, 16)).toEqual(guest.read(banner, 16));
    await expect(libvmi.initOs({ kernel: libvmiKernel(guest.kernel) })).rejects.toMatchObject({
      code: 'VMI_UNSUPPORTED',
      message: expect.stringMatching(/5-level paging.*no5lvl/),
    });
    await lab.thaw();
  });
});
