import { VmiError } from '../../errors.js';
import type { AbortOptions } from '../physical-memory.js';
import { type HostMapping, hostMappings, runsOfSize } from '../process/host-mappings.js';
import type { HostRange } from '../process/open-ranges.js';
import type { Candidate, Opening, Source } from '../source.js';
import { findDomain, type LibvirtTarget } from './libvirt.js';
import { listenerOf } from './listeners.js';
import { QemuMachine, REGISTERS } from './machine.js';
import { type BlockRange, parseHostAddress, parseMemoryTree } from './memory-map.js';
import type { Monitor, MonitorAccess } from './monitor.js';
import { openQemuRanges } from './open-qemu.js';
import { hasItsRam, type QemuProcess, qemuProcess } from './process.js';
import { QmpSocket } from './qmp.js';
import { withoutMonitor } from './without-monitor.js';

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
  refuseEncrypted(process);
  refuseWaiting(process);
  for (const socket of process.qmpSockets) {
    try {
      const access = new QmpSocket(socket);
      return await openBy(access, waiting, () => process);
    } catch (error) {
      refusals.push((error as Error).message);
    }
  }
  return withoutMonitor(process, refusals, waiting.write);
}

/**
 * A QEMU waits with its guest for the first client of a socket with `wait=on`, and whoever looks at
 * what runs must not be that.
 * @throws {VmiError} `VMI_ATTACH`: it does
 */
function refuseWaiting(process: QemuProcess): void {
  const { pid, startingSockets } = process;
  const [socket] = startingSockets;
  // RAM is mapped after all sockets have had their client. QEMU system/vl.c, `qemu_init`.
  if (socket === undefined || hasItsRam(process)) return;
  throw new VmiError(
    'VMI_ATTACH',
    `QEMU ${pid} has no RAM yet: it waits at ${socket} for its first client (wait=on) before it starts its guest. That is not done unasked: attach with qmp:${socket} to start it`,
  );
}

/** @throws {VmiError} `VMI_UNSUPPORTED`: what the host has of its memory is encrypted */
function refuseEncrypted({ pid, encrypted }: QemuProcess): void {
  if (encrypted === undefined) return;
  throw new VmiError(
    'VMI_UNSUPPORTED',
    `QEMU ${pid} runs a confidential guest (${encrypted}): its memory is encrypted, and nothing outside of it can read that`,
  );
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
  refuseEncrypted(process);
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
    open: () => openQemuRanges(process, { ranges: host, mappings, machine, write }),
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
