import { closeSync } from 'node:fs';
import type { NativeSegment } from '../../../types/addon.js';
import { addon } from '../../addon.js';
import { fromNative } from '../../errors.js';
import { type Machine, PhysicalMemory } from '../physical-memory.js';
import { bitsOf, type DumpContent, pageRuns } from './content.js';

const PAGE_SHIFT = 12n;

/**
 * Opens what a dump holds as memory. Closes the descriptor: the mapping keeps the file.
 * @param fd of the file that the offsets are of
 * @throws {VmiError} `VMI_ATTACH`: the host does not map the file
 */
export function openContent(fd: number, path: string, content: DumpContent): PhysicalMemory {
  const { format, ranges, registers, present } = content;
  try {
    const segments = pageRuns(ranges).map(({ physical, length, offset }): NativeSegment => {
      if (offset === undefined) return { physical, length, kind: 'absent' };
      const segment = { physical, length, kind: 'file' as const, fd, offset };
      if (present === undefined) return segment;
      const first = Number(offset >> PAGE_SHIFT);
      return { ...segment, present: bitsOf(present, first, Number(length >> PAGE_SHIFT)) };
    });
    const native = addon().openMemory({ segments });
    const machine: Machine | undefined =
      registers.length > 0
        ? { registers: async () => [...registers], close: async () => {} }
        : undefined;
    return new PhysicalMemory({
      native,
      source: 'image',
      description: `${path} (${format})`,
      live: false,
      ...(machine === undefined ? {} : { machine }),
    });
  } catch (error) {
    throw fromNative(error);
  } finally {
    closeSync(fd);
  }
}
