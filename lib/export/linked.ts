import { wrap } from '../address.js';
import { VmiError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import type { KernelSymbol } from '../kernel/symbols/table.js';
import { KERNEL_HALF, KERNEL_MAP } from '../kernel/x86-64.js';

/**
 * How far KASLR moved the image, in bytes.
 * @throws {VmiError} `VMI_UNSUPPORTED`: this guest does not say, so where its symbols were linked
 *   to is not known
 */
export function kaslrOffset(kernel: Kernel): bigint {
  const offset = kernel.kaslr;
  if (offset !== undefined) return offset;
  throw new VmiError(
    'VMI_UNSUPPORTED',
    'how far KASLR moved this kernel is not known: it has neither VMCOREINFO nor boot parameters ' +
      'that say it, so the addresses that its symbols were linked to cannot be told',
  );
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
