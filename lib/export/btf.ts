import { VmiError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';

/** Larger than any kernel's: 7.3 has 5.4 MB. */
const MAX_BTF = 256 << 20;
/** Bytes that are read at once. */
const PIECE = 1 << 20;

/**
 * The kernel's types as they are in its memory: the file `/sys/kernel/btf/vmlinux`.
 * Source: include/asm-generic/vmlinux.lds.h, BTF: from `__start_BTF` to `__stop_BTF`.
 * @throws {VmiError} `VMI_UNSUPPORTED`: it has none, or nobody says where
 */
export function* exportBtf({ symbols, memory }: Kernel): Iterable<Uint8Array> {
  const start = symbols.find('__start_BTF');
  const stop = symbols.find('__stop_BTF');
  const length = start === undefined || stop === undefined ? 0 : Number(stop - start);
  if (start === undefined || length <= 0 || length > MAX_BTF) {
    throw new VmiError(
      'VMI_UNSUPPORTED',
      'this kernel has no BTF of its own (CONFIG_DEBUG_INFO_BTF), or no symbol that says where it is',
    );
  }
  for (let at = 0; at < length; at += PIECE)
    yield memory.read(start + BigInt(at), Math.min(PIECE, length - at));
}
