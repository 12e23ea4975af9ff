import { wrap } from '../address.js';
import { VmiError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import type { KernelSymbol } from '../kernel/symbols/table.js';
import { parseVmcoreinfo, VMCOREINFO_BYTES } from '../kernel/vmcoreinfo.js';
import { KERNEL_HALF, KERNEL_MAP } from '../kernel/x86-64.js';

/**
 * Where the image is linked to: CONFIG_PHYSICAL_START, 16 MiB above the map's start, of every
 * distribution.
 */
const LINKED_TEXT = 0xffff_ffff_8100_0000n;

/**
 * How far KASLR moved the image, in bytes: what the kernel says in its VMCOREINFO (`KERNELOFFSET`),
 * or else by where the image of a kernel with the usual configuration is linked to.
 */
export function kaslrOffset(kernel: Kernel): bigint {
  return (
    statedOffset(kernel) ??
    (kernel.image.virtual < LINKED_TEXT ? 0n : kernel.image.virtual - LINKED_TEXT)
  );
}

/** kernel/vmcore_info.c (kernel/crash_core.c up to 6.8): `vmcoreinfo_data` points to the text. */
function statedOffset({ symbols, memory }: Kernel): bigint | undefined {
  try {
    const pointer = symbols.find('vmcoreinfo_data');
    if (pointer === undefined) return undefined;
    const text = Buffer.alloc(VMCOREINFO_BYTES);
    const read = memory.readInto(memory.readU64(pointer), text);
    return parseVmcoreinfo(text.subarray(0, read))?.kernelOffset;
  } catch (error) {
    if (error instanceof VmiError && error.code !== 'VMI_CLOSED') return undefined;
    throw error;
  }
}

/** What a System.map can hold: a name without blanks. A guest's kallsyms may claim anything. */
const NAME = /^[\x21-\x7e]+$/;

/**
 * The kernel's symbols at the addresses they were linked to, as every tool takes them that finds
 * out about KASLR for itself. Per-cpu symbols that are offsets from 0 stay as they are.
 *
 * The first is one that kallsyms leaves out and libvmi's file driver needs: `phys_startup_64`,
 * where `startup_64` is linked to less the start of the kernel's map
 * (arch/x86/kernel/vmlinux.lds.S; libvmi/os/linux/core.c, linux_filemode_init).
 */
export function* linkedSymbols(kernel: Kernel): Iterable<KernelSymbol> {
  const offset = kaslrOffset(kernel);
  const { symbols } = kernel;
  const start = symbols.find('startup_64');
  if (start !== undefined && symbols.find('phys_startup_64') === undefined)
    yield { name: 'phys_startup_64', address: wrap(start - offset - KERNEL_MAP), type: 'A' };
  for (const symbol of symbols.entries()) {
    if (!NAME.test(symbol.name)) continue;
    yield symbol.address < KERNEL_HALF
      ? symbol
      : { ...symbol, address: wrap(symbol.address - offset) };
  }
}
