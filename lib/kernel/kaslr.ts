import { VmiError } from '../errors.js';
import type { VirtualMemory } from '../memory/virtual-memory.js';
import type { SymbolTable } from './symbols/table.js';
import { parseVmcoreinfo, VMCOREINFO_BYTES, type Vmcoreinfo } from './vmcoreinfo.js';
import { IMAGE_ALIGN, KERNEL_MAP, KERNEL_MAP_END } from './x86-64.js';

/**
 * `struct boot_params`, of which the kernel keeps a copy: the setup header's magic, version, flags
 * and preferred address. Documentation/arch/x86/boot.rst.
 */
const HEADER = { magic: 0x202, version: 0x206, loadflags: 0x211, prefAddress: 0x258 };
const HEADER_END = 0x268;
const HDRS = 0x5372_6448;
/** The first protocol whose header has `pref_address`: 2.10, Linux 2.6.31. */
const WITH_PREF_ADDRESS = 0x020a;
/** Set by the decompressor when it randomises. arch/x86/boot/compressed/kaslr.c. */
const KASLR_FLAG = 1 << 1;

/** What the offset is read from. */
export interface Slid {
  readonly memory: VirtualMemory;
  readonly symbols: SymbolTable;
  /** Where the image starts: `_text`, as it is in this guest. */
  readonly text: bigint;
  /** VMCOREINFO by which the kernel was found. */
  readonly vmcoreinfo: Vmcoreinfo | undefined;
}

/**
 * How far KASLR moved the image, in bytes: what the kernel says in its VMCOREINFO
 * (`KERNELOFFSET`), or by where the boot protocol says that it was linked to.
 * @returns `undefined` where neither says it: where an image is linked to is up to whoever
 *   configured it (CONFIG_PHYSICAL_START), so it is not guessed
 */
export function findKaslrOffset(kernel: Slid): bigint | undefined {
  return (
    kernel.vmcoreinfo?.kernelOffset ??
    tryRead(() => statedOffset(kernel)) ??
    tryRead(() => offsetByBootParams(kernel))
  );
}

/** kernel/vmcore_info.c (kernel/crash_core.c up to 6.8): `vmcoreinfo_data` points to the text. */
function statedOffset({ symbols, memory }: Slid): bigint | undefined {
  const pointer = symbols.find('vmcoreinfo_data');
  if (pointer === undefined) return undefined;
  const text = Buffer.alloc(VMCOREINFO_BYTES);
  const read = memory.readInto(memory.readU64(pointer), text);
  return parseVmcoreinfo(text.subarray(0, read))?.kernelOffset;
}

/**
 * `pref_address` is the physical address the image was linked for, and `_text` is mapped at
 * `KERNEL_MAP` plus that. Without the decompressor's flag nothing was moved.
 */
function offsetByBootParams({ symbols, memory, text }: Slid): bigint | undefined {
  const params = symbols.find('boot_params');
  if (params === undefined) return undefined;
  const bytes = memory.read(params, HEADER_END);
  if (bytes.readUInt32LE(HEADER.magic) !== HDRS) return undefined;
  if ((bytes[HEADER.loadflags]! & KASLR_FLAG) === 0) return 0n;
  if (bytes.readUInt16LE(HEADER.version) < WITH_PREF_ADDRESS) return undefined;
  const offset = text - KERNEL_MAP - bytes.readBigUInt64LE(HEADER.prefAddress);
  const fits = offset >= 0n && offset < KERNEL_MAP_END - KERNEL_MAP && offset % IMAGE_ALIGN === 0n;
  return fits ? offset : undefined;
}

function tryRead(read: () => bigint | undefined): bigint | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof VmiError && error.code !== 'VMI_CLOSED') return undefined;
    throw error;
  }
}
