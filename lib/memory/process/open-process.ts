// Guest RAM in a process that offers no monitor: Firecracker, Cloud Hypervisor, crosvm, kvmtool,
// libkrun, a QEMU under another name. Every VMM maps RAM as one block or as one for each part, and
// has a hole below 4 GiB at a place of its own. What fits is a candidate; the guest's own page
// tables prove it.
import { readdirSync, readlinkSync } from 'node:fs';
import { hex, VmiError } from '../../errors.js';
import { readHostFile } from '../../host.js';
import { otherSplits, ramSplits, splitRanges } from '../../ram-layout.js';
import type { MachineLook } from '../machine.js';
import type { Candidate, Opening, Source } from '../source.js';
import { type HostMapping, hostMappings, processStart } from './host-mappings.js';
import { type HostRange, openRanges } from './open-ranges.js';

const MIB = 1n << 20n;
const FOUR_GIB = 1n << 32n;
/** No guest that runs Linux has less in its first part. */
const SMALLEST = 32n * MIB;
/** Blocks looked at, the largest first, and layouts tried at most: each takes a search of RAM. */
const MAX_BLOCKS = 6;
const MAX_LAYOUTS = 48;
/**
 * Where parts of RAM below 4 GiB end: Firecracker, crosvm and libkrun 3,328 MiB (arch::x86_64
 * `MMIO_MEM_START`, `FIRST_ADDR_PAST_32BITS` less the gap), kvmtool the same
 * (`KVM_32BIT_GAP_START`), Cloud Hypervisor 3 GiB (`MEM_32BIT_RESERVED_START`).
 */
const LOWS = [3328n * MIB, 3072n * MIB, 3584n * MIB, 2816n * MIB, 2048n * MIB, 1024n * MIB];

/** A run of memory that may be a part of guest RAM. */
interface Block {
  readonly start: bigint;
  readonly end: bigint;
}

/**
 * Finds guest RAM in a process, whatever it is.
 * @throws {VmiError} `VMI_ATTACH`: no such process, no right to read it, nothing as large as RAM
 */
export async function openProcess(pid: number, { write }: Opening = {}): Promise<Source> {
  const start = processStart(pid);
  if (start === undefined) {
    throw new VmiError('VMI_ATTACH', `there is no process ${pid} on this host`);
  }
  const name = readHostFile(`/proc/${pid}/comm`)?.trimEnd() ?? '';
  const mappings = hostMappings(pid).filter(({ writable }) => writable);
  const blocks = largest(blocksOf(mappings));
  if (blocks.length === 0) {
    throw new VmiError(
      'VMI_ATTACH',
      `process ${pid} (${name}) has no memory of ${SMALLEST >> 20n} MiB or more in one piece that could be a guest's`,
    );
  }
  const owner = {
    pid,
    source: 'process',
    name: `process ${pid} '${name}'`,
    without: 'no registers and no pause: its VMM is not asked',
    write,
    look: () => () => look(pid, start, mappings),
  };
  const candidates = layoutsOf(blocks).map(
    ({ assumption, ranges }): Candidate => ({
      assumption,
      proven: false,
      open: () => openRanges(owner, ranges, mappings),
    }),
  );
  return { candidates, close: async () => {} };
}

/** Whether a process runs virtual machines of the host's KVM. */
export function hasKvm(pid: number): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) =>
      readlinkSync(`/proc/${pid}/fd/${fd}`).includes('anon_inode:kvm-vm'),
    );
  } catch {
    return false;
  }
}

/** RAM is the same as long as its mappings are. */
function look(pid: number, start: string, mappings: readonly HostMapping[]): MachineLook {
  if (processStart(pid) !== start) return { sameRam: true };
  const now = new Set(hostMappings(pid).map((mapping) => `${mapping.start} ${mapping.end}`));
  const large = mappings.filter((mapping) => mapping.end - mapping.start >= SMALLEST);
  return { sameRam: large.every((mapping) => now.has(`${mapping.start} ${mapping.end}`)) };
}

/**
 * Runs of memory that may be RAM. Advice and NUMA policy split a block into neighbouring mappings,
 * and the kernel places two blocks next to each other; which it is does not show, so both the
 * mappings and their runs are given.
 */
function blocksOf(mappings: readonly HostMapping[]): Block[] {
  const blocks = new Map<string, Block>();
  const add = (block: Block) => blocks.set(`${block.start} ${block.end}`, block);
  let run: HostMapping | undefined;
  let start = 0n;
  for (const mapping of mappings) {
    add(mapping);
    const follows =
      run !== undefined &&
      run.end === mapping.start &&
      run.inode === mapping.inode &&
      run.shared === mapping.shared;
    if (!follows) start = mapping.start;
    run = mapping;
    add({ start, end: mapping.end });
  }
  return [...blocks.values()].filter(({ start, end }) => end - start >= SMALLEST);
}

const sizeOf = ({ start, end }: Block) => end - start;

function largest(blocks: readonly Block[]): Block[] {
  return [...blocks].sort((a, b) => Number(sizeOf(b) - sizeOf(a))).slice(0, MAX_BLOCKS);
}

interface Layout {
  readonly assumption: string;
  readonly ranges: readonly HostRange[];
}

/** Every way in which the blocks can be RAM, the likeliest first. */
function layoutsOf(blocks: readonly Block[]): Layout[] {
  const layouts: Layout[] = [];
  const part = (block: Block, physical: bigint): HostRange => ({
    physical,
    length: sizeOf(block),
    host: block.start,
  });
  const at = ({ start, end }: Block) => `${(end - start) >> 20n} MiB at ${hex(start)}`;
  // Two blocks: one ends where a hole starts, the other is what lies above 4 GiB.
  for (const low of blocks.filter((block) => LOWS.includes(sizeOf(block)))) {
    for (const high of blocks) {
      if (high.start < low.end && low.start < high.end) continue;
      layouts.push({
        assumption: `${at(low)} from 0, ${at(high)} from 4 GiB`,
        ranges: [part(low, 0n), part(high, FOUR_GIB)],
      });
    }
  }
  // The hole is reserved in the process, too: one distance from address to place.
  for (const low of blocks) {
    for (const high of blocks) {
      if (high.start - low.start !== FOUR_GIB) continue;
      layouts.push({
        assumption: `${at(low)} from 0, ${at(high)} from 4 GiB, with the hole between them`,
        ranges: [part(low, 0n), part(high, FOUR_GIB)],
      });
    }
  }
  for (const block of blocks) {
    const size = sizeOf(block);
    for (const { low, assumption } of [...ramSplits(size), ...otherSplits(size)]) {
      const ranges = splitRanges(size, low).map(({ physical, length, offset }) => ({
        physical,
        length,
        host: block.start + offset,
      }));
      layouts.push({ assumption: `${at(block)}: ${assumption}`, ranges });
    }
  }
  return layouts.slice(0, MAX_LAYOUTS);
}
