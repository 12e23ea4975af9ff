import { PAGE_MASK, wrap } from '../address.js';
import { FaultError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import { KERNEL_MAP, KERNEL_MAP_END } from '../kernel/x86-64.js';

/**
 * VMEMMAP_START with 4 levels, without CONFIG_DYNAMIC_MEMORY_LAYOUT.
 * arch/x86/include/asm/pgtable_64_types.h.
 */
const VMEMMAP = 0xffff_ea00_0000_0000n;

/** What CR3 holds for one page directory of a PV guest of Xen: machine addresses. */
export interface MachineSpace {
  /** While the kernel runs on behalf of the task. */
  readonly cr3: bigint;
  /** While the task's own code runs; `null` where there is no such table (init_mm). */
  readonly userCr3: bigint | null;
}

/**
 * A PV kernel and its programs both run outside ring 0, so the kernel keeps two page directories
 * for each address space and gives both to Xen, which loads the one that fits the mode. The user's
 * is found by `private` of the `struct page` of the kernel's. arch/x86/xen/mmu_pv.c: xen_pgd_alloc,
 * xen_get_user_pgd, xen_write_cr3.
 */
export class MachineSpaces {
  readonly #kernel: Kernel;
  readonly #vmemmap: bigint;
  readonly #pageSize: bigint;
  readonly #private: bigint;

  constructor(kernel: Kernel) {
    const { symbols, types, memory } = kernel;
    this.#kernel = kernel;
    const base = symbols.find('vmemmap_base');
    this.#vmemmap = base === undefined ? VMEMMAP : memory.readU64(base);
    this.#pageSize = BigInt(types.size('page'));
    this.#private = BigInt(types.offset('page', 'private'));
  }

  /**
   * @param pgd virtual address of the kernel's page directory of an address space
   * @returns `undefined` when it, or the user's that it names, is not mapped
   */
  of(pgd: bigint): MachineSpace | undefined {
    const { memory } = this.#kernel;
    try {
      const cr3 = memory.translate(pgd);
      const page = wrap(this.#vmemmap + (this.#pseudoPhysical(pgd) >> 12n) * this.#pageSize);
      const user = memory.readU64(wrap(page + this.#private));
      if (user === 0n) return { cr3, userCr3: null };
      return (user & PAGE_MASK) === 0n ? { cr3, userCr3: memory.translate(user) } : undefined;
    } catch (error) {
      if (error instanceof FaultError) return undefined;
      throw error;
    }
  }

  /** arch/x86/mm/physaddr.c, __phys_addr. */
  #pseudoPhysical(address: bigint): bigint {
    const { pageOffset, physBase } = this.#kernel;
    return address >= KERNEL_MAP && address < KERNEL_MAP_END
      ? wrap(address - KERNEL_MAP + physBase)
      : wrap(address - pageOffset);
  }
}
