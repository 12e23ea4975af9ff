import { wrap } from '../address.js';
import { CorruptError } from '../errors.js';
import type { VirtualMemory } from '../memory/virtual-memory.js';
import type { SymbolTable } from './symbols/table.js';

/** CONFIG_NR_CPUS at most. arch/x86/Kconfig, NR_CPUS_RANGE_END. */
const MAX_CPUS = 8192;

/** The CPUs of a guest, as its kernel numbers them. */
export class KernelCpus {
  readonly #memory: VirtualMemory;
  readonly #symbols: SymbolTable;

  constructor(memory: VirtualMemory, symbols: SymbolTable) {
    this.#memory = memory;
    this.#symbols = symbols;
  }

  /**
   * Numbers of the CPUs that are online now, ascending. CPUs are brought up and down at run time.
   */
  online(): number[] {
    const mask = this.#symbols.find('__cpu_online_mask');
    const possible = this.#possible();
    if (mask === undefined) return Array.from({ length: possible }, (_, cpu) => cpu);
    const bytes = this.#memory.read(mask, Math.ceil(possible / 64) * 8);
    const online: number[] = [];
    for (let cpu = 0; cpu < possible; cpu++) {
      if (((bytes[cpu >>> 3]! >>> (cpu & 7)) & 1) === 1) online.push(cpu);
    }
    return online;
  }

  /**
   * What to add to a per-cpu symbol's address for one CPU, modulo 2^64. kernel:
   * `__per_cpu_offset[cpu]`.
   * @throws {RangeError} no such CPU
   */
  perCpuOffset(cpu: number): bigint {
    const possible = this.#possible();
    if (!Number.isInteger(cpu) || cpu < 0 || cpu >= possible) {
      throw new RangeError(`Expected cpu between 0 and ${possible - 1} but received ${cpu}`);
    }
    const table = this.#symbols.find('__per_cpu_offset');
    // Without CONFIG_SMP per-cpu variables are plain ones.
    return table === undefined ? 0n : this.#memory.readU64(wrap(table + BigInt(cpu * 8)));
  }

  #possible(): number {
    if (this.#symbols.find('__per_cpu_offset') === undefined) return 1;
    const symbol = this.#symbols.find('nr_cpu_ids');
    // A constant with CONFIG_FORCE_NR_CPUS: then the table's length tells.
    const count = symbol === undefined ? 64 : this.#memory.readU32(symbol);
    if (count < 1 || count > MAX_CPUS) {
      throw new CorruptError(`nr_cpu_ids is ${count}`, symbol ?? 0n);
    }
    return count;
  }
}
