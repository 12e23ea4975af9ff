import { closeSync } from 'node:fs';
import type { NativeSegment } from '../../../types/addon.js';
import { addon } from '../../addon.js';
import { fromNative } from '../../errors.js';
import { PhysicalMemory } from '../physical-memory.js';
import { QemuLook } from './look.js';
import type { QemuMachine } from './machine.js';
import { type HostMapping, noRight, openMapping, type QemuProcess } from './process.js';

/** A run of guest-physical RAM at a virtual address of the QEMU process. */
export interface HostRange {
  readonly physical: bigint;
  readonly length: bigint;
  readonly host: bigint;
}

/**
 * Opens host ranges: mapped where the process shares them through a file, read from the process
 * elsewhere.
 * @param write also opens them for writing; a file that refuses it is left to its process, which
 *   can
 */
export function openRanges(
  process: QemuProcess,
  ranges: readonly HostRange[],
  mappings: readonly HostMapping[],
  { machine, write = false }: { machine?: QemuMachine; write?: boolean | undefined } = {},
): PhysicalMemory {
  const descriptors: number[] = [];
  const segments: NativeSegment[] = [];
  const files = new Map<string, number | undefined>();
  const descriptorOf = (mapping: HostMapping): number | undefined => {
    const key = `${mapping.device} ${mapping.inode}`;
    if (!files.has(key)) {
      const fd = openMapping(process.pid, mapping, write);
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
    const native = addon().openMemory({ segments, pid: process.pid, write });
    const name = process.name === '' ? '' : ` '${process.name}'`;
    const look = new QemuLook(
      process.pid,
      ranges.map(({ physical, length }) => ({ start: physical, length })),
      machine?.access,
    );
    const how = native.mapped ? 'shared RAM, mapped' : 'anonymous RAM, read from the process';
    return new PhysicalMemory({
      native,
      source: 'qemu',
      description: `QEMU ${process.pid}${name} (${how})`,
      live: true,
      look: () => look.look(),
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
