import type { Kernel } from '../kernel/kernel.js';
import { linkedSymbols } from './linked.js';

/** A System.map: every symbol, at the address it was linked to. */
export function* exportSystemMap(kernel: Kernel): Iterable<string> {
  for (const { name, address, type } of linkedSymbols(kernel))
    yield `${address.toString(16).padStart(16, '0')} ${type} ${name}\n`;
}
