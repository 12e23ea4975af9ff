import { wrap } from '../address.js';
import type { VirtualMemory } from '../memory/virtual-memory.js';
import type { SymbolTable } from './symbols/table.js';
import { tryAnswer } from './try-answer.js';
import type { TypeTable } from './types/table.js';

/**
 * X86_FEATURE_PTI, word 7 bit 11. arch/x86/include/asm/cpufeatures.h, the same from 4.15 to 7.x.
 */
const PTI_WORD = 7;
const PTI_FLAG = 1 << 11;

/** Whether page-table isolation is on, from the CPU features the kernel uses. */
export function readPti(
  memory: VirtualMemory,
  symbols: SymbolTable,
  types: TypeTable,
  root: bigint,
): boolean {
  const data = symbols.find('boot_cpu_data');
  const capability = tryAnswer(() => types.findOffset('cpuinfo_x86', 'x86_capability'));
  if (data !== undefined && capability !== undefined) {
    return (memory.readU32(wrap(data + BigInt(capability + PTI_WORD * 4))) & PTI_FLAG) !== 0;
  }
  if (memory.physical.addressing === 'machine') return false;
  // No types: a kernel that can isolate keeps the user's half of init_top_pgt behind it, and fills
  // it when it does.
  if (symbols.find('__pti_set_user_pgtbl') === undefined || (root & 0x1000n) !== 0n) return false;
  const user = memory.physical.read(root + 0x1000n, 4096);
  for (let entry = 256; entry < 512; entry++) if ((user[entry * 8]! & 1) === 1) return true;
  return false;
}
