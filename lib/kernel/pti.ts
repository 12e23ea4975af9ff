import { PHYSICAL_MASK, wrap } from '../address.js';
import type { VirtualMemory } from '../memory/virtual-memory.js';
import { GuestWords, isPointer } from './layout/guest-words.js';
import { sampleTasks } from './layout/task-sample.js';
import type { SymbolTable } from './symbols/table.js';
import { tryAnswer } from './try-answer.js';
import type { TypeTable } from './types/table.js';

/**
 * X86_FEATURE_PTI, word 7 bit 11. arch/x86/include/asm/cpufeatures.h, the same from 4.15 to 7.x.
 */
const PTI_WORD = 7;
const PTI_FLAG = 1 << 11;
/** Tasks that are looked at. */
const TASKS = 32;
/** Bytes of a page directory that map a process: entry 0 to 255. */
const USER_HALF = 2048;

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
  const shown = tryAnswer(() => pairedByTasks(memory, symbols, types));
  if (shown !== undefined) return shown;
  // No tasks: a kernel that can isolate keeps the user's half of init_top_pgt behind it, and fills
  // it when it does.
  if (symbols.find('__pti_set_user_pgtbl') === undefined || (root & 0x1000n) !== 0n) return false;
  const user = memory.physical.read(root + 0x1000n, 4096);
  for (let entry = 256; entry < 512; entry++) if ((user[entry * 8]! & 1) === 1) return true;
  return false;
}

/**
 * Whether the page directories of processes are pairs: what maps the process stands in the next
 * page, too. arch/x86/include/asm/pgtable_64.h, pti_set_user_pgtbl.
 * @returns `undefined` where no task has an address space
 */
function pairedByTasks(
  memory: VirtualMemory,
  symbols: SymbolTable,
  types: TypeTable,
): boolean | undefined {
  const words = new GuestWords(memory);
  const [link, mm] = ['tasks', 'mm'].map((member) => types.offset('task_struct', member));
  const pgd = BigInt(types.offset('mm_struct', 'pgd'));
  const options = { length: Math.max(link! + 16, mm! + 8), max: TASKS };
  const tasks = sampleTasks(words, symbols.address('init_task'), link!, options);
  let paired = 0;
  let alone = 0;
  for (const task of tasks) {
    const table = isPointer(task.u64(mm!)) ? words.u64(task.u64(mm!) + pgd) : undefined;
    const own = table === undefined ? undefined : words.bytes(table, USER_HALF);
    const next = table === undefined ? undefined : words.bytes(table + 4096n, USER_HALF);
    if (own === undefined || own.every((byte) => byte === 0)) continue;
    if (next !== undefined && mapTheSame(own, next)) paired++;
    else alone++;
  }
  return paired + alone === 0 ? undefined : paired > alone;
}

function mapTheSame(table: Buffer, other: Buffer): boolean {
  for (let at = 0; at < USER_HALF; at += 8) {
    const [one, two] = [table.readBigUInt64LE(at), other.readBigUInt64LE(at)];
    if (((one ^ two) & (PHYSICAL_MASK | 1n)) !== 0n) return false;
  }
  return true;
}
