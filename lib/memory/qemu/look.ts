import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../../package-root.js';
import type { MachineLook, PhysicalRange } from '../physical-memory.js';
import { hostMappings } from '../process/host-mappings.js';
import type { MonitorWords } from './look-main.js';
import { parseMemoryTree } from './memory-map.js';
import type { MonitorAccess } from './monitor.js';
import { parseRegisters } from './registers.js';

/** The program that asks, as it is built. */
const MAIN = join(PACKAGE_ROOT, 'dist', 'memory', 'qemu', 'look-main.js');
/** How long a monitor may take to be asked in passing, milliseconds. */
const DEADLINE = 5_000;
/** No memory device is smaller than this, and what a process maps for itself mostly is. */
const LARGE = 64n << 20n;

/** Looks at a QEMU again, at once: whoever reads its guest cannot wait for a promise. */
export class QemuLook {
  readonly #pid: number;
  readonly #ranges: readonly PhysicalRange[];
  readonly #access: MonitorAccess | undefined;
  readonly #large: number;

  /**
   * @param ranges guest-physical RAM when it was attached
   * @param access `undefined`: it has no monitor, and only its memory map tells
   */
  constructor(pid: number, ranges: readonly PhysicalRange[], access: MonitorAccess | undefined) {
    this.#pid = pid;
    this.#ranges = ranges;
    this.#access = access;
    this.#large = largeMappings(pid);
  }

  look(): MachineLook {
    const words = this.#access === undefined ? undefined : askNow(this.#access);
    if (words === undefined) return { sameRam: largeMappings(this.#pid) === this.#large };
    try {
      return {
        sameRam: this.#isSame(parseMemoryTree(words.tree)),
        registers: parseRegisters(words.registers),
        running: words.running,
      };
    } catch {
      return { sameRam: true };
    }
  }

  /** Neighbouring ranges of several blocks are one range of RAM. */
  #isSame(ranges: readonly { readonly physical: bigint; readonly length: bigint }[]): boolean {
    const all = ranges.reduce((sum, { length }) => sum + length, 0n);
    const known = this.#ranges.reduce((sum, { length }) => sum + length, 0n);
    const isKnown = (physical: bigint, length: bigint) =>
      this.#ranges.some(
        ({ start, length: whole }) => physical >= start && physical + length <= start + whole,
      );
    return all === known && ranges.every(({ physical, length }) => isKnown(physical, length));
  }
}

/**
 * Asks the monitor in a process of its own, and waits for it: some 50 ms.
 * @returns `undefined` where it does not answer
 */
function askNow(access: MonitorAccess): MonitorWords | undefined {
  const { status, stdout } = spawnSync(process.execPath, [MAIN, ...access.words], {
    timeout: DEADLINE,
    stdio: ['ignore', 'pipe', 'ignore'],
    maxBuffer: 64 << 20,
  });
  if (status !== 0) return undefined;
  return JSON.parse(stdout.toString()) as MonitorWords;
}

function largeMappings(pid: number): number {
  try {
    return hostMappings(pid).filter(({ start, end }) => end - start >= LARGE).length;
  } catch {
    return 0;
  }
}
