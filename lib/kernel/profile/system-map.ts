import { VmiError } from '../../errors.js';
import { ListedSymbols } from '../symbols/listed.js';
import type { KernelSymbol } from '../symbols/table.js';
import type { Profile } from './profile.js';

/** A stub in place of the real file, as Debian ships, has a line or none. */
const MIN_SYMBOLS = 100;

/**
 * Parses a System.map, or the output of `nm` or of `/proc/kallsyms`: `address type name` a line.
 * @throws {VmiError} `VMI_ATTACH`: not such a file, or a stub without symbols
 */
export function parseSystemMap(text: string, source = 'System.map'): Profile {
  const symbols: KernelSymbol[] = [];
  let lines = 0;
  for (const line of text.split('\n')) {
    if (line.trim() === '') continue;
    lines++;
    const match = /^([0-9a-f]{1,16}) ([A-Za-z?]) (\S+)(?:\s+\[(\S+)\])?\s*$/.exec(line);
    // Modules have addresses of their own; a profile is of the image.
    if (match === null || match[4] !== undefined) continue;
    symbols.push({ address: BigInt(`0x${match[1]}`), type: match[2]!, name: match[3]! });
  }
  if (symbols.length < MIN_SYMBOLS) {
    throw new VmiError(
      'VMI_ATTACH',
      `${source} has ${symbols.length} symbols in ${lines} lines: it is a stub or no System.map; leave it out, the guest's own symbols will do`,
    );
  }
  if (symbols.every((symbol) => symbol.address === 0n)) {
    throw new VmiError(
      'VMI_ATTACH',
      `${source} has only zero addresses: it was read without the right to see them`,
    );
  }
  return { symbols: new ListedSymbols(source, symbols), source };
}
