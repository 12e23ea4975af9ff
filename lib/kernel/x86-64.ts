/**
 * What Linux on x86-64 fixes for every kernel: parts of the address space, bits of control
 * registers and of CR3. One place, so that a number never stands twice.
 */

/** __START_KERNEL_map, where the image is mapped. arch/x86/include/asm/page_64_types.h. */
export const KERNEL_MAP = 0xffff_ffff_8000_0000n;
/**
 * End of KERNEL_IMAGE_SIZE with KASLR (1 GiB); modules follow. Without KASLR they start 512 MiB
 * lower.
 */
export const KERNEL_MAP_END = 0xffff_ffff_c000_0000n;
/**
 * Lowest address of the kernel's half with 5 levels; per-cpu symbols lie below.
 * Documentation/arch/x86/x86_64/mm.rst.
 */
export const KERNEL_HALF = 0xff00_0000_0000_0000n;
/**
 * __PAGE_OFFSET_BASE_L4 and _L5, used without CONFIG_DYNAMIC_MEMORY_LAYOUT. page_64_types.h, as
 * above.
 */
export const PAGE_OFFSET_BASE = { 4: 0xffff_8880_0000_0000n, 5: 0xff11_0000_0000_0000n } as const;
/**
 * Byte offset, in a top-level table, of the entry that maps {@link KERNEL_MAP}: entry 511 of the
 * PML4 and of the PML5 alike. Every page directory of a kernel has the same entry there.
 */
export const TEXT_ENTRY = 511n * 8n;
/**
 * The image is aligned to this, virtual and physical: CONFIG_PHYSICAL_ALIGN is at least 2 MiB on
 * x86-64.
 */
export const IMAGE_ALIGN = 2n << 20n;
/** CR0.PG, CR4.PAE, CR4.LA57, EFER.LMA. SDM vol. 3A, 2.5 and 2.2.1. */
export const CR0_PG = 1n << 31n;
export const CR4_PAE = 1n << 5n;
export const CR4_LA57 = 1n << 12n;
export const EFER_LMA = 1n << 10n;
/**
 * The user's half of a page directory pair. arch/x86/include/asm/pgtable.h, PTI_PGTABLE_SWITCH_BIT.
 */
export const PTI_BIT = 1n << 12n;
/** Bytes of `task_struct.comm`. include/linux/sched.h, TASK_COMM_LEN. */
export const COMM_LENGTH = 16;
