import { closeSync, openSync, readSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attach, type Guest, libvmiKernel } from '../../lib/index.js';
import { Libvmi } from '../../lib/libvmi/libvmi.js';
import { openLibvmi, openLibvmiSource } from '../../lib/memory/libvmi/libvmi.js';
import type { Target } from '../../lib/target.js';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';
import { NO_LIBVMI } from './support/real.js';

/** A live guest whose RAM is a file, through libvmi's file driver and without it. */
describe.skipIf(NO_LIBVMI !== undefined)('a live guest through the real libvmi', () => {
  let lab: LabGuest;
  let path: string;
  let guest: Guest;

  beforeAll(async () => {
    lab = await bootGuest({ backend: 'file', memory: 512, cpus: 2, tasks: 100, busy: 0 });
    path = lab.memoryPath!;
    guest = await attach(`image:${path}`, { cache: false });
  }, 300_000);
  afterAll(async () => {
    await guest?.close();
    await lab?.close();
  });

  test('reads the bytes of the RAM file', async () => {
    const memory = await openLibvmi({ driver: 'file', name: path, map: false });
    const fd = openSync(path, 'r');
    try {
      expect(memory.ranges).toEqual([{ start: 0n, length: 512n << 20n }]);
      expect(memory.capabilities).toMatchObject({ registers: false, pause: false, map: false });
      const expected = Buffer.alloc(4096);
      let same = 0;
      let all = 0;
      for (let page = 0; page < 512 << 8; page += 61) {
        memory.begin();
        readSync(fd, expected, 0, 4096, page * 4096);
        const bytes = memory.read(page * 4096, 4096);
        // The guest runs: a page that differs is looked at once more.
        all++;
        if (bytes.equals(expected)) same++;
        else {
          memory.begin();
          readSync(fd, expected, 0, 4096, page * 4096);
          if (memory.read(page * 4096, 4096).equals(expected)) same++;
        }
      }
      expect(all - same).toBeLessThan(3);
    } finally {
      closeSync(fd);
      await memory.close();
    }
  });

  test('sees what changes, after begin()', async () => {
    const jiffies = guest.kernel.symbols.address('jiffies_64');
    const physical = guest.kernel.memory.translate(jiffies);
    const memory = await openLibvmi({ driver: 'file', name: path, map: false });
    const first = memory.readU64(physical);
    // An idle guest's clock may stand for a while.
    for (let i = 0; i < 100 && guest.memory.readU64(physical) === first; i++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    expect(guest.memory.readU64(physical)).toBeGreaterThan(first);
    // libvmi's page cache: this is the trap.
    expect(memory.readU64(physical)).toBe(first);
    memory.begin();
    expect(memory.readU64(physical)).toBeGreaterThan(first);
    await memory.close();
  });

  test.each([true, false])('gives the same tasks as without libvmi, mapped: %s', async (map) => {
    const target = { kind: 'libvmi', driver: 'file', name: path, map } as Target;
    await using through = await attach(target, { cache: false });
    expect(through.memory.source).toBe('libvmi');
    expect(through.capabilities.map).toBe(map);
    expect(through.kernel.root).toBe(guest.kernel.root);
    const table = (one: Guest) => new Map([...one.tasks()].map((task) => [task.pid, task.cr3]));
    const expected = table(guest);
    const found = table(through);
    expect(found.size).toBeGreaterThan(100);
    let compared = 0;
    for (const [pid, cr3] of expected) {
      // Kernel threads borrow an address space only while they run.
      if (cr3 === null || !found.has(pid) || guest.findTask(pid)?.kthread !== false) continue;
      expect(found.get(pid)).toBe(cr3);
      compared++;
    }
    expect(compared).toBeGreaterThan(90);
  });

  describe("libvmi's own layer, told of the kernel that was found with no profile", () => {
    let libvmi: Libvmi;
    beforeAll(async () => {
      libvmi = await Libvmi.init({ mode: 'file', name: path });
      expect(await libvmi.initOs({ kernel: libvmiKernel(guest.kernel) })).toBe('linux');
    });
    afterAll(() => libvmi?.destroy());

    test('knows paging and operating system', async () => {
      expect(libvmi.getOstype()).toBe('linux');
      expect(libvmi.getAddressWidth()).toBe(8);
      expect(await libvmi.getPageMode()).toBe('ia32e');
      expect(await libvmi.getOffset('kpgd')).toBe(guest.kernel.root);
      expect(await libvmi.getOffset('linux_tasks')).toBe(
        BigInt(guest.kernel.types.offset('task_struct', 'tasks')),
      );
    });

    test('translates symbols and addresses as the kernel layer does', async () => {
      for (const name of ['init_task', 'jiffies_64', 'linux_banner', 'schedule', 'init_top_pgt']) {
        const address = guest.kernel.symbols.address(name);
        expect(await libvmi.translateKsym2v(name)).toBe(address);
        expect(await libvmi.translateKv2p(address)).toBe(guest.kernel.memory.translate(address));
        expect(await libvmi.pagetableLookup(guest.kernel.root, address)).toBe(
          guest.kernel.memory.translate(address),
        );
      }
      const init = guest.kernel.symbols.address('init_task');
      expect(await libvmi.translateV2ksym(init)).toBe('init_task');
      await expect(libvmi.translateKsym2v('no_such_symbol')).rejects.toMatchObject({
        code: 'VMI_SYMBOL',
      });
      await expect(libvmi.translateKv2p(0xffff_0000_dead_beefn)).rejects.toMatchObject({
        code: 'VMI_FAULT',
      });
    });

    test('gives the page tables of processes', async () => {
      let compared = 0;
      for (const task of guest.tasks()) {
        // libvmi looks at the leader's own mm only.
        if (task.cr3Source !== 'mm' || task.cr3 === null) continue;
        expect(await libvmi.pidToDtb(task.pid)).toBe(task.cr3);
        compared++;
      }
      expect(compared).toBeGreaterThan(90);
      expect(await libvmi.dtbToPid(guest.task(1).cr3!)).toBe(1);
      await expect(libvmi.pidToDtb(2)).rejects.toMatchObject({ code: 'VMI_NO_TASK' });
      await expect(libvmi.pidToDtb(4_000_000)).rejects.toMatchObject({
        code: 'VMI_NO_TASK',
        message: expect.stringContaining('libvmi said: '),
      });
    });

    test('reads in all widths', async () => {
      const banner = guest.kernel.symbols.address('linux_banner');
      const physical = guest.kernel.memory.translate(banner);
      const bytes = guest.memory.read(physical, 64);
      expect(await libvmi.readPa(physical, 64)).toEqual(bytes);
      expect(await libvmi.readVa(banner, 0, 64)).toEqual(bytes);
      expect(await libvmi.readKsym('linux_banner', 64)).toEqual(bytes);
      expect(await libvmi.readStrKsym('linux_banner')).toBe(
        guest.kernel.banner.endsWith('\n') ? guest.kernel.banner : `${guest.kernel.banner}\n`,
      );
      expect(await libvmi.read8Pa(physical)).toBe(bytes.readUInt8());
      expect(await libvmi.read16Va(banner, 0)).toBe(bytes.readUInt16LE());
      expect(await libvmi.read32Ksym('linux_banner')).toBe(bytes.readUInt32LE());
      expect(await libvmi.read64Pa(physical + 1n)).toBe(bytes.readBigUInt64LE(1));
      expect(await libvmi.readAddrKsym('linux_banner')).toBe(bytes.readBigUInt64LE());
    });

    test('the file driver writes nothing and has no registers', async () => {
      await expect(libvmi.writePa(0x1000, Buffer.from('x'))).rejects.toMatchObject({
        code: 'VMI_UNSUPPORTED',
      });
      await expect(libvmi.getVcpureg('CR4')).rejects.toMatchObject({ code: 'VMI_UNSUPPORTED' });
    });
  });

  test('a configuration that does not fit says what libvmi said', async () => {
    await using libvmi = await Libvmi.init({ mode: 'file', name: path });
    await expect(
      libvmi.initOs({ string: 'ostype = "Linux"; sysmap = "/nowhere/System.map";' }),
    ).rejects.toMatchObject({
      code: 'VMI_UNSUPPORTED',
      message: expect.stringMatching(/libvmi said: .*\/nowhere\/System\.map/),
    });
    // And the instance is as good as before.
    expect(await libvmi.initOs({ kernel: libvmiKernel(guest.kernel) })).toBe('linux');
  });

  test('a file of 512 MiB has one layout only', async () => {
    const source = await openLibvmiSource({ driver: 'file', name: path });
    expect(source.candidates.map(({ proven }) => proven)).toEqual([true]);
    await source.close();
  });
});
