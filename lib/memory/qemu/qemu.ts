import { closeSync } from 'node:fs';
import type { NativeSegment } from '../../../types/addon.js';
import { addon } from '../../addon.js';
import { fromNative, hex, VmiError } from '../../errors.js';
import { PauseGuard } from '../pause-guard.js';
import {
  type AbortOptions,
  type Machine,
  PhysicalMemory,
  type VcpuRegisters,
} from '../physical-memory.js';
import { type Candidate, ramSplits, type Source, splitRanges, type Waiting } from '../source.js';
import { findDomain, type LibvirtTarget } from './libvirt.js';
import { type BlockRange, parseHostAddress, parseMemoryTree } from './memory-map.js';
import type { Monitor, MonitorAccess } from './monitor.js';
import {
  type HostMapping,
  hostMappings,
  listenerOf,
  noRight,
  openMapping,
  type QemuProcess,
  qemuProcess,
  runsOfSize,
} from './process.js';
import { QmpSocket } from './qmp.js';
import { parseRegisters } from './registers.js';

const REGISTERS = 'info registers -a';
/** Milliseconds within which the registers that came with the map are those of now. */
const FRESH = 50;

/** A run of guest-physical RAM at a virtual address of the QEMU process. */
interface HostRange {
  readonly physical: bigint;
  readonly length: bigint;
  readonly host: bigint;
}

/**
 * Finds the RAM of a QEMU by its process id.
 *
 * With a QMP socket on its command line that answers, QEMU tells the map and gives registers. Without one the map is
 * worked out from the process; see {@link Candidate}.
 * @throws {VmiError} `VMI_ATTACH`: no such process, no QEMU, no right to trace it, or its RAM cannot be told
 */
export async function openQemuProcess(pid: number, waiting: Waiting = {}): Promise<Source> {
  const process = qemuProcess(pid);
  const refusals: string[] = [];
  for (const socket of process.qmpSockets) {
    try {
      const access = new QmpSocket(socket);
      return await openBy(access, waiting, () => process);
    } catch (error) {
      refusals.push((error as Error).message);
    }
  }
  return fromProcess(process, refusals);
}

/**
 * Finds the RAM of the QEMU that serves a QMP socket.
 * @throws {VmiError} `VMI_ATTACH`: nobody listens, another client holds it, or the process cannot be read
 */
export async function openQmpSocket(socket: string, waiting: Waiting = {}): Promise<Source> {
  const access = new QmpSocket(socket);
  return openBy(access, waiting, () => {
    const pid = listenerOf(socket);
    if (pid === undefined) {
      throw new VmiError(
        'VMI_ATTACH',
        `cannot tell which process serves ${socket}: run as the user of that QEMU or as root, or attach with qemu:PID`,
      );
    }
    return qemuProcess(pid);
  });
}

/**
 * Finds the RAM of a libvirt domain on this host, by libvirt's own connection to its monitor.
 * @throws {VmiError} `VMI_ATTACH`: no virsh, no libvirtd, no right, no such domain, not running, or its process cannot be read
 */
export async function openLibvirt(
  target: LibvirtTarget,
  options: AbortOptions & Waiting = {},
): Promise<Source> {
  const { process, access } = await findDomain(target, options);
  return openBy(access, options, () => process);
}

/** Gives the source as soon as the map is there; the monitor is held until the registers are there, too. */
function openBy(access: MonitorAccess, waiting: Waiting, find: () => QemuProcess): Promise<Source> {
  return new Promise((resolve, reject) => {
    access
      .use(async (monitor) => {
        const { source, registers } = await fromMonitor(find(), monitor, access, waiting);
        resolve(source);
        await registers;
      })
      .catch(reject);
  });
}

async function fromMonitor(
  process: QemuProcess,
  monitor: Monitor,
  access: MonitorAccess,
  { meanwhile }: Waiting,
): Promise<{ source: Source; registers: Promise<unknown> }> {
  // All that an attach asks, at once: an answer takes the monitor a fraction of the time that the way there and back does.
  const map = Promise.all([
    monitor.human('info mtree -f'),
    // What is shared most likely shows without.
    process.sharedBackends.length > 0 ? undefined : monitor.human(whereIs(0n)),
  ]);
  map.catch(() => {});
  // Should QEMU refuse it, whoever needs registers asks again and is told why.
  const registers = monitor.human(REGISTERS).catch(() => undefined);
  // While QEMU is at it.
  const mappings = hostMappings(process.pid);
  meanwhile?.();
  const [tree, first] = await map;
  const host = await hostRanges(process, monitor, parseMemoryTree(tree), mappings, first);
  const machine = new QemuMachine(access, registers);
  const candidate: Candidate = {
    assumption: "QEMU's own memory map",
    proven: true,
    open: () => openRanges(process, host, mappings, machine),
  };
  return { source: { candidates: [candidate], close: async () => {} }, registers };
}

const whereIs = (physical: bigint) => `gpa2hva 0x${physical.toString(16)}`;

/**
 * Where each RAM block lies in the process; QEMU maps a block in one piece, and is asked once for each that does not show.
 *
 * @param first the answer for address 0, where every PC has RAM, if it was asked
 */
async function hostRanges(
  process: QemuProcess,
  monitor: Monitor,
  ranges: readonly BlockRange[],
  mappings: readonly HostMapping[],
  first: string | undefined,
): Promise<HostRange[]> {
  const bases = new Map<string, bigint>();
  for (const { block, physical, offset } of ranges) {
    if (bases.has(block)) continue;
    const shown = sharedBlock(process, ranges, mappings, block);
    const ask = async () => {
      const answer =
        physical === 0n && first !== undefined ? first : await monitor.human(whereIs(physical));
      return parseHostAddress(answer) - offset;
    };
    bases.set(block, shown ?? (await ask()));
  }
  return ranges.map((range) => ({
    physical: range.physical,
    length: range.length,
    host: bases.get(range.block)! + range.offset,
  }));
}

/** The only shared mapping that is as long as a block that the command line shares. `undefined`: QEMU has to be asked. */
function sharedBlock(
  process: QemuProcess,
  ranges: readonly BlockRange[],
  mappings: readonly HostMapping[],
  block: string,
): bigint | undefined {
  // Some machines call it by its path. QEMU hw/core/machine.c, `machine_consume_memdev`.
  if (!process.sharedBackends.includes(block.replace(/^\/objects\//, ''))) return undefined;
  const ends = ranges
    .filter((range) => range.block === block)
    .map(({ offset, length }) => offset + length);
  const size = ends.reduce((longest, end) => (end > longest ? end : longest), 0n);
  const starts = runsOfSize(
    mappings.filter(({ shared }) => shared),
    size,
  );
  return starts.length === 1 ? starts[0] : undefined;
}

/**
 * Works the map out without a monitor: RAM is a readable mapping of the size that `-m` asked for. Where there are several, or
 * a PC of that size may be split in more than one way, every way is a candidate, and the guest's page tables decide.
 */
function fromProcess(process: QemuProcess, refusals: readonly string[]): Source {
  const why = refusals.length > 0 ? ` (${refusals.join('; ')})` : '';
  const advice = `give it a free '-qmp unix:PATH,server=on,wait=off' and attach with qmp:PATH${why}`;
  const size = process.memory;
  if (size === undefined) {
    throw new VmiError('VMI_ATTACH', `cannot tell how much RAM QEMU ${process.pid} has: ${advice}`);
  }
  if (
    process.args.some((arg) => /^--?(numa|device)$/.test(arg)) &&
    hasMemoryDevices(process.args)
  ) {
    throw new VmiError(
      'VMI_ATTACH',
      `QEMU ${process.pid} has several memory blocks, whose places only its monitor tells: ${advice}`,
    );
  }
  const mappings = hostMappings(process.pid);
  const blocks = runsOfSize(mappings, size);
  if (blocks.length === 0) {
    throw new VmiError(
      'VMI_ATTACH',
      `QEMU ${process.pid} has no mapping of ${size >> 20n} MiB, the size of its RAM: ${advice}`,
    );
  }
  const splits = ramSplits(size, process.machine);
  const candidates = blocks.flatMap((block) =>
    splits.map(({ low, assumption }) => ({
      assumption: blocks.length === 1 ? assumption : `${assumption}, mapped at ${hex(block)}`,
      // Below 2.75 GiB every PC keeps its RAM in one piece.
      proven:
        blocks.length === 1 && splits.length === 1 && low === size && process.machine !== undefined,
      open: () =>
        openRanges(
          process,
          splitRanges(size, low).map(({ physical, length, offset }) => ({
            physical,
            length,
            host: block + offset,
          })),
          mappings,
        ),
    })),
  );
  return { candidates, close: async () => {} };
}

function hasMemoryDevices(args: readonly string[]): boolean {
  return (
    args.some(
      (arg, i) => /^--?device$/.test(arg) && /^(pc-dimm|nvdimm|virtio-mem)/.test(args[i + 1] ?? ''),
    ) ||
    (args.some((arg) => /^--?numa$/.test(arg)) &&
      args.filter((arg) => /^memory-backend-/.test(arg)).length > 1)
  );
}

/** Opens host ranges: mapped where the process shares them through a file, read from the process elsewhere. */
function openRanges(
  process: QemuProcess,
  ranges: readonly HostRange[],
  mappings: readonly HostMapping[],
  machine?: QemuMachine,
): PhysicalMemory {
  const descriptors: number[] = [];
  const segments: NativeSegment[] = [];
  const files = new Map<string, number | undefined>();
  const descriptorOf = (mapping: HostMapping): number | undefined => {
    const key = `${mapping.device} ${mapping.inode}`;
    if (!files.has(key)) {
      const fd = openMapping(process.pid, mapping);
      if (fd !== undefined) descriptors.push(fd);
      files.set(key, fd);
    }
    return files.get(key);
  };
  try {
    for (const range of ranges) {
      for (const piece of pieces(range, mappings)) {
        const fd = piece.mapping?.shared === true ? descriptorOf(piece.mapping) : undefined;
        if (fd === undefined) {
          segments.push({
            physical: piece.physical,
            length: piece.length,
            kind: 'process',
            offset: piece.host,
            anonymous: isAnonymous(piece.mapping),
          });
        } else {
          const offset = piece.mapping!.offset + (piece.host - piece.mapping!.start);
          segments.push({
            physical: piece.physical,
            length: piece.length,
            kind: 'file',
            fd,
            offset,
          });
        }
      }
    }
    const native = addon().openMemory({ segments, pid: process.pid });
    const name = process.name === '' ? '' : ` '${process.name}'`;
    const how = native.mapped ? 'shared RAM, mapped' : 'anonymous RAM, read from the process';
    return new PhysicalMemory({
      native,
      source: 'qemu',
      description: `QEMU ${process.pid}${name} (${how})`,
      live: true,
      ...(machine === undefined ? {} : { machine }),
    });
  } catch (error) {
    const native = fromNative(error) as NodeJS.ErrnoException;
    throw native.code === 'EACCES' || native.code === 'EPERM'
      ? noRight(process.pid, error)
      : native;
  } finally {
    for (const fd of descriptors) closeSync(fd);
  }
}

/** Whether it is memory of no file: what its process never touched is zeroes. */
function isAnonymous(mapping: HostMapping | undefined): boolean {
  return mapping !== undefined && !mapping.shared && mapping.inode === 0n;
}

interface Piece extends HostRange {
  readonly mapping: HostMapping | undefined;
}

/** Cuts a range where the process's mappings change; what lies in none is left to fail when it is read. */
function pieces(range: HostRange, mappings: readonly HostMapping[]): Piece[] {
  const cut: Piece[] = [];
  let { physical, length, host } = range;
  while (length > 0n) {
    const mapping = mappings.find((candidate) => host >= candidate.start && host < candidate.end);
    const next = mappings.find((candidate) => candidate.start > host);
    const end = mapping?.end ?? next?.start ?? host + length;
    const part = end - host < length ? end - host : length;
    const last = cut.at(-1);
    const shared = mapping?.shared ?? false;
    const joins = last !== undefined && isAnonymous(mapping) === isAnonymous(last.mapping);
    if (joins && !shared && !(last.mapping?.shared ?? false)) {
      cut[cut.length - 1] = { ...last, length: last.length + part };
    } else {
      cut.push({ physical, length: part, host, mapping });
    }
    physical += part;
    host += part;
    length -= part;
  }
  return cut;
}

/**
 * The controls of a QEMU. Its monitor serves one client at a time, so it is held only while it is used: other tools, and other
 * attachments to the same guest, find it free.
 */
class QemuMachine implements Machine {
  readonly #access: MonitorAccess;
  /** What the monitor says since it was asked for the map, and when that is: for whoever asks first, and soon. */
  #first: Promise<{ readonly text: string | undefined; readonly time: number }> | undefined;
  /** Held while the guest is stopped by us. */
  #guard: PauseGuard | undefined;

  constructor(access: MonitorAccess, registers: Promise<string | undefined>) {
    this.#access = access;
    this.#first = registers.then((text) => ({ text, time: performance.now() }));
  }

  async registers(options: AbortOptions = {}): Promise<VcpuRegisters[]> {
    options.signal?.throwIfAborted();
    const asked = this.#first;
    this.#first = undefined;
    const first = await asked;
    if (first?.text !== undefined && performance.now() - first.time < FRESH)
      return parseRegisters(first.text);
    return this.#access.use(async (monitor) => parseRegisters(await monitor.human(REGISTERS)));
  }

  /** Stops the vCPUs; a guest that somebody else has stopped stays theirs to resume. */
  async pause(): Promise<void> {
    if (this.#guard !== undefined) return;
    const guard = await PauseGuard.start(this.#access.words);
    try {
      await this.#access.use(async (monitor) => {
        const status = (await monitor.execute('query-status')) as { running?: boolean };
        if (status.running !== true) return;
        this.#guard = guard;
        await monitor.execute('stop');
      });
    } finally {
      if (this.#guard === undefined) guard.release();
    }
  }

  async resume(): Promise<void> {
    const guard = this.#guard;
    if (guard === undefined) return;
    await this.#access.use((monitor) => monitor.execute('cont'));
    this.#guard = undefined;
    guard.release();
  }

  async close(): Promise<void> {
    await this.resume();
  }
}
