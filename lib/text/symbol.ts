import { hex } from '../errors.js';
import type { SymbolPlace } from '../kernel/symbols/table.js';

/** `name+0x1f`, or the address alone where no symbol is at or below it. */
export function symbolText(address: bigint, place: SymbolPlace | undefined): string {
  if (place === undefined) return hex(address);
  return place.offset === 0 ? place.name : `${place.name}+${hex(place.offset)}`;
}
