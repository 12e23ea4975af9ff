import { closeSync } from 'node:fs';
import type { NativeSegment } from '../../../types/addon.js';
import { addon } from '../../addon.js';
import { fromNative } from '../../errors.js';
import type { Machine, MachineLook } from '../machine.js';
import { PhysicalMemory, type PhysicalRange } from '../physical-memory.js';
import { type HostMapping, noRight, openMapping } from './host-mappings.js';

/** A run of guest-physical RAM at a virtual address of a process. */
export interface HostRange {
  readonly physical: bigint;
  readonly length: bigint;
  readonly host: bigint;
}

/** Whose ranges they are, and what is said and known of them. */
export interface RangesOwner {
  readonly pid: number;
  /** The kind of source: `qemu`, `process`. */
  readonly source: string;
  /** For people: `QEMU 4242 'web'`. */
  readonly name: string;
  /** For people: why something cannot be done that usually can. */
  readonly without?: string | undefined;
  readonly machine?: Machine | undefined;
  /**
   * Whether RAM is opened for writing, too; a file that refuses it is left to its process, which
   * can.
   */
  readonly write?: boolean | undefined;
  readonly look: (ranges: readonly PhysicalRange[]) => () => MachineLook;
}

/**
 * Opens host ranges: mapped where the process shares them through a file, read from the process
 * elsewhere.
 */
export function openRanges(
  owner: RangesOwner,
  ranges: readonly HostRange[],
  mappings: readonly HostMapping[],
): PhysicalMemory {
  const { pid, machine, write = false } = owner;
  const descriptors: number[] = [];
  const segments: NativeSegment[] = [];
  const files = new Map<string, number | undefined>();
  const descriptorOf = (mapping: HostMapping): number | undefined => {
    const key = `${mapping.device} ${mapping.inode}`;
    if (!files.has(key)) {
      const fd = openMapping(pid, mapping, write);
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
    const native = addon().openMemory({ segments, pid, write });
    const how = native.mapped ? 'shared RAM, mapped' : 'anonymous RAM, read from the process';
    const without = owner.without === undefined ? '' : `; ${owner.without}`;
    return new PhysicalMemory({
      native,
      source: owner.source,
      description: `${owner.name} (${how}${without})`,
      live: true,
      look: owner.look(ranges.map(({ physical, length }) => ({ start: physical, length }))),
      ...(machine === undefined ? {} : { machine }),
    });
  } catch (error) {
    const native = fromNative(error) as NodeJS.ErrnoException;
    throw native.code === 'EACCES' || native.code === 'EPERM' ? noRight(pid, error) : native;
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

/**
 * Cuts a range where the process's mappings change; what lies in none is left to fail when it is
 * read.
 */
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
