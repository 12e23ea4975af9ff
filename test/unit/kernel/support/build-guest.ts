import { FakeMemory, type FakeSegment } from '../../support/fake-memory.js';
import { addTasks } from './add-tasks.js';
import { kernelBtf } from './build-btf.js';
import { type BuiltSymbol, buildKallsyms, type Layout, manySymbols } from './build-kallsyms.js';

const MIB = 1n << 20n;
const KERNEL_MAP = 0xffff_ffff_8000_0000n;

export interface GuestOptions {
  readonly layout?: Layout;
  readonly levels?: 4 | 5;
  /** Physical address of the image; 2 MiB aligned. */
  readonly physical?: bigint;
  /** Virtual address of the image. */
  readonly virtual?: bigint;
  readonly pageOffset?: bigint;
  readonly release?: string;
  readonly pti?: boolean;
  /** Seconds on the kernel's clock. */
  readonly time?: bigint;
  readonly vmcoreinfo?: boolean;
  /** Symbols that this kernel does not have. */
  readonly without?: readonly string[];
  /** Physical start of the direct map's first hole, to the end of RAM. */
  readonly mapped?: bigint;
  readonly buildId?: string;
  /** Whether its types are all that listing tasks asks for. */
  readonly tasks?: boolean;
  /** RAM to build in; 64 MiB of its own when left out. A second kernel can share it. */
  readonly ram?: Buffer;
}

/** Where the parts of a built guest are: physical addresses, and offsets within the image. */
export interface BuiltGuest {
  readonly memory: FakeMemory;
  readonly ram: Buffer;
  readonly root: bigint;
  readonly virtual: bigint;
  readonly physical: bigint;
  readonly pageOffset: bigint;
  readonly symbols: readonly BuiltSymbol[];
  /** Physical address of a symbol. */
  at(name: string): number;
  readonly vmcoreinfoAt: number;
  readonly btfAt: number;
  readonly tokenTableAt: number;
}

export const IMAGE_LENGTH = 8n * MIB;
export const RAM_LENGTH = 64;

/**
 * A Linux kernel small enough to read: an image with tables, tasks and page tables, and a direct
 * map of its RAM.
 */
export function buildGuest(options: GuestOptions = {}): BuiltGuest {
  const levels = options.levels ?? 4;
  const physical = options.physical ?? 16n * MIB;
  const virtual = options.virtual ?? 0xffff_ffff_8a20_0000n;
  const pageOffset =
    options.pageOffset ?? (levels === 5 ? 0xff11_2340_0000_0000n : 0xffff_9a80_0000_0000n);
  const release = options.release ?? '6.1.0-test-amd64';
  const ram = options.ram ?? Buffer.alloc(RAM_LENGTH << 20);
  const layout = options.layout ?? 'behind';

  // The image: text, then at 2 MiB read-only data, at 4 MiB data.
  const place: Record<string, bigint> = {
    _text: 0n,
    _stext: 0n,
    _etext: 2n * MIB - 16n,
    linux_banner: 2n * MIB,
    __start_notes: 2n * MIB + 0x1000n,
    __stop_notes: 2n * MIB + 0x1024n,
    __start_BTF: 2n * MIB + 0x2000n,
    page_offset_base: 4n * MIB,
    init_task: 4n * MIB + 0x1000n,
    init_mm: 4n * MIB + 0x2000n,
    boot_cpu_data: 4n * MIB + 0x3000n,
    __per_cpu_offset: 4n * MIB + 0x4000n,
    nr_cpu_ids: 4n * MIB + 0x5000n,
    __cpu_online_mask: 4n * MIB + 0x5008n,
    __cpu_possible_mask: 4n * MIB + 0x5400n,
    vmcoreinfo_data: 4n * MIB + 0x5018n,
    boot_params: 4n * MIB + 0x5800n,
    tk_core: 4n * MIB + 0x6000n,
    xen_p2m_addr: 4n * MIB + 0x7000n,
    xen_p2m_size: 4n * MIB + 0x7008n,
    phys_base: 4n * MIB + 0x7010n,
    init_pid_ns: 4n * MIB + 0x7100n,
    init_top_pgt: 4n * MIB + 0x8000n,
    _end: IMAGE_LENGTH - 1n,
  };
  const btf = kernelBtf(options.tasks);
  place.__stop_BTF = place.__start_BTF! + BigInt(btf.length);
  const symbols: BuiltSymbol[] = [
    { name: 'fixed_percpu_data', address: 0n, type: 'A' },
    { name: 'current_task', address: 0x1_fac0n, type: 'D' },
    ...Object.entries(place).map(([name, offset]) => ({
      name,
      address: virtual + offset,
      type: 'D',
    })),
    ...manySymbols(virtual + 0x100n),
  ]
    .filter((symbol) => layout !== 'place' || symbol.address > 0x10_0000n)
    .filter(({ name }) => options.without?.includes(name) !== true);
  const kallsymsAt = 2n * MIB + 0x10_0000n;
  const kallsyms = buildKallsyms(symbols, layout, virtual + kallsymsAt);

  const image = Number(physical);
  const write = (offset: bigint, bytes: Buffer) => bytes.copy(ram, image + Number(offset));
  const u64 = (offset: bigint, value: bigint) =>
    ram.writeBigUInt64LE(BigInt.asUintN(64, value), image + Number(offset));
  write(
    place.linux_banner!,
    Buffer.from(`Linux version ${release} (builder@test) #1 SMP TEST\n\0`),
  );
  const buildId = Buffer.from(options.buildId ?? '00112233445566778899aabbccddeeff00112233', 'hex');
  const note = Buffer.alloc(16);
  note.writeUInt32LE(4, 0);
  note.writeUInt32LE(20, 4);
  note.writeUInt32LE(3, 8);
  note.write('GNU\0', 12);
  write(place.__start_notes!, Buffer.concat([note, buildId]));
  write(place.__start_BTF!, btf);
  write(kallsymsAt, kallsyms.bytes);
  u64(place.page_offset_base!, pageOffset);
  // init_task, PID 1 with an address space, and kthreadd, in a list that closes.
  const tasks = [place.init_task!, 5n * MIB, 5n * MIB + 0x1000n];
  const names = ['swapper/0', 'init', 'kthreadd'];
  for (const [i, task] of tasks.entries()) {
    const link = (at: number) => virtual + tasks[(at + tasks.length) % tasks.length]! + 0x100n;
    u64(task + 0x100n, link(i + 1));
    u64(task + 0x108n, link(i - 1));
    u64(task + 0x160n, (BigInt(i) << 32n) | BigInt(i));
    write(task + 0x200n, Buffer.from(`${names[i]}\0`));
  }
  if (options.tasks === true) {
    const address = (offset: bigint) => virtual + offset;
    addTasks({ virtual: address, u64 }, tasks, place.init_pid_ns!, 5n * MIB + 0x10000n);
  }
  const mm = 5n * MIB + 0x2000n;
  u64(tasks[1]! + 0x140n, virtual + mm);
  u64(tasks[1]! + 0x148n, virtual + mm);
  u64(mm + 120n, virtual + place.init_top_pgt!);
  u64(place.init_mm! + 120n, virtual + place.init_top_pgt!);
  ram.writeUInt32LE(0x0700_8161, image + Number(place.boot_cpu_data! + 40n));
  ram.writeUInt32LE(0x2000_0000, image + Number(place.boot_cpu_data! + 44n));
  ram.writeUInt32LE(
    options.pti === true ? 1 << 11 : 0,
    image + Number(place.boot_cpu_data! + 40n + 28n),
  );
  u64(place.__per_cpu_offset!, pageOffset + 0x20_0000n);
  u64(place.__per_cpu_offset! + 8n, pageOffset + 0x30_0000n);
  ram.writeUInt32LE(2, image + Number(place.nr_cpu_ids!));
  u64(place.__cpu_online_mask!, 3n);
  u64(place.__cpu_possible_mask!, 3n);
  u64(place.phys_base!, physical - (virtual - KERNEL_MAP));
  u64(place.tk_core! + 8n + 0x70n, options.time ?? 1_700_000_000n);

  // Page tables: the top one is init_top_pgt, the others lie behind it in the image.
  let free = place.init_top_pgt! + 0x2000n;
  const table = () => {
    free += 0x1000n;
    return physical + free - 0x1000n;
  };
  const root = physical + place.init_top_pgt!;
  const entryAt = (of: bigint, address: bigint, level: number) =>
    Number(of + ((address >> BigInt(12 + 9 * (level - 1))) & 511n) * 8n);
  const map2M = (address: bigint, to: bigint) => {
    let at = root;
    for (let level: number = levels; level > 2; level--) {
      const slot = entryAt(at, address, level);
      let entry = ram.readBigUInt64LE(slot);
      if (entry === 0n) {
        entry = table() | 0x63n;
        ram.writeBigUInt64LE(entry, slot);
      }
      at = entry & 0x000f_ffff_ffff_f000n;
    }
    ram.writeBigUInt64LE(to | 0xe3n, entryAt(at, address, 2));
  };
  for (let at = 0n; at < IMAGE_LENGTH; at += 2n * MIB) map2M(virtual + at, physical + at);
  const mapped = options.mapped ?? BigInt(ram.length);
  for (let at = 0n; at < mapped; at += 2n * MIB) map2M(pageOffset + at, at);

  const vmcoreinfoAt = Number(physical + 6n * MIB + 0x18n);
  if (options.vmcoreinfo !== false) {
    u64(place.vmcoreinfo_data!, pageOffset + BigInt(vmcoreinfoAt));
    ram.write(
      [
        `OSRELEASE=${release}`,
        `BUILD-ID=${buildId.toString('hex')}`,
        'PAGESIZE=4096',
        `SYMBOL(_stext)=${virtual.toString(16)}`,
        `SYMBOL(swapper_pg_dir)=${(virtual + place.init_top_pgt!).toString(16)}`,
        `NUMBER(phys_base)=${BigInt.asIntN(64, physical - (virtual - KERNEL_MAP))}`,
        `NUMBER(pgtable_l5_enabled)=${levels === 5 ? 1 : 0}`,
        `KERNELOFFSET=${(virtual - 0xffff_ffff_8100_0000n).toString(16)}`,
        '\0',
      ].join('\n'),
      vmcoreinfoAt,
    );
  }
  const segments: FakeSegment[] = [{ physical: 0n, bytes: ram }];
  return {
    memory: new FakeMemory(...segments),
    ram,
    root,
    virtual,
    physical,
    pageOffset,
    symbols,
    at: (name) => image + Number(place[name]!),
    vmcoreinfoAt,
    btfAt: image + Number(place.__start_BTF!),
    tokenTableAt: image + Number(kallsymsAt) + kallsyms.tokenTable,
  };
}

/** vCPU registers of 64-bit mode with this CR3. */
export function registersOf(cr3: bigint, levels: 4 | 5 = 4, vcpu = 0) {
  return {
    vcpu,
    cr0: 0x8005_0033n,
    cr3,
    cr4: levels === 5 ? 0x16f0n : 0x6f0n,
    rip: 0n,
    efer: 0xd01n,
  };
}
