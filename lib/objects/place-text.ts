import { hex } from '../errors.js';
import { escapeText } from '../escape.js';
import type { SymbolPlace } from '../kernel/symbols/table.js';

/** A place in the kernel's image as text: `schedule`, `schedule+0x1c`. */
export function placeText({ name, offset }: SymbolPlace): string {
  return offset === 0 ? escapeText(name) : `${escapeText(name)}+${hex(offset)}`;
}
