// A QEMU that offers no monitor: where its RAM lies is worked out from its command line and its
// memory map, and proven by the guest's page tables.
import { hex, VmiError } from '../../errors.js';
import {
  movedSplits,
  otherSplits,
  type RamSplit,
  ramSplits,
  splitRanges,
} from '../../ram-layout.js';
import { type HostMapping, hostMappings, runsOfSize } from '../process/host-mappings.js';
import type { HostRange } from '../process/open-ranges.js';
import type { Candidate, Source } from '../source.js';
import type { MemoryBlock } from './command-line.js';
import { openQemuRanges } from './open-qemu.js';
import type { QemuProcess } from './process.js';

/** Ways to place the blocks of main memory that are tried at most. */
const MAX_PLACINGS = 24;

/**
 * RAM is a readable mapping of the size that `-m` asked for, or one for each NUMA node. Where there
 * are several, or a PC of that size may be split in more than one way, every way is a candidate,
 * and the guest's page tables decide.
 * @param refusals why the monitors that it has were not used
 * @throws {VmiError} `VMI_ATTACH`: its RAM cannot be told
 */
export function withoutMonitor(
  process: QemuProcess,
  refusals: readonly string[],
  write?: boolean,
): Source {
  const why = refusals.length > 0 ? ` (${refusals.join('; ')})` : '';
  const advice = `give it a free '-qmp unix:PATH,server=on,wait=off' and attach with qmp:PATH${why}`;
  const { memory: size, blocks, unread } = process;
  if (size === undefined) {
    const file =
      unread.length === 0 ? '' : ` (its configuration ${unread.join(', ')} cannot be read)`;
    throw new VmiError(
      'VMI_ATTACH',
      `cannot tell how much RAM QEMU ${process.pid} has${file}: ${advice}`,
    );
  }
  if (blocks === undefined || process.hasMemoryDevices) {
    throw new VmiError(
      'VMI_ATTACH',
      `QEMU ${process.pid} has several memory blocks, whose places only its monitor tells: ${advice}`,
    );
  }
  const mappings = hostMappings(process.pid);
  const placings = placingsOf(blocks, mappings);
  if (placings.length === 0) {
    const each = blocks.map((block) => `${block.size >> 20n} MiB`).join(' and ');
    throw new VmiError(
      'VMI_ATTACH',
      `QEMU ${process.pid} has no mapping of ${each}, the size of its RAM: ${advice}`,
    );
  }
  const splits = splitsOf(process, size);
  const without =
    refusals.length === 0
      ? `no registers and no pause: it has no QMP socket; give it one ('-qmp unix:PATH,server=on,wait=off')`
      : `no registers and no pause: ${refusals.join('; ')}`;
  const isSure = placings.length === 1 && splits.length === 1 && process.machine !== undefined;
  const candidates = placings.flatMap((placing) =>
    splits.map(({ low, high, assumption }): Candidate => {
      const at = placing.map(({ host }) => hex(host)).join(' and ');
      return {
        assumption: placings.length === 1 ? assumption : `${assumption}, mapped at ${at}`,
        // Below 2.75 GiB every PC keeps its RAM in one piece.
        proven: isSure && low === size,
        open: () =>
          openQemuRanges(process, {
            ranges: hostRanges(placing, { size, low, high }),
            mappings,
            without,
            write,
          }),
      };
    }),
  );
  return { candidates, close: async () => {} };
}

/** In order of likelihood: what the command line says, the machine's rule, what others have. */
function splitsOf({ machine, lowRam }: QemuProcess, size: bigint): RamSplit[] {
  const rest = [...ramSplits(size, machine), ...otherSplits(size, machine)];
  const moved = movedSplits(size, machine);
  if (lowRam === undefined || lowRam >= size) return [...rest, ...moved];
  const said = { low: lowRam, assumption: `RAM split at ${lowRam >> 20n} MiB (max-ram-below-4g)` };
  return [said, ...rest.filter(({ low }) => low !== lowRam), ...moved];
}

/** A block of main memory, and where it may be. */
interface PlacedBlock extends MemoryBlock {
  readonly host: bigint;
}

/** Every way in which mappings of the right sizes can be the blocks, each once. */
function placingsOf(
  blocks: readonly MemoryBlock[],
  mappings: readonly HostMapping[],
): PlacedBlock[][] {
  let placings: PlacedBlock[][] = [[]];
  for (const block of blocks) {
    const hosts = runsOfSize(mappings, block.size);
    placings = placings
      .flatMap((placed) =>
        hosts
          .filter((host) => !placed.some((other) => other.host === host))
          .map((host) => [...placed, { ...block, host }]),
      )
      .slice(0, MAX_PLACINGS);
  }
  return placings;
}

/** Runs of guest-physical RAM, where the blocks follow each other and are split as one. */
function hostRanges(
  placing: readonly PlacedBlock[],
  { size, low, high }: { size: bigint; low: bigint; high: bigint | undefined },
): HostRange[] {
  const ranges: HostRange[] = [];
  for (const { physical, length, offset } of splitRanges(size, low, high)) {
    let start = 0n;
    for (const block of placing) {
      const from = offset > start ? offset : start;
      const blockEnd = start + block.size;
      const end = offset + length < blockEnd ? offset + length : blockEnd;
      if (end > from)
        ranges.push({
          physical: physical + (from - offset),
          length: end - from,
          host: block.host + (from - start),
        });
      start = blockEnd;
    }
  }
  return ranges;
}
