import type { PhysicalMemory } from '../physical-memory.js';
import type { HostMapping } from '../process/host-mappings.js';
import { type HostRange, openRanges } from '../process/open-ranges.js';
import { QemuLook } from './look.js';
import type { QemuMachine } from './machine.js';
import type { QemuProcess } from './process.js';

/** What is opened of a QEMU. */
interface QemuRanges {
  readonly ranges: readonly HostRange[];
  readonly mappings: readonly HostMapping[];
  readonly machine?: QemuMachine;
  /** Why there is no machine. */
  readonly without?: string;
  readonly write?: boolean | undefined;
}

/** Opens the RAM of a QEMU, and its controls if it has some. */
export function openQemuRanges(process: QemuProcess, opened: QemuRanges): PhysicalMemory {
  const { ranges, mappings, machine, without, write } = opened;
  const { pid } = process;
  return openRanges(
    {
      pid,
      source: 'qemu',
      name: `QEMU ${pid}${process.name === '' ? '' : ` '${process.name}'`}`,
      without,
      machine,
      write,
      look: (ram) => {
        const look = new QemuLook(pid, ram, machine?.access);
        return () => look.look();
      },
    },
    ranges,
    mappings,
  );
}
