import { PAGE_SIZE, wrap } from '../address.js';
import type { Kernel } from '../kernel/kernel.js';

/** Bytes of VMCOREINFO at most. include/linux/vmcore_info.h, VMCOREINFO_BYTES. */
const MAX_INFO = 4096;
/** Where the image is linked to begin: __START_KERNEL with the default CONFIG_PHYSICAL_START. */
const LINKED_AT = 0xffff_ffff_8100_0000n;

/**
 * What the kernel says about itself for readers of dumps: its own text, or for a kernel that keeps
 * none, as much of it as they need.
 */
export function vmcoreinfoText(kernel: Kernel): Buffer {
  return ownVmcoreinfo(kernel) ?? madeVmcoreinfo(kernel);
}

/** The kernel's own text, where it keeps one. kernel/vmcore_info.c. */
function ownVmcoreinfo({ symbols, memory }: Kernel): Buffer | undefined {
  const data = symbols.find('vmcoreinfo_data');
  const size = symbols.find('vmcoreinfo_size');
  if (data === undefined || size === undefined) return undefined;
  const length = memory.readU64(size);
  if (length === 0n || length > BigInt(MAX_INFO)) return undefined;
  const text = memory.read(memory.readU64(data), Number(length));
  return text.indexOf('OSRELEASE=') === 0 ? text : undefined;
}

/** What it would say, as far as other tools need it, for a kernel without. */
function madeVmcoreinfo(kernel: Kernel): Buffer {
  const { symbols, image } = kernel;
  const digits = (value: bigint) => value.toString(16);
  const named = ['init_uts_ns', '_stext', 'swapper_pg_dir', 'init_top_pgt'].flatMap((name) => {
    const address = symbols.find(name) ?? alias(kernel, name);
    return address === undefined ? [] : [`SYMBOL(${name})=${digits(address)}`];
  });
  const offset = kernel.kaslr ?? wrap(image.virtual - LINKED_AT);
  const lines = [
    `OSRELEASE=${kernel.release}`,
    ...(kernel.buildId === undefined ? [] : [`BUILD-ID=${kernel.buildId}`]),
    `PAGESIZE=${PAGE_SIZE}`,
    ...named,
    `NUMBER(phys_base)=${kernel.physBase}`,
    `NUMBER(pgtable_l5_enabled)=${kernel.levels === 5 ? 1 : 0}`,
    `KERNELOFFSET=${digits(offset)}`,
    'NUMBER(KERNEL_IMAGE_SIZE)=1073741824',
  ];
  return Buffer.from(`${lines.join('\n')}\n`);
}

/** `swapper_pg_dir` is a macro for `init_top_pgt`. arch/x86/include/asm/pgtable_64.h. */
function alias({ symbols }: Kernel, name: string): bigint | undefined {
  return name === 'swapper_pg_dir' ? symbols.find('init_top_pgt') : undefined;
}
