import { VmiError } from '../../errors.js';
import type { SymbolTable } from './table.js';

/** Symbols of a kernel that has none. */
export class NoSymbols implements SymbolTable {
  readonly source = 'contents';
  readonly count = 0;

  find(): undefined {
    return undefined;
  }

  address(name: string): bigint {
    throw new VmiError(
      'VMI_SYMBOL',
      `no symbol '${name}': the kernel has no kallsyms (CONFIG_KALLSYMS is not set); ` +
        'give a System.map',
    );
  }

  at(): undefined {
    return undefined;
  }

  entries(): Iterable<never> {
    return [];
  }

  complete(): string[] {
    return [];
  }
}
