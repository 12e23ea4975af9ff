import { type AddressLike, PHYSICAL_MASK, toAddress, wrap } from '../address.js';
import type { Kernel } from '../kernel/kernel.js';

/**
 * Bit that tells the user half of a page-table pair from the kernel half.
 * arch/x86/include/asm/pgtable.h, PTI_PGTABLE_SWITCH_BIT.
 */
export const PTI_USER_BIT = 1n << 12n;

/**
 * Where the answer to "which CR3" comes from:
 * - `mm`: the task's own address space.
 * - `active_mm`: a kernel thread, idle or exiting task on a CPU; it runs on the address space it
 *   borrowed.
 * - `loaded_mm`: the same, but the CPU has another address space loaded by now (a lazy TLB that was
 *   shot down).
 * - `thread`: a process whose leader exited while its threads live; theirs.
 * - `none`: a kernel thread off the CPU; it will run on whatever is loaded when it wakes.
 * - `exited`: an exited task off the CPU; it will not run again.
 */
export type Cr3Source = 'mm' | 'active_mm' | 'loaded_mm' | 'thread' | 'none' | 'exited';

/**
 * Page-table base of any value that a CR3 register or a CR3-write event can hold.
 *
 * Bits 0–11 (PCID, or PWT and PCD), bits 61–62 (LAM) and bit 63 (no flush) go: SDM vol. 3A, 2.5 and
 * 4.5. Bit 12 goes only where page-table isolation is on; without it, it is a bit of the address.
 * Of a PV guest of Xen the user's table is another page anywhere, and stays what it is.
 * @throws {TypeError} @throws {RangeError} `value` is no address
 */
export function cr3Base(value: AddressLike, pti: boolean): bigint {
  const base = (typeof value === 'bigint' ? value : toAddress(value, 'cr3')) & PHYSICAL_MASK;
  return pti ? base & ~PTI_USER_BIT : base;
}

/**
 * Physical address of a PGD, as CR3 holds it: in a PV guest of Xen the machine's.
 * @throws {FaultError} the address is mapped nowhere
 */
export function pgdToCr3(kernel: Kernel, pgd: bigint): bigint {
  if (kernel.p2m !== undefined) return kernel.memory.translate(pgd);
  const offset = wrap(pgd - kernel.pageOffset);
  return offset < kernel.memory.physical.end ? offset : kernel.memory.translate(pgd);
}
