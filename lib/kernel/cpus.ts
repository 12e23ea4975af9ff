import { wrap } from '../address.js';
import { CorruptError, VmiError } from '../errors.js';
import type { VirtualMemory } from '../memory/virtual-memory.js';
import type { SymbolTable } from './symbols/table.js';
import { tryAnswer } from './try-answer.js';
import type { TypeTable } from './types/table.js';

/** CONFIG_NR_CPUS at most. arch/x86/Kconfig, NR_CPUS_RANGE_END. */
const MAX_CPUS = 8192;

/** What the CPUs are read from. */
interface Source {
  readonly memory: VirtualMemory;
  readonly symbols: SymbolTable;
  readonly types: TypeTable;
}

/** The CPUs of a guest, as its kernel numbers them. */
export class KernelCpus {
  readonly #memory: VirtualMemory;
  readonly #symbols: SymbolTable;
  readonly #types: TypeTable;

  constructor({ memory, symbols, types }: Source) {
    this.#memory = memory;
    this.#symbols = symbols;
    this.#types = types;
  }

  /**
   * Numbers of the CPUs that are online now, ascending. CPUs are brought up and down at run time.
   * @throws {VmiError} `VMI_SYMBOL`: this kernel's symbols do not say how many CPUs there can be
   */
  online(): number[] {
    const possible = this.#possible();
    if (possible === 1) return [0];
    const mask = this.#symbols.find('__cpu_online_mask');
    if (mask === undefined) return this.#started(possible);
    return setBits(this.#memory.read(mask, maskBytes(possible))).filter((cpu) => cpu < possible);
  }

  /**
   * What to add to a per-cpu symbol's address for one CPU, modulo 2^64. kernel:
   * `__per_cpu_offset[cpu]`.
   * @throws {RangeError} no such CPU
   * @throws {VmiError} `VMI_SYMBOL`: as {@link online}
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

  /** How many CPUs there can be. */
  #possible(): number {
    if (this.#symbols.find('__per_cpu_offset') === undefined) {
      // Symbols of data are listed as a whole or not at all (CONFIG_KALLSYMS_ALL), and a kernel
      // without SMP calls no other CPU.
      if (this.#symbols.find('init_task') !== undefined) return 1;
      if (this.#symbols.find('smp_call_function_single') === undefined) return 1;
      throw new VmiError(
        'VMI_SYMBOL',
        'where the per-cpu variables of this kernel are is not known: its symbols are those of ' +
          'functions only (CONFIG_KALLSYMS_ALL is not set); give a System.map',
      );
    }
    const symbol = this.#symbols.find('nr_cpu_ids');
    if (symbol === undefined && this.#symbols.find('this_cpu_off') !== undefined)
      return this.#byOffsets();
    const count = symbol === undefined ? this.#byMask() : this.#memory.readU32(symbol);
    if (count < 1 || count > MAX_CPUS) {
      throw new CorruptError(`nr_cpu_ids is ${count}`, symbol ?? 0n);
    }
    return count;
  }

  /**
   * CPUs that ever ran, where nothing says which ones are online: one that was never brought up
   * still has the first CPU's idle task. One that the guest took down counts as online.
   */
  #started(possible: number): number[] {
    const current = this.#symbols.find('current_task');
    const initTask = this.#symbols.find('init_task');
    const cpus = Array.from({ length: possible }, (_, cpu) => cpu);
    if (current === undefined || initTask === undefined) return cpus;
    const runs = (cpu: number) => this.#memory.readU64(wrap(current + this.perCpuOffset(cpu)));
    return cpus.filter((cpu) => cpu === 0 || runs(cpu) !== initTask);
  }

  /** CPUs that have variables: what is added to `this_cpu_off` stands there, too. */
  #byOffsets(): number {
    const table = this.#symbols.address('__per_cpu_offset');
    const self = this.#symbols.address('this_cpu_off');
    const fits = (cpu: number) =>
      tryAnswer(() => {
        const offset = this.#memory.readU64(wrap(table + BigInt(8 * cpu)));
        return this.#memory.readU64(wrap(self + offset)) === offset;
      });
    let cpus = 0;
    while (cpus <= MAX_CPUS && fits(cpus) === true) cpus++;
    return cpus;
  }

  /**
   * One more than the highest CPU in `cpu_possible_mask`: what `nr_cpu_ids` is, which
   * CONFIG_FORCE_NR_CPUS makes a constant. kernel/smp.c, setup_nr_cpu_ids.
   */
  #byMask(): number {
    const mask = this.#symbols.address('__cpu_possible_mask');
    const length = tryAnswer(() => this.#types.findSize('cpumask'));
    if (length === undefined || length < 8 || length > MAX_CPUS / 8) {
      throw new VmiError(
        'VMI_TYPE',
        'how many CPUs this guest can have is not known: its kernel has neither nr_cpu_ids nor ' +
          'the size of a cpumask',
      );
    }
    return (setBits(this.#memory.read(mask, length)).at(-1) ?? -1) + 1;
  }
}

function maskBytes(cpus: number): number {
  return Math.ceil(cpus / 64) * 8;
}

function setBits(mask: Buffer): number[] {
  const bits: number[] = [];
  for (let bit = 0; bit < mask.length * 8; bit++) {
    if (((mask[bit >>> 3]! >>> (bit & 7)) & 1) === 1) bits.push(bit);
  }
  return bits;
}
