import { hex } from '../errors.js';
import { escapeText } from '../escape.js';
import type { SymbolPlace, SymbolTable } from '../kernel/symbols/table.js';

/** The kernel's half. Per-CPU symbols lie below it, as offsets: no address is theirs. */
const KERNEL_HALF = 1n << 63n;

/** A place in the kernel's image as text: `schedule`, `schedule+0x1c`. */
export function placeText({ name, offset }: SymbolPlace): string {
  return offset === 0 ? escapeText(name) : `${escapeText(name)}+${hex(offset)}`;
}

/** The symbol that an address of the kernel's image belongs to, as text. */
export function symbolAt(symbols: SymbolTable, address: bigint): string | undefined {
  const place = address < KERNEL_HALF ? undefined : symbols.at(address);
  return place === undefined ? undefined : placeText(place);
}
