import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { exportSystemMap } from '../../../lib/export/system-map.js';
import { Kernel } from '../../../lib/kernel/kernel.js';
import type { KernelOptions } from '../../../lib/kernel/kernel-options.js';
import { confProfile } from '../../../lib/kernel/profile/libvmi-conf.js';
import { parseSystemMap } from '../../../lib/kernel/profile/system-map.js';
import { parseConf } from '../../../lib/libvmi/conf.js';
import { FakeMemory, fakeAddon, fakePhysicalMemory } from '../support/fake-memory.js';
import {
  type BuiltGuest,
  buildGuest,
  type GuestOptions,
  registersOf,
} from './support/build-guest.js';
import { LAYOUTS } from './support/build-kallsyms.js';

vi.mock('../../../lib/addon.js', () => ({ addon: () => fakeAddon }));

const load = (guest: BuiltGuest, options: KernelOptions = {}) =>
  Kernel.load(fakePhysicalMemory(guest.memory), { cache: false, ...options });
const withRegisters = (guest: BuiltGuest, levels: 4 | 5 = 4) => ({
  registers: [registersOf(guest.root, levels)],
});
const refusal = (text: string | RegExp) =>
  expect.objectContaining({
    code: 'VMI_ATTACH',
    message: typeof text === 'string' ? text : expect.stringMatching(text),
  });

function expectFound(kernel: Kernel, guest: BuiltGuest): void {
  expect(kernel.release).toBe('6.1.0-test-amd64');
  expect(kernel.root).toBe(guest.root);
  expect(kernel.cr3).toBe(guest.root);
  expect(kernel.pageOffset).toBe(guest.pageOffset);
  expect(kernel.image).toMatchObject({ virtual: guest.virtual, physical: guest.physical });
  expect(kernel.symbols.address('init_task')).toBe(
    guest.virtual + BigInt(guest.at('init_task')) - guest.physical,
  );
  expect(kernel.types.offset('mm_struct', 'pgd')).toBe(120);
  expect(kernel.buildId).toBe('00112233445566778899aabbccddeeff00112233');
  expect(kernel.memory.translate(kernel.pageOffset + 0x12_3456n)).toBe(0x12_3456n);
  expect(kernel.physBase).toBe(guest.physical - (guest.virtual - 0xffff_ffff_8000_0000n));
}

describe.each(LAYOUTS)('a kernel with kallsyms laid out as %s', (layout) => {
  const guest = buildGuest({ layout });

  it('is found by registers', async () => {
    const kernel = await load(guest, withRegisters(guest));
    expectFound(kernel, guest);
    expect(kernel.provenance).toMatchObject({
      located: 'registers',
      by: `cr3 0x${guest.root.toString(16)} of vCPU 0`,
      symbols: 'kallsyms',
      types: 'btf',
      cached: false,
    });
  });

  it('is found by VMCOREINFO', async () => {
    const kernel = await load(guest);
    expectFound(kernel, guest);
    expect(kernel.provenance.located).toBe('vmcoreinfo');
  });

  it('is found by its contents', async () => {
    const bare = buildGuest({ layout, vmcoreinfo: false });
    const kernel = await load(bare);
    expectFound(kernel, bare);
    expect(kernel.provenance.located).toBe('contents');
  });
});

describe('a kernel', () => {
  it('is found in memory of which only the end is known', async () => {
    const guest = buildGuest();
    class Coarse extends FakeMemory {
      override get ranges(): BigUint64Array {
        return BigUint64Array.of(0n, 0xff00_0000n);
      }
    }
    const native = new Coarse({ physical: 0n, bytes: guest.ram });
    const ramSize = BigInt(guest.ram.length);
    const memory = fakePhysicalMemory(native, undefined, { ramSize });
    expect(memory).toMatchObject({ size: ramSize, sparse: true, end: 0xff00_0000n });
    expectFound(await Kernel.load(memory, { cache: false, ...withRegisters(guest) }), guest);
  });

  it('has five levels where CR4 or VMCOREINFO says so, or neither', async () => {
    const guest = buildGuest({ levels: 5 });
    expect((await load(guest, withRegisters(guest, 5))).levels).toBe(5);
    expect((await load(guest)).levels).toBe(5);
    expect((await load(buildGuest({ levels: 5, vmcoreinfo: false }))).levels).toBe(5);
  });

  it('is found from a CR3 of user mode under page-table isolation, with PCID and no-flush bits', async () => {
    const guest = buildGuest({ pti: true });
    const kernel = await load(guest, {
      registers: [registersOf((1n << 63n) | guest.root | 0x1000n | 0x805n)],
    });
    expectFound(kernel, guest);
    expect(kernel.pti).toBe(true);
    expect((await load(buildGuest())).pti).toBe(false);
  });

  it('is found by the vCPU that runs it when another is not in 64-bit mode yet', async () => {
    const guest = buildGuest();
    const early = { ...registersOf(0x2000n), cr0: 0x10n, cr4: 0n, efer: 0n };
    expectFound(await load(guest, { registers: [early, registersOf(guest.root, 4, 1)] }), guest);
  });

  it('asks the machine for registers when they are not given', async () => {
    const guest = buildGuest();
    const machine = { registers: async () => [registersOf(guest.root)], close: async () => {} };
    const kernel = await Kernel.load(fakePhysicalMemory(guest.memory, machine), { cache: false });
    expect(kernel.provenance.located).toBe('registers');
  });

  describe('found by the page table of a process', () => {
    /** A process's page directory: the kernel's own, in a page that is free otherwise. */
    const PGD = 0x3000n;
    const withProcess = () => {
      const guest = buildGuest();
      guest.ram.copy(guest.ram, Number(PGD), Number(guest.root), Number(guest.root) + 4096);
      return guest;
    };
    const exit = (guest: BuiltGuest) => guest.ram.fill(0, Number(PGD), Number(PGD) + 4096);
    /** A machine that runs what is given, one after the other; the last one for ever. */
    const running = (...cr3s: bigint[]) => {
      const registers = vi.fn(async () => [
        registersOf(cr3s.length > 1 ? cr3s.shift()! : cr3s[0]!),
      ]);
      return { registers, close: async () => {} };
    };
    const live = (guest: BuiltGuest, ...cr3s: bigint[]) => {
      const machine = running(...cr3s);
      return { machine, memory: fakePhysicalMemory(guest.memory, machine, { live: true }) };
    };

    it('is found when that exits while symbols are looked for', async () => {
      const guest = withProcess();
      const { machine, memory } = live(guest, PGD);
      const scans = vi.spyOn(guest.memory, 'scan').mockImplementationOnce((request) => {
        exit(guest);
        return guest.memory.scan(request);
      });
      expectFound(await Kernel.load(memory, { cache: false }), guest);
      expect(scans).toHaveBeenCalled();
      expect(machine.registers).toHaveBeenCalledTimes(1);
    });

    it('is found by the next when that has exited before', async () => {
      const guest = withProcess();
      exit(guest);
      const { machine, memory } = live(guest, PGD, PGD + 0x1000n, PGD + 0x2000n, guest.root);
      expectFound(await Kernel.load(memory, { cache: false }), guest);
      expect(machine.registers).toHaveBeenCalledTimes(4);
    });

    it('is not looked for again and again where the CPUs stay as they are', async () => {
      const guest = withProcess();
      exit(guest);
      const { machine, memory } = live(guest, PGD);
      await expect(Kernel.load(memory, { cache: false })).rejects.toThrow(
        refusal(/cr3 0x3000 of vCPU 0 maps no kernel image/),
      );
      expect(machine.registers).toHaveBeenCalledTimes(3);
    });

    it('is not looked for without end where they do not', async () => {
      const guest = withProcess();
      exit(guest);
      const ever = Array.from({ length: 100 }, (_, i) => PGD + BigInt(i % 2) * 0x1000n);
      const { machine, memory } = live(guest, ...ever);
      await expect(Kernel.load(memory, { cache: false })).rejects.toThrow(
        refusal(/maps no kernel image/),
      );
      expect(machine.registers).toHaveBeenCalledTimes(8);
    });
  });

  it('knows its CPUs', async () => {
    const kernel = await load(buildGuest());
    expect(kernel.cpuCount).toBe(2);
    expect(kernel.onlineCpus()).toEqual([0, 1]);
    expect(kernel.perCpuOffset(1)).toBe(kernel.pageOffset + 0x30_0000n);
    expect(() => kernel.perCpuOffset(2)).toThrow(
      new RangeError('Expected cpu between 0 and 1 but received 2'),
    );
  });

  it('knows its CPUs where their number is a constant of the kernel', async () => {
    const kernel = await load(buildGuest({ without: ['nr_cpu_ids'] }));
    expect(kernel.onlineCpus()).toEqual([0, 1]);
    expect(() => kernel.perCpuOffset(2)).toThrow(RangeError);
  });

  it('has one CPU without SMP', async () => {
    const without = ['__per_cpu_offset', '__cpu_online_mask', 'nr_cpu_ids'];
    const kernel = await load(buildGuest({ without }));
    expect(kernel.onlineCpus()).toEqual([0]);
    expect(kernel.perCpuOffset(0)).toBe(0n);
  });

  it('is found where little of RAM is mapped', async () => {
    const kernel = await load(buildGuest({ mapped: 24n << 20n }));
    expect(kernel.release).toBe('6.1.0-test-amd64');
  });

  it('is not found where RAM is mapped elsewhere', async () => {
    const guest = buildGuest({ mapped: 24n << 20n });
    // The first 2 MiB of the direct map lead to the next ones.
    const slot = (table: bigint, address: bigint, level: bigint) =>
      Number(table + ((address >> (12n + 9n * (level - 1n))) & 511n) * 8n);
    let table = guest.root;
    for (const level of [4n, 3n]) {
      const entry = guest.ram.readBigUInt64LE(slot(table, guest.pageOffset, level));
      table = entry & 0x000f_ffff_ffff_f000n;
    }
    guest.ram.writeBigUInt64LE((2n << 20n) | 0xe3n, slot(table, guest.pageOffset, 2n));
    await expect(load(guest)).rejects.toThrow('it maps 0x0 to 0x200000');
  });

  it('is found where its tasks cannot be read, and says what they lack', async () => {
    const guest = buildGuest();
    guest.ram.fill(0, guest.btfAt, guest.btfAt + 8);
    const kernel = await load(guest);
    expect(kernel.release).toBe('6.1.0-test-amd64');
    expect(kernel.root).toBe(guest.root);
    expect(kernel.memory.translate(kernel.symbols.address('init_task'))).toBe(
      BigInt(guest.at('init_task')),
    );
    expect(kernel.lacking?.message).toMatch(
      /the kernel has no BTF \(CONFIG_DEBUG_INFO_BTF\), and no list of tasks is found/,
    );
    expect((await load(buildGuest())).lacking).toBeUndefined();
    // What only contents lead to may be a kernel that ran before.
    const silent = buildGuest({ vmcoreinfo: false });
    silent.ram.fill(0, silent.btfAt, silent.btfAt + 8);
    await expect(load(silent)).rejects.toThrow(/the kernel has no BTF/);
  });

  it('is found by symbols of functions only', async () => {
    const without = ['linux_banner', 'init_top_pgt', 'init_task', 'page_offset_base', 'init_mm'];
    const guest = buildGuest({ without });
    const kernel = await load(guest, { registers: [registersOf(guest.root)] });
    expect(kernel.banner).toContain('Linux version 6.1.0-test-amd64');
    expect(kernel.root).toBe(guest.root);
    expect(kernel.pageOffset).toBe(guest.pageOffset);
    expect(kernel.lacking).toMatchObject({ code: 'VMI_SYMBOL' });
  });

  describe('was moved by KASLR', () => {
    const silent = { vmcoreinfo: false };

    it('as VMCOREINFO says', async () => {
      const { kaslr } = await load(buildGuest({ virtual: 0xffff_ffff_8a20_0000n }));
      expect(kaslr).toBe(0x920_0000n);
    });

    it('as the boot protocol says, wherever it was linked to', async () => {
      const guest = buildGuest(silent);
      const params = guest.at('boot_params');
      guest.ram.write('HdrS', params + 0x202);
      guest.ram.writeUInt16LE(0x020f, params + 0x206);
      guest.ram.writeBigUInt64LE(0x20_0000n, params + 0x258);
      expect((await load(guest)).kaslr, 'no flag: not moved').toBe(0n);
      guest.ram[params + 0x211] = 0x83;
      expect((await load(guest)).kaslr).toBe(0xa00_0000n);
    });

    it('is not known where nothing says it', async () => {
      const kernel = await load(buildGuest(silent));
      expect(kernel.kaslr).toBeUndefined();
      expect(() => [...exportSystemMap(kernel)]).toThrow(
        expect.objectContaining({ code: 'VMI_UNSUPPORTED' }),
      );
    });
  });

  it('shows itself', async () => {
    expect(inspect(await load(buildGuest()))).toBe(
      'Kernel { Linux 6.1.0-test-amd64, 4 levels, root: 0x1408000, pti: false, by vmcoreinfo, symbols from kallsyms, types from btf }',
    );
  });

  it('sets windows only where the page table agrees', async () => {
    const kernel = await load(buildGuest());
    for (const { virtual, physical, length } of kernel.image.windows) {
      expect(kernel.memory.walk(virtual).physical).toBe(physical);
      expect(kernel.memory.walk(virtual + length - 4096n).physical).toBe(physical + length - 4096n);
    }
  });
});

describe('of two kernels in RAM', () => {
  const both = (first: GuestOptions, second: GuestOptions) => {
    const old = buildGuest({
      physical: 16n << 20n,
      virtual: 0xffff_ffff_8a20_0000n,
      release: '6.1.0-old',
      ...first,
    });
    return buildGuest({
      physical: 40n << 20n,
      virtual: 0xffff_ffff_9160_0000n,
      ram: old.ram,
      ...second,
    });
  };

  it('the registers name the one that runs', async () => {
    const guest = both({ time: 2_000_000_000n }, { time: 1_000_000_000n });
    expectFound(await load(guest, withRegisters(guest)), guest);
  });

  it('the clock tells, without registers', async () => {
    const guest = both({ time: 1_700_000_000n }, { time: 1_700_000_060n });
    expectFound(await load(guest), guest);
    const other = both({ time: 1_700_000_060n }, { time: 1_700_000_000n });
    expect((await load(other)).release).toBe('6.1.0-old');
  });

  it('one whose page tables are gone does not count', async () => {
    const guest = both({ time: 2_000_000_000n }, {});
    guest.ram.fill(0, (20 << 20) + 0x8000, (20 << 20) + 0x9000);
    expectFound(await load(guest), guest);
  });
});

describe('what is no running kernel', () => {
  it('is empty RAM', async () => {
    const memory = fakePhysicalMemory(
      new FakeMemory({ physical: 0n, bytes: Buffer.alloc(4 << 20) }),
    );
    await expect(Kernel.load(memory, { cache: false })).rejects.toThrow(
      refusal(
        'no running Linux kernel found in fake RAM: registers: the source gives none; VMCOREINFO: no copy in 4 MiB of RAM; contents: no kallsyms token table in 4 MiB of RAM',
      ),
    );
  });

  it('is a CPU that has not left real mode', async () => {
    const memory = fakePhysicalMemory(
      new FakeMemory({ physical: 0n, bytes: Buffer.alloc(4 << 20) }),
    );
    const registers = [{ ...registersOf(0n), cr0: 0x10n, cr4: 0n }];
    await expect(Kernel.load(memory, { cache: false, registers })).rejects.toThrow(
      refusal(
        'no running Linux kernel found in fake RAM: registers: vCPU 0 is not in 64-bit mode (cr0 0x10, cr4 0x0); RAM was not searched: a kernel that no vCPU maps does not run',
      ),
    );
  });

  it('is the kernel that ran before a reset, while the next one boots', async () => {
    const guest = buildGuest();
    await expect(load(guest, { registers: [registersOf(0x3000n)] })).rejects.toThrow(
      refusal(/registers: cr3 0x3000 of vCPU 0 maps no kernel image; RAM was not searched/),
    );
    // A source that cannot tell gives zeroes.
    const unknown = { ...registersOf(0n), cr0: 0n, cr4: 0n, efer: 0n };
    expect((await load(guest, { registers: [unknown] })).provenance.located).toBe('vmcoreinfo');
  });

  it.each<[string, (guest: BuiltGuest) => void, RegExp]>([
    [
      'without a direct map yet',
      ({ ram, root, pageOffset }) =>
        ram.writeBigUInt64LE(0n, Number(root + ((pageOffset >> 39n) & 511n) * 8n)),
      /no direct map of RAM, the kernel may still be booting/,
    ],
    [
      'whose banner is overwritten',
      (guest) => guest.ram.fill(0x41, guest.at('linux_banner'), guest.at('linux_banner') + 64),
      /linux_banner at 0xffffffff8a400000 does not start with 'Linux version'/,
    ],
    [
      'whose first task is not the idle task',
      (guest) => guest.ram.writeUInt32LE(7, guest.at('init_task') + 0x160),
      /task_struct.pid at 352: init_task at 0xffffffff8a601000 has 7, not 0/,
    ],
    [
      'whose first task has another name',
      (guest) => guest.ram.write('systemd\0', guest.at('init_task') + 0x200),
      /task_struct.comm at 512: init_task at 0xffffffff8a601000 has "systemd", not 'swapper…'/,
    ],
    [
      'whose list of tasks does not close',
      (guest) => {
        guest.ram.writeBigUInt64LE(guest.virtual, guest.at('init_task') + 0x100);
        guest.ram.writeBigUInt64LE(guest.virtual, guest.at('init_task') + 0x108);
      },
      /task_struct.tasks at 256: the list of tasks at 0xffffffff8a601100 does not close: its neighbours point to/,
    ],
    [
      'whose list of tasks leads nowhere',
      (guest) => guest.ram.writeBigUInt64LE(0n, guest.at('init_task') + 0x100),
      /does not close: its neighbours are 0x0 and/,
    ],
    [
      'whose init_mm names another page table',
      (guest) => guest.ram.writeBigUInt64LE(guest.virtual, guest.at('init_mm') + 120),
      /mm_struct.pgd at 120: of init_mm it is 0xffffffff8a200000 \(physical 0x1000000\), not the kernel's page table at 0x1408000/,
    ],
    [
      'whose first task has an address space',
      (guest) => guest.ram.writeBigUInt64LE(guest.virtual, guest.at('init_task') + 0x140),
      /task_struct.mm at 320: init_task at 0xffffffff8a601000 has one/,
    ],
    [
      'without kallsyms',
      (guest) => guest.ram.fill(0, guest.tokenTableAt, guest.tokenTableAt + 400),
      /an image at 0xffffffff8a200000 without kallsyms: no Linux kernel, or one that still boots/,
    ],
    [
      'that VMCOREINFO calls something else',
      (guest) => guest.ram.write('9', guest.vmcoreinfoAt + 10),
      /linux_banner says 6.1.0-test-amd64, VMCOREINFO 9.1.0-test-amd64/,
    ],
  ])('is one %s', async (_, damage, message) => {
    const guest = buildGuest();
    damage(guest);
    await expect(load(guest)).rejects.toThrow(refusal(message));
  });

  it('never does worse than an error with a code when reads fail', async () => {
    const guest = buildGuest();
    const failing = new FakeMemory(...guest.memory.segments);
    const memory = fakePhysicalMemory(failing);
    await Kernel.load(memory, { cache: false, ...withRegisters(guest) });
    const reads = failing.log.length;
    for (let n = 1; n <= reads; n++) {
      failing.log.length = 0;
      failing.failAt = n;
      await expect(Kernel.load(memory, { cache: false, ...withRegisters(guest) })).rejects.toThrow(
        expect.objectContaining({ code: 'VMI_CLOSED' }),
      );
    }
    failing.failAt = 0;
    expectFound(await Kernel.load(memory, { cache: false, ...withRegisters(guest) }), guest);
  });

  it('stops when the signal fires', async () => {
    await expect(load(buildGuest(), { signal: AbortSignal.abort() })).rejects.toThrow(
      expect.objectContaining({ code: 'VMI_ABORTED' }),
    );
  });
});

describe('the cache', () => {
  let cache = '';
  beforeEach(async () => {
    cache = await mkdtemp(join(tmpdir(), 'vmi-kernel-'));
  });
  // A kernel writes its file in the background.
  afterEach(() => rm(cache, { recursive: true, force: true, maxRetries: 10 }));
  const reads = (guest: BuiltGuest) => guest.memory.log.length;

  it('makes the next attach read next to nothing, also when KASLR moved the kernel', async () => {
    const guest = buildGuest();
    const cold = await load(guest, { cache, ...withRegisters(guest) });
    await cold.remember();
    const moved = buildGuest({ physical: 32n << 20n, virtual: 0xffff_ffff_9be0_0000n });
    const warm = await load(moved, { cache, ...withRegisters(moved) });
    expectFound(warm, moved);
    expect(warm.provenance.cached).toBe(true);
    const scans = vi.spyOn(FakeMemory.prototype, 'scan');
    const again = buildGuest();
    await load(again, { cache, ...withRegisters(again) });
    expect(scans).not.toHaveBeenCalled();
    scans.mockRestore();
    expect(reads(again)).toBeLessThan(80);
    expect(warm.symbols.find('function_number_77')).toBe(moved.virtual + 0x100n + 77n * 16n);
    expect(warm.types.struct('task_struct').member('comm').type.name).toBe('char[16]');
  });

  it('leaves what was not asked to be read when the process is gone by whose page table it was found', async () => {
    const guest = buildGuest();
    await (await load(guest, { cache, ...withRegisters(guest) })).remember();
    guest.ram.copy(guest.ram, 0x3000, Number(guest.root), Number(guest.root) + 4096);
    const warm = await load(guest, { cache, registers: [registersOf(0x3000n)] });
    expect(warm.provenance.cached).toBe(true);
    guest.ram.fill(0, 0x3000, 0x4000);
    expect(warm.symbols.find('function_number_77')).toBe(guest.virtual + 0x100n + 77n * 16n);
    expect(warm.types.struct('task_struct').member('comm').type.name).toBe('char[16]');
  });

  describe('guesses where the kernel is while registers are asked for', () => {
    const seen = async (guest: BuiltGuest) => {
      await (await load(guest, { cache, ...withRegisters(guest) })).remember();
    };

    it('and is right where they lead to the same', async () => {
      const guest = buildGuest();
      await seen(guest);
      guest.ram.copy(guest.ram, 0x3000, Number(guest.root), Number(guest.root) + 4096);
      let answer = (_: ReturnType<typeof registersOf>[]) => {};
      const registers = new Promise<ReturnType<typeof registersOf>[]>((resolve) => {
        answer = resolve;
      });
      guest.memory.log.length = 0;
      const loading = load(guest, { cache, registers });
      await new Promise((resolve) => setTimeout(resolve, 10));
      const before = reads(guest);
      expect(before).toBeGreaterThan(10);
      answer([registersOf(0x3005n)]);
      const warm = await loading;
      expectFound(warm, guest);
      expect(warm.provenance).toMatchObject({
        located: 'registers',
        by: 'cr3 0x3005 of vCPU 0',
        cached: true,
      });
      expect(reads(guest) - before).toBeLessThan(6);
    });

    it('and they decide', async () => {
      const old = buildGuest({ physical: 16n << 20n, virtual: 0xffff_ffff_8a20_0000n });
      await seen(old);
      const guest = buildGuest({
        physical: 40n << 20n,
        virtual: 0xffff_ffff_9160_0000n,
        ram: old.ram,
      });
      expectFound(await load(guest, { cache, ...withRegisters(guest) }), guest);
      expectFound(await load(guest, { cache, ...withRegisters(old) }), old);
      // One vCPU has the one, the next the other: as if nothing had been guessed.
      const registers = [registersOf(guest.root), registersOf(old.root, 4, 1)];
      const guessed = await load(guest, { cache, registers });
      const looked = await load(guest, { cache: false, registers });
      expect(guessed.root).toBe(looked.root);
      // And no vCPU runs a kernel yet.
      const early = { ...registersOf(old.root), cr0: 0x10n };
      await expect(load(guest, { cache, registers: [early] })).rejects.toThrow(
        refusal(/not in 64-bit mode/),
      );
      await expect(load(guest, { cache, ...withRegisters(old, 5) })).rejects.toThrow(
        refusal(/cr3/),
      );
    });

    it('and is none where there is no kernel any more', async () => {
      const old = buildGuest({ physical: 16n << 20n, virtual: 0xffff_ffff_8a20_0000n });
      await seen(old);
      const guest = buildGuest({
        physical: 40n << 20n,
        virtual: 0xffff_ffff_9160_0000n,
        ram: old.ram,
      });
      old.ram.fill(0xff, Number(old.root), Number(old.root) + 4096);
      expectFound(await load(guest, { cache, ...withRegisters(guest) }), guest);
      old.ram.fill(0, Number(old.root), Number(old.root) + 4096);
      expectFound(await load(guest, { cache, ...withRegisters(guest) }), guest);
    });

    it('and is no answer to who has aborted meanwhile', async () => {
      const guest = buildGuest();
      await seen(guest);
      const aborting = new AbortController();
      const registers = new Promise<ReturnType<typeof registersOf>[]>((resolve) => {
        setTimeout(() => {
          aborting.abort();
          resolve([registersOf(guest.root)]);
        });
      });
      await expect(
        load(guest, { cache, registers, signal: aborting.signal }),
      ).rejects.toMatchObject({
        code: 'VMI_ABORTED',
      });
    });

    it('and says what went wrong with them', async () => {
      const guest = buildGuest();
      await seen(guest);
      const registers = Promise.reject(new Error('no answer'));
      await expect(load(guest, { cache, registers })).rejects.toThrow('no answer');
    });
  });

  it('remembers what was asked, also that it is absent', async () => {
    const guest = buildGuest();
    const cold = await load(guest, { cache, ...withRegisters(guest) });
    expect(cold.symbols.find('no_such_symbol')).toBeUndefined();
    expect(cold.types.findOffset('task_struct', 'no_such')).toBeUndefined();
    expect(await cold.remember()).toBe(true);
    const warm = await load(guest, { cache, ...withRegisters(guest) });
    expect(await warm.remember()).toBe(false);
    guest.ram.fill(0, guest.btfAt + 32, guest.btfAt + 64);
    expect(warm.types.findOffset('task_struct', 'no_such')).toBeUndefined();
    expect(warm.symbols.find('no_such_symbol')).toBeUndefined();
  });

  it('is not believed: another kernel with the same build-id is looked at afresh', async () => {
    const guest = buildGuest({ layout: 'behind' });
    await (await load(guest, { cache, ...withRegisters(guest) })).remember();
    const other = buildGuest({ layout: 'place' });
    const kernel = await load(other, { cache, ...withRegisters(other) });
    expectFound(kernel, other);
    expect(kernel.provenance.cached).toBe(false);
  });

  it('is ignored when broken', async () => {
    const guest = buildGuest();
    await (await load(guest, { cache, ...withRegisters(guest) })).remember();
    for (const name of await readdir(cache)) await writeFile(join(cache, name), '{"version":1,');
    const kernel = await load(guest, { cache, ...withRegisters(guest) });
    expect(kernel.provenance.cached).toBe(false);
  });

  it('is not written when switched off', async () => {
    const guest = buildGuest();
    const kernel = await load(guest, { cache: false, ...withRegisters(guest) });
    expect(await kernel.remember()).toBe(false);
  });
});

describe('a profile', () => {
  const mapOf = (guest: BuiltGuest, by = 0n) =>
    guest.symbols
      .map(
        ({ name, address, type }) =>
          `${(address > 0x100_0000n ? address - by : address).toString(16).padStart(16, '0')} ${type} ${name}`,
      )
      .join('\n');

  it('gives symbols, wherever KASLR put the image', async () => {
    const guest = buildGuest();
    const profile = parseSystemMap(mapOf(guest, 0x920_0000n), '/boot/System.map');
    const kernel = await load(guest, { profile });
    expectFound(kernel, guest);
    expect(kernel.provenance.symbols).toBe('/boot/System.map');
  });

  it('stands in for kallsyms and for BTF', async () => {
    const guest = buildGuest();
    guest.ram.fill(0, guest.tokenTableAt, guest.tokenTableAt + 400);
    expectFound(await load(guest, { profile: parseSystemMap(mapOf(guest)) }), guest);
    const other = buildGuest();
    const conf = parseConf(
      'vm { linux_tasks = 0x100; linux_mm = 0x140; linux_pid = 0x160; linux_name = 0x200; linux_pgd = 120; }',
    );
    other.ram.fill(0, other.btfAt, other.btfAt + 8);
    const kernel = await load(other, { profile: confProfile(conf, 'vm', 'vm.conf') });
    expect(kernel.provenance.types).toBe('vm.conf (vm)');
    expect(kernel.types.offset('task_struct', 'tasks')).toBe(0x100);
  });

  it('of another kernel is refused, with what differs', async () => {
    const guest = buildGuest();
    const conf = parseConf('vm { linux_tasks = 0x108; linux_pid = 0x160; linux_pgd = 0x50; }');
    await expect(load(guest, { profile: confProfile(conf, 'vm', 'vm.conf') })).rejects.toThrow(
      refusal(
        "the profile vm.conf (vm) does not fit this guest (Linux 6.1.0-test-amd64): task_struct.tasks is at 264 in the profile, at 256 in the guest's BTF; mm_struct.pgd is at 80 in the profile, at 120 in the guest's BTF",
      ),
    );
    const shifted = mapOf(guest)
      .replace(/^(\w+) D linux_banner$/m, '$1 D other_banner')
      .concat('\nffffffff8a300000 D linux_banner');
    await expect(load(guest, { profile: parseSystemMap(shifted) })).rejects.toThrow(
      refusal(
        'the profile System.map does not fit this guest (Linux 6.1.0-test-amd64): there is no banner at its linux_banner (0xffffffff8a300000, moved by 0x0)',
      ),
    );
    const wrong = mapOf(guest).replace(/^(\w+) D init_mm$/m, 'ffffffff8a602040 D init_mm');
    await expect(load(guest, { profile: parseSystemMap(wrong) })).rejects.toThrow(
      refusal(
        /init_mm is at 0xffffffff8a602040 by the profile, at 0xffffffff8a602000 by the guest's kallsyms$/,
      ),
    );
    const noText = mapOf(guest).replace(/ _text$/m, ' nothing');
    await expect(load(guest, { profile: parseSystemMap(noText) })).rejects.toThrow(
      refusal(/it has neither '_text' nor 'startup_64'/),
    );
    await expect(
      load(guest, { profile: { source: 'x.json', banner: 'Linux version 5.0' } }),
    ).rejects.toThrow(
      refusal(
        /x\.json does not fit .*: it is for 'Linux version 5\.0', the guest runs 'Linux version 6\.1\.0-test-amd64/,
      ),
    );
  });
});
