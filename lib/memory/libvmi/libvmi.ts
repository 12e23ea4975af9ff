import { closeSync, statSync } from 'node:fs';
import type { Memory as NativeMemory } from '../../../types/addon.js';
import { addon } from '../../addon.js';
import { fromNative, VmiError } from '../../errors.js';
import { type Cr3WriteOptions, Cr3WriteStream } from '../../libvmi/cr3-writes.js';
import { REGISTERS } from '../../libvmi/registers.js';
import { LibvmiSession, openForEvents, withLog } from '../../libvmi/session.js';
import { ramSplits, splitRanges } from '../../ram-layout.js';
import type { LibvmiTarget } from '../../target.js';
import { PauseGuard } from '../pause-guard.js';
import {
  type AbortOptions,
  type Machine,
  PhysicalMemory,
  type RegisterOptions,
  type VcpuRegisters,
} from '../physical-memory.js';
import { isSuspended } from '../qemu/libvirt.js';
import { MORE_REGISTERS } from '../registers.js';
import type { Candidate, Opening, Source } from '../source.js';
import { kvmRanges } from './kvm-ranges.js';
import { notWritten, openFile, writeDomain } from './write.js';

const PAGE_SIZE = 0x1000n;
const PAGE_OFFSET = 0xfffn;
/**
 * End of the addresses that a page table can hold: where a machine's RAM ends is not a guest's
 * business. SDM vol. 3A, 4.4.
 */
const MACHINE_END = 1n << 52n;
/** Pages that are compared before a file is mapped, per run of RAM. */
const COMPARED_PAGES = 16n;

/**
 * Attaches through libvmi with no profile. Physical memory is read through vmi_read_pa; that of a
 * file, which libvmi's file driver only copies from, is mapped (`map: false`: read through
 * vmi_read_pa as well).
 *
 * A raw RAM file does not say where the hole below 4 GiB of its guest is, and libvmi takes offsets
 * for addresses. With `split` all of it is read at the right place; without, what lies above the
 * lowest address where a hole may start is left out. {@link openLibvmiSource} offers every layout
 * instead.
 * @throws {VmiError} `VMI_LIBRARY_MISSING`: libvmi is not installed or too old
 * @throws {VmiError} `VMI_ATTACH`: libvmi cannot attach, with its reason; `VMI_BUSY`: it did not
 *   return; `VMI_ABORTED`
 */
export async function openLibvmi(
  target: LibvmiTarget,
  options: LibvmiOpening = {},
): Promise<PhysicalMemory> {
  const session = await LibvmiSession.open({ ...target, signal: options.signal });
  try {
    if (target.driver !== 'file') return await domainMemory(session, target, options);
    const size = rawSize(target.name);
    return fileMemory(session, target, layouts(size, target.split)[0]!, options);
  } catch (error) {
    await session.close();
    throw error;
  }
}

/**
 * The same as a {@link Source}: for a file whose layout is open, one candidate for every layout a
 * PC can have.
 * @throws {VmiError} as {@link openLibvmi}
 */
export async function openLibvmiSource(
  target: LibvmiTarget,
  options: LibvmiOpening = {},
): Promise<Source> {
  const memory = await openLibvmi(target, options);
  const choices = target.driver === 'file' ? layouts(rawSize(target.name), target.split) : [];
  if (choices.length <= 1) {
    const assumption = choices[0]?.assumption ?? "libvmi's own memory map";
    return {
      candidates: [{ assumption, proven: true, open: () => memory }],
      close: () => memory.close(),
    };
  }
  // libvmi can attach, so each candidate may do it for itself.
  await memory.close();
  const candidates = choices.slice(1).map(
    (layout): Candidate => ({
      assumption: layout.assumption,
      proven: false,
      open: () => fileMemory(LibvmiSession.start(target), target, layout, options),
    }),
  );
  return { candidates, close: async () => {} };
}

type LibvmiOpening = AbortOptions & Pick<Opening, 'write'>;

interface Layout {
  readonly assumption: string;
  readonly ranges: readonly {
    readonly physical: bigint;
    readonly length: bigint;
    readonly offset: bigint;
  }[];
}

/**
 * How the file may be laid out: what all layouts agree on first, then each of them. One, where
 * there is no doubt.
 */
function layouts(size: bigint, split: bigint | undefined): Layout[] {
  if (split !== undefined)
    return [{ assumption: 'the split that was given', ranges: splitRanges(size, split) }];
  const splits = ramSplits(size);
  const whole = (length: bigint) => [{ physical: 0n, length, offset: 0n }];
  if (splits.length === 1)
    return [{ assumption: splits[0]!.assumption, ranges: splitRanges(size, splits[0]!.low) }];
  const common = splits.reduce((least, { low }) => (low < least ? low : least), size);
  return [
    { assumption: 'what every layout has in common', ranges: whole(common) },
    ...splits.map(({ low, assumption }) => ({ assumption, ranges: splitRanges(size, low) })),
    { assumption: 'one flat image, the hole below 4 GiB included', ranges: whole(size) },
  ];
}

function fileMemory(
  session: LibvmiSession,
  target: LibvmiTarget,
  layout: Layout,
  { write = false }: LibvmiOpening,
): PhysicalMemory {
  const segments = layout.ranges.flatMap(({ physical, length, offset }) => [
    physical,
    length,
    offset,
  ]);
  const read = session.memory(BigUint64Array.from(segments));
  const mapped = target.map === false ? undefined : mapFile(target.name, layout, read, write);
  if (mapped !== undefined) read.close();
  else if (write) throw notWritten(target.name);
  const how = mapped === undefined ? 'file driver' : 'file driver, mapped';
  return new PhysicalMemory({
    native: mapped ?? read,
    source: 'libvmi',
    description: `${target.name} (libvmi ${session.version}, ${how}; ${layout.assumption})`,
    // A file may well be the RAM of a guest that runs.
    live: true,
    machine: { close: () => session.close() },
  });
}

/** Maps the file libvmi reads, if the two agree on what is in it. */
function mapFile(
  path: string,
  layout: Layout,
  read: NativeMemory,
  write: boolean,
): NativeMemory | undefined {
  const fd = openFile(path, write);
  let mapped: NativeMemory;
  try {
    mapped = addon().openMemory({
      segments: layout.ranges.map((range) => ({ ...range, kind: 'file', fd })),
      write,
    });
  } catch (error) {
    throw fromNative(error);
  } finally {
    closeSync(fd);
  }
  if (layout.ranges.every((range) => agree(mapped, read, range))) return mapped;
  mapped.close();
  return undefined;
}

/**
 * Compares pages spread over a run; on a live guest one may change between two looks, not every
 * time.
 */
function agree(
  one: NativeMemory,
  other: NativeMemory,
  range: { physical: bigint; length: bigint },
): boolean {
  const pages = range.length / PAGE_SIZE;
  const [a, b] = [Buffer.alloc(Number(PAGE_SIZE)), Buffer.alloc(Number(PAGE_SIZE))];
  for (let k = 0n; k <= COMPARED_PAGES; k++) {
    const address = range.physical + (((pages - 1n) * k) / COMPARED_PAGES) * PAGE_SIZE;
    const same = () => {
      other.begin();
      return one.read(address, a) === other.read(address, b) && a.equals(b);
    };
    if (!same() && !same() && !same()) return false;
  }
  return true;
}

async function domainMemory(
  session: LibvmiSession,
  target: LibvmiTarget,
  { write = false }: LibvmiOpening,
): Promise<PhysicalMemory> {
  const number = async (name: string) => (await session.call(name)).values[0] as bigint;
  const pv = target.driver === 'xen' && (await isPv(session));
  const end = pv ? MACHINE_END : (await number('vmi_get_max_physical_address')) & ~PAGE_OFFSET;
  const size = await number('vmi_get_memsize');
  const vcpus = Number(await number('vmi_get_num_vcpus'));
  const what = `${target.driver}:${target.name}`;
  if (end === 0n)
    throw new VmiError('VMI_ATTACH', `${what}: libvmi says that the guest has no memory`);
  if (vcpus === 0)
    throw new VmiError('VMI_ATTACH', `${what}: libvmi says that the guest has no vCPU`);
  const ranges = target.driver === 'kvm' ? kvmRanges(size, end) : [[0n, end]];
  const native = session.memory(
    BigUint64Array.from(ranges.flatMap(([start, end]) => [start!, end! - start!, start!])),
  );
  return new PhysicalMemory({
    native,
    source: 'libvmi',
    description: `${what} (libvmi ${session.version}${pv ? ', a PV guest: machine addresses' : ''})`,
    live: true,
    addressing: pv ? 'machine' : 'guest-physical',
    // Below the end there is the hole of a PC too, and what the guest gave back.
    ...(target.driver === 'xen' ? { ramSize: size > 0n && size < end ? size : end } : {}),
    machine: new Domain(session, native, target, vcpus),
    ...(write ? { write: (address, bytes) => writeDomain(session, what, address, bytes) } : {}),
  });
}

/**
 * Whether a Xen guest is paravirtualised. libvmi has no stable call that says so, but reads another
 * structure for its registers, in which there is no EFER (libvmi/driver/xen/xen.c,
 * xen_get_vcpureg_pv64).
 */
async function isPv(session: LibvmiSession): Promise<boolean> {
  const has = async (name: 'CR3' | 'MSR_EFER') =>
    !(await session.call('vmi_get_vcpureg', [REGISTERS[name], 0])).failed;
  return (await has('CR3')) && !(await has('MSR_EFER'));
}

const EVENT_CALLS = [
  'vmi_events_version',
  'vmi_register_event',
  'vmi_clear_event',
  'vmi_events_listen',
];

/** Registers that libvmi calls otherwise than the manual does. */
const SPELLED: Readonly<Record<string, number>> = {
  cs: REGISTERS.CS_SEL,
  ds: REGISTERS.DS_SEL,
  es: REGISTERS.ES_SEL,
  fs: REGISTERS.FS_SEL,
  gs: REGISTERS.GS_SEL,
  ss: REGISTERS.SS_SEL,
  fsBase: REGISTERS.FS_BASE,
  gsBase: REGISTERS.GS_BASE,
  trBase: REGISTERS.TR_BASE,
  gdtBase: REGISTERS.GDTR_BASE,
  idtBase: REGISTERS.IDTR_BASE,
  kernelGsBase: REGISTERS.SHADOW_GS,
  star: REGISTERS.MSR_STAR,
  lstar: REGISTERS.MSR_LSTAR,
  cstar: REGISTERS.MSR_CSTAR,
  syscallMask: REGISTERS.MSR_SYSCALL_MASK,
};

class Domain implements Machine {
  readonly #session: LibvmiSession;
  readonly #memory: NativeMemory;
  readonly #target: LibvmiTarget;
  readonly #what: string;
  readonly #vcpus: number;
  /** Held while the guest is stopped by us. */
  #guard: PauseGuard | undefined;
  #paused = false;

  /**
   * Absent where this libvmi has no events; whether the driver has, libvmi says when they are asked
   * for.
   */
  readonly cr3Writes?: (options?: Cr3WriteOptions) => Cr3WriteStream;

  constructor(session: LibvmiSession, memory: NativeMemory, target: LibvmiTarget, vcpus: number) {
    this.#session = session;
    this.#memory = memory;
    this.#target = target;
    this.#what = `${target.driver}:${target.name}`;
    if (EVENT_CALLS.every((name) => session.has(name))) {
      // An instance of its own, in a process of its own: listening holds nothing else up, and
      // whatever ends this process or that one, the guest is let go of.
      this.cr3Writes = (options) =>
        new Cr3WriteStream((signal) => openForEvents(session, { ...target, signal }), options);
    }
    this.#vcpus = vcpus;
  }

  /** One call a register: torn unless the guest is paused. */
  async registers(options: RegisterOptions = {}): Promise<VcpuRegisters[]> {
    this.#begin();
    const { signal } = options;
    const rows: VcpuRegisters[] = [];
    for (let vcpu = 0; vcpu < this.#vcpus; vcpu++) {
      const read = async (name: 'CR0' | 'CR3' | 'CR4' | 'RIP' | 'MSR_EFER') => {
        const { failed, values, log } = await this.#session.call(
          'vmi_get_vcpureg',
          [REGISTERS[name], vcpu],
          { signal },
        );
        if (!failed) return values[0] as bigint;
        // Not every driver has it, and nothing depends on it.
        if (name === 'MSR_EFER') return 0n;
        const message = `${this.#what}: libvmi cannot read ${name} of vCPU ${vcpu}`;
        throw new VmiError('VMI_UNSUPPORTED', withLog(message, log));
      };
      const more: Record<string, bigint> = {};
      if (options.all === true) {
        for (const name of MORE_REGISTERS) {
          const code = SPELLED[name] ?? REGISTERS[name.toUpperCase() as keyof typeof REGISTERS];
          if (code === undefined) continue;
          const call = await this.#session.call('vmi_get_vcpureg', [code, vcpu], { signal });
          if (!call.failed) more[name] = call.values[0] as bigint;
        }
      }
      rows.push({
        vcpu,
        cr0: await read('CR0'),
        cr3: await read('CR3'),
        cr4: await read('CR4'),
        rip: await read('RIP'),
        efer: await read('MSR_EFER'),
        ...more,
      });
    }
    return rows;
  }

  /**
   * Stops the vCPUs; a libvirt domain that somebody else has suspended stays theirs to resume (Xen
   * counts its pauses).
   */
  async pause(): Promise<void> {
    if (this.#paused) return;
    this.#begin();
    const { driver, name, library = '', isolate = false, guard = true } = this.#target;
    if (guard) {
      if (driver === 'kvm' && (await isSuspended(name))) return;
      // A process of libvmi's own resumes the guest itself once nobody holds its socket any more.
      if (!isolate) this.#guard = await PauseGuard.start(['libvmi', driver, name, library]);
    }
    try {
      await this.#control('vmi_pause_vm', 'pause');
      this.#paused = true;
    } finally {
      if (!this.#paused) this.#release();
    }
  }

  async resume(): Promise<void> {
    if (!this.#paused) return;
    await this.#control('vmi_resume_vm', 'resume');
    this.#release();
  }

  /** Resumes the guest if it was paused here. */
  async close(): Promise<void> {
    await this.#session.close();
    this.#release();
  }

  #release(): void {
    this.#guard?.release();
    this.#guard = undefined;
    this.#paused = false;
  }

  /** @throws {VmiError} `VMI_CLOSED`: the guest has ended */
  #begin(): void {
    try {
      this.#memory.begin();
    } catch (error) {
      throw fromNative(error);
    }
  }

  async #control(name: string, verb: string): Promise<void> {
    this.#begin();
    const { failed, log } = await this.#session.call(name);
    if (failed)
      throw new VmiError(
        'VMI_UNSUPPORTED',
        withLog(`${this.#what}: libvmi cannot ${verb} the guest`, log),
      );
  }
}

function rawSize(path: string): bigint {
  const size = statSync(path, { bigint: true }).size & ~PAGE_OFFSET;
  if (size > 0n) return size;
  throw new VmiError(
    'VMI_ATTACH',
    `libvmi:${path} is no memory image: it has less than a page of ${PAGE_SIZE} bytes`,
  );
}
