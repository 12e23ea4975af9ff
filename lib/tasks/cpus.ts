import { wrap } from '../address.js';
import { FaultError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';

/** What one CPU of the guest runs, read from the guest's memory. */
export interface Cpu {
  readonly cpu: number;
  /** Address of the running `task_struct`. */
  readonly current: bigint;
  /** Address of the `mm_struct` whose page table is loaded; 0 while the CPU switches. */
  readonly loadedMm: bigint;
  /** Virtual address of that page table; 0 while the CPU switches. */
  readonly loadedPgd: bigint;
}

/** `cpu_tlbstate.loaded_mm` in the middle of a switch. arch/x86/include/asm/tlbflush.h, LOADED_MM_SWITCHING. */
const LOADED_MM_SWITCHING = 1n;

/**
 * Reads every CPU's current task and loaded address space.
 * @throws {VmiError} `VMI_SYMBOL` or `VMI_TYPE` when this kernel names them in no known way
 */
export function readCpus(kernel: Kernel): Cpu[] {
  const { memory, symbols, types } = kernel;
  const loadedMm =
    symbols.address('cpu_tlbstate') + BigInt(types.findOffset('tlb_state', 'loaded_mm') ?? 0);
  const pgd = BigInt(types.offset('mm_struct', 'pgd'));
  const current = currentTask(kernel);
  const cpus: Cpu[] = [];
  for (const cpu of kernel.onlineCpus()) {
    const base = kernel.perCpuOffset(cpu);
    try {
      const mm = memory.readU64(wrap(loadedMm + base));
      const loaded = mm > LOADED_MM_SWITCHING ? mm : 0n;
      cpus.push({
        cpu,
        current: memory.readU64(wrap(current + base)),
        loadedMm: loaded,
        loadedPgd: loaded === 0n ? 0n : memory.readU64(wrap(loaded + pgd)),
      });
    } catch (error) {
      // A CPU that is brought down while it is looked at.
      if (!(error instanceof FaultError)) throw error;
    }
  }
  return cpus;
}

/** `current_task` was moved into `pcpu_hot` in commit e57ef2ed97c1 (6.2) and out of it again after 6.14. */
function currentTask(kernel: Kernel): bigint {
  const hot = kernel.symbols.find('pcpu_hot');
  if (hot === undefined) return kernel.symbols.address('current_task');
  return hot + BigInt(kernel.types.offset('pcpu_hot', 'current_task'));
}
