import { hex, VmiError } from '../../errors.js';
import { otherSplits, type RamSplit, ramSplits, splitRanges } from '../../ram-layout.js';
import type { AbortOptions } from '../physical-memory.js';
import type { Candidate, Opening, Source } from '../source.js';
import { findDomain, type LibvirtTarget } from './libvirt.js';
import { QemuMachine, REGISTERS } from './machine.js';
import { type BlockRange, parseHostAddress, parseMemoryTree } from './memory-map.js';
import type { Monitor, MonitorAccess } from './monitor.js';
import { type HostRange, openRanges } from './open-ranges.js';
import {
  type HostMapping,
  hostMappings,
  listenerOf,
  type QemuProcess,
  qemuProcess,
  runsOfSize,
} from './process.js';
import { QmpSocket } from './qmp.js';

/**
 * Finds the RAM of a QEMU by its process id.
 *
 * With a QMP socket on its command line that answers, QEMU tells the map and gives registers.
 * Without one the map is worked out from the process; see {@link Candidate}.
 * @throws {VmiError} `VMI_ATTACH`: no such process, no QEMU, no right to trace it, or its RAM
 * cannot be told
 */
export async function openQemuProcess(pid: number, waiting: Opening = {}): Promise<Source> {
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
  return fromProcess(process, refusals, waiting.write);
}

/**
 * Finds the RAM of the QEMU that serves a QMP socket.
 * @throws {VmiError} `VMI_ATTACH`: nobody listens, another client holds it, or the process cannot
 * be read
 */
export async function openQmpSocket(socket: string, waiting: Opening = {}): Promise<Source> {
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
 * @throws {VmiError} `VMI_ATTACH`: no virsh, no libvirtd, no right, no such domain, not running, or
 * its process cannot be read
 */
export async function openLibvirt(
  target: LibvirtTarget,
  options: AbortOptions & Opening = {},
): Promise<Source> {
  const { process, access } = await findDomain(target, options);
  return openBy(access, options, () => process);
}

/**
 * Gives the source as soon as the map is there; the monitor is held until the registers are there,
 * too.
 */
function openBy(access: MonitorAccess, waiting: Opening, find: () => QemuProcess): Promise<Source> {
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
  { meanwhile, write }: Opening,
): Promise<{ source: Source; registers: Promise<unknown> }> {
  // All that an attach asks, at once: an answer takes the monitor a fraction of the time that the
  // way there and back does.
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
  const machine = new QemuMachine(process.pid, access, registers);
  const candidate: Candidate = {
    assumption: "QEMU's own memory map",
    proven: true,
    open: () => openRanges(process, host, mappings, { machine, write }),
  };
  return { source: { candidates: [candidate], close: async () => {} }, registers };
}

const whereIs = (physical: bigint) => `gpa2hva 0x${physical.toString(16)}`;

/**
 * Where each RAM block lies in the process; QEMU maps a block in one piece, and is asked once for
 * each that does not show.
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

/**
 * The only shared mapping that is as long as a block that the command line shares. `undefined`:
 * QEMU has to be asked.
 */
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
 * Works the map out without a monitor: RAM is a readable mapping of the size that `-m` asked for.
 * Where there are several, or a PC of that size may be split in more than one way, every way is a
 * candidate, and the guest's page tables decide.
 */
function fromProcess(
  process: QemuProcess,
  refusals: readonly string[],
  write: boolean | undefined,
): Source {
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
  const splits = splitsOf(process, size);
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
          { write },
        ),
    })),
  );
  return { candidates, close: async () => {} };
}

/** In order of likelihood: what the command line says, the machine's rule, what others have. */
function splitsOf({ machine, lowRam }: QemuProcess, size: bigint): RamSplit[] {
  const rest = [...ramSplits(size, machine), ...otherSplits(size, machine)];
  if (lowRam === undefined || lowRam >= size) return rest;
  const said = { low: lowRam, assumption: `RAM split at ${lowRam >> 20n} MiB (max-ram-below-4g)` };
  return [said, ...rest.filter(({ low }) => low !== lowRam)];
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
