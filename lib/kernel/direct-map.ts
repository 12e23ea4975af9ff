import { wrap } from '../address.js';
import { hex, VmiError } from '../errors.js';
import type { VirtualMemory } from '../memory/virtual-memory.js';
import type { SymbolTable } from './symbols/table.js';
import { KERNEL_HALF, PAGE_OFFSET_BASE } from './x86-64.js';
import type { P2m } from './xen-p2m.js';

/**
 * PAGE_OFFSET, proven: what the page table maps there is RAM from 0 on, wherever it was looked at.
 */
export function findPageOffset(
  kernel: VirtualMemory,
  symbols: SymbolTable,
  problemOf: (candidate: bigint) => string | undefined,
): bigint {
  const tried: string[] = [];
  for (const candidate of pageOffsets(kernel, symbols)) {
    const problem = problemOf(candidate);
    if (problem === undefined) return candidate;
    const line = `${hex(candidate)}: ${problem}`;
    if (!tried.includes(line)) tried.push(line);
  }
  throw new VmiError(
    'VMI_ATTACH',
    `no direct map of RAM, the kernel may still be booting (tried ${tried.join(', ')})`,
  );
}

/** Where the direct map may start, likeliest first. */
function* pageOffsets(kernel: VirtualMemory, symbols: SymbolTable): Iterable<bigint> {
  // Set by KASLR (CONFIG_RANDOMIZE_MEMORY). arch/x86/kernel/head64.c.
  const symbol = symbols.find('page_offset_base');
  if (symbol !== undefined) yield kernel.readU64(symbol);
  yield PAGE_OFFSET_BASE[kernel.levels];
  yield* firstSlots(kernel);
}

/**
 * Looks at several places of a direct map. FoundKernel of RAM that firmware keeps are not mapped.
 */
export function directMapProblem(kernel: VirtualMemory, pageOffset: bigint): string | undefined {
  if (pageOffset < KERNEL_HALF || pageOffset % 4096n !== 0n) return 'no page of the kernel half';
  const { physical } = kernel;
  for (const { start, length: given } of physical.ranges.slice(0, 64)) {
    // Of sparse memory only the end is known: what lies there may be a few pages.
    const length = given < physical.size ? given : physical.size;
    for (const part of [0n, 1n, 3n, 5n, 7n]) {
      const address = start + ((((length - 4096n) * part) / 7n) & ~0xfffn);
      const found = kernel.walk(wrap(pageOffset + address)).physical;
      // Unmapped is no evidence: firmware keeps parts of RAM, `mem=` leaves the end of it away, and
      // CONFIG_DEBUG_PAGEALLOC maps only what is in use.
      if (found !== undefined && found !== address)
        return `it maps ${hex(address)} to ${hex(found)}`;
    }
  }
  if (kernel.walk(wrap(pageOffset + kernel.root)).physical !== kernel.root)
    return 'it does not map the page table';
  return undefined;
}

/**
 * The same in a PV guest of Xen: the direct map has the machine's frames where the guest's own list
 * of them says, and so does the page that the kernel's page table is.
 */
export function machineMapProblem(
  kernel: VirtualMemory,
  pageOffset: bigint,
  p2m: P2m,
  table: bigint | undefined,
): string | undefined {
  if (pageOffset < KERNEL_HALF || pageOffset % 4096n !== 0n) return 'no page of the kernel half';
  const size = kernel.physical.size;
  let agreed = 0;
  let looked = 0;
  const places = [0n, 1n, 2n, 3n, 4n, 5n, 6n].map((part) => ((size * part) / 7n) & ~0xfffn);
  if (table !== undefined) places.push(p2m.ofImage(table));
  for (const address of places) {
    const machine = p2m.toMachine(address);
    if (machine === undefined) continue;
    looked++;
    const found = kernel.walk(wrap(pageOffset + address)).physical;
    if (found === undefined) continue;
    if (found !== machine)
      return `it maps ${hex(address)} to ${hex(found)}, the guest's list to ${hex(machine)}`;
    agreed++;
  }
  if (table !== undefined && p2m.toMachine(p2m.ofImage(table)) !== kernel.root)
    return "the guest's list has another frame for the page table";
  return agreed === 0 ? `none of ${looked} places is mapped` : undefined;
}

/**
 * The lowest present 1 GiB slots of the kernel half: the direct map is the first large thing in it.
 */
function firstSlots(kernel: VirtualMemory): bigint[] {
  const slots: bigint[] = [];
  const visit = (table: bigint, level: number, base: bigint): void => {
    if (!kernel.physical.contains(table, 4096n)) return;
    const bytes = kernel.physical.read(table, 4096);
    const shift = BigInt(12 + 9 * (level - 1));
    for (let i = level === kernel.levels ? 256 : 0; i < 512 && slots.length < 4; i++) {
      const entry = bytes.readBigUInt64LE(i * 8);
      if ((entry & 1n) === 0n) continue;
      const address = base + (BigInt(i) << shift);
      if (level === 3) slots.push(wrap(address));
      else visit(entry & 0x000f_ffff_ffff_f000n, level - 1, address);
    }
  };
  // Sign extension of the kernel half above the bits that the table translates.
  visit(kernel.root, kernel.levels, -1n << BigInt(12 + 9 * kernel.levels));
  return slots;
}
