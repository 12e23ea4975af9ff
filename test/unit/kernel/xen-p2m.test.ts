import { describe, expect, it, vi } from 'vitest';
import { CorruptError } from '../../../lib/errors.js';
import { Kernel } from '../../../lib/kernel/kernel.js';
import type { KernelOptions } from '../../../lib/kernel/kernel-options.js';
import type { P2m } from '../../../lib/kernel/xen-p2m.js';
import { MachineSpaces } from '../../../lib/tasks/xen-spaces.js';
import { fakeAddon, fakePhysicalMemory } from '../support/fake-memory.js';
import { RAM_LENGTH, registersOf } from './support/build-guest.js';
import {
  FOREIGN_PAGE,
  IDENTITY_PAGE,
  LOST_PAGE,
  type ScatteredGuest,
  scatterGuest,
} from './support/scatter-guest.js';

vi.mock('../../../lib/addon.js', () => ({ addon: () => fakeAddon }));

const ramSize = BigInt(RAM_LENGTH) << 20n;

function load(guest: ScatteredGuest, options: KernelOptions = {}): Promise<Kernel> {
  const memory = fakePhysicalMemory(guest.memory, undefined, { addressing: 'machine', ramSize });
  return Kernel.load(memory, { cache: false, registers: [registersOf(guest.root)], ...options });
}

async function p2mOf(guest: ScatteredGuest): Promise<P2m> {
  const { p2m } = await load(guest);
  return p2m!;
}

describe('a kernel whose page tables hold frames of the machine', () => {
  it('is found, though its image lies nowhere in one piece', async () => {
    const guest = scatterGuest();
    const kernel = await load(guest);
    expect(kernel.release).toBe('6.1.0-test-amd64');
    expect(kernel.root).toBe(guest.root);
    expect(kernel.pageOffset).toBe(guest.pageOffset);
    expect(kernel.image).toMatchObject({
      linear: false,
      virtual: guest.virtual,
      length: 8n << 20n,
    });
    expect(kernel.image.windows).toEqual([]);
    expect(kernel.physBase).toBe(guest.physical - (guest.virtual - 0xffff_ffff_8000_0000n));
    expect(kernel.types.offset('mm_struct', 'pgd')).toBe(120);
    expect(kernel.buildId).toBe('00112233445566778899aabbccddeeff00112233');
    const task = BigInt(guest.at('init_task'));
    expect(kernel.memory.translate(kernel.symbols.address('init_task'))).toBe(guest.machine(task));
    expect(kernel.memory.translate(kernel.pageOffset + 0x12_3456n)).toBe(guest.machine(0x12_3456n));
  });

  it('is not looked for in all frames there may be', async () => {
    const guest = scatterGuest();
    const scan = vi.spyOn(guest.memory, 'scan');
    await expect(load(guest, { registers: [] })).rejects.toMatchObject({
      code: 'VMI_ATTACH',
      message: expect.stringContaining('registers: the source gives none'),
    });
    expect(scan).not.toHaveBeenCalled();
  });

  it('is refused when its list of frames and its direct map disagree', async () => {
    const guest = scatterGuest();
    // Every frame is that of its neighbour.
    const list = 40n << 20n;
    for (let page = 0n; page < 32n; page++) {
      for (let at = 0n; at < 4096n; at += 8n)
        guest.write(
          list + page * 4096n + at,
          guest.machine(((page * 512n + at / 8n) ^ 1n) << 12n) >> 12n,
        );
    }
    await expect(load(guest)).rejects.toMatchObject({
      code: 'VMI_ATTACH',
      message: expect.stringMatching(/it maps 0x0 to 0x\w+, the guest's list to 0x\w+/),
    });
  });
});

describe("a PV guest's list of frames", () => {
  it('translates both ways, to the byte', async () => {
    const guest = scatterGuest();
    const p2m = await p2mOf(guest);
    for (const physical of [0n, 0x1fffn, 0x123_4567n, ramSize - 1n]) {
      const machine = guest.machine(physical);
      expect(p2m.toMachine(physical)).toBe(machine);
      expect(p2m.toPhysical(machine)).toBe(physical);
    }
  });

  it('has no frame where the guest has none of its own', async () => {
    const p2m = await p2mOf(scatterGuest());
    for (const physical of [
      IDENTITY_PAGE,
      LOST_PAGE,
      FOREIGN_PAGE,
      ramSize,
      0xffff_ffff_ffff_f000n,
    ])
      expect(p2m.toMachine(physical)).toBeUndefined();
    expect(p2m.toPhysical(0x5000n)).toBeUndefined();
    // The frames of the page that was given back and of the machine's own.
    expect(p2m.toPhysical(0xffff_ffff_ffff_f000n)).toBeUndefined();
    expect(p2m.toPhysical(IDENTITY_PAGE)).toBeUndefined();
  });

  it('ends where the guest says that it does not', async () => {
    const guest = scatterGuest();
    const p2m = await p2mOf(guest);
    guest.write(BigInt(guest.at('xen_p2m_size')), 0xffff_ffff_ffff_ffffn);
    expect(p2m.frames).toBe(1n << 28n);
    // Behind it lie other pages, and then nothing.
    expect(() => p2m.toPhysical(0x7777_7000n)).toThrow(CorruptError);
    guest.write(BigInt(guest.at('xen_p2m_addr')), 0xffff_c900_0000_0000n);
    expect(() => p2m.toPhysical(0x1000n)).toThrow(
      'xen_p2m_addr[0…] at 0xffffc90000000000 is not mapped',
    );
    expect(() => p2m.toMachine(0x1000n)).toThrow(expect.objectContaining({ code: 'VMI_FAULT' }));
  });

  it('counts addresses of the image as the kernel does', async () => {
    const guest = scatterGuest();
    const p2m = await p2mOf(guest);
    expect(p2m.ofImage(guest.virtual + 0x1234n)).toBe(guest.physical + 0x1234n);
  });
});

describe('the two page tables of an address space', () => {
  const PAGE = 64n;
  const PRIVATE = 40n;
  /** `struct page` of all frames, in pages that the guest has in the direct map. */
  const MAP = 50n << 20n;

  async function spaces(guest: ScatteredGuest) {
    const kernel = await load(guest);
    const symbols = { find: () => undefined };
    const types = { size: () => Number(PAGE), offset: () => Number(PRIVATE) };
    const { memory, pageOffset, physBase } = kernel;
    // VMEMMAP_START is not mapped in the built guest: the array is put where the direct map is.
    const moved = {
      translate: (address: bigint) => memory.translate(address),
      readU64: (address: bigint) =>
        memory.readU64(address - 0xffff_ea00_0000_0000n + pageOffset + MAP),
    };
    return new MachineSpaces({
      symbols,
      types,
      memory: moved,
      pageOffset,
      physBase,
    } as unknown as Kernel);
  }

  const writeUser = (guest: ScatteredGuest, pgd: bigint, user: bigint) =>
    guest.write(MAP + (pgd >> 12n) * PAGE + PRIVATE, user);

  it('are found by private of the page of the one', async () => {
    const guest = scatterGuest();
    writeUser(guest, 0x70_0000n, guest.pageOffset + 0x71_3000n);
    expect((await spaces(guest)).of(guest.pageOffset + 0x70_0000n)).toEqual({
      cr3: guest.machine(0x70_0000n),
      userCr3: guest.machine(0x71_3000n),
    });
  });

  it('are one in init_mm, whose page directory is in the image', async () => {
    const guest = scatterGuest();
    const pgd = guest.virtual + BigInt(guest.at('init_top_pgt')) - guest.physical;
    expect((await spaces(guest)).of(pgd)).toEqual({ cr3: guest.root, userCr3: null });
  });

  it('are none where the guest names no page', async () => {
    const guest = scatterGuest();
    const all = await spaces(guest);
    writeUser(guest, 0x70_0000n, guest.pageOffset + 0x71_3008n);
    expect(all.of(guest.pageOffset + 0x70_0000n)).toBeUndefined();
    writeUser(guest, 0x70_0000n, guest.pageOffset + LOST_PAGE);
    expect(all.of(guest.pageOffset + 0x70_0000n)).toBeUndefined();
    expect(all.of(guest.pageOffset + LOST_PAGE)).toBeUndefined();
  });
});
