import { VmiError } from '../errors.js';

export function tryAnswer<T>(ask: () => T): T | undefined {
  try {
    return ask();
  } catch (error) {
    // The guest has no kallsyms or no BTF: nothing to compare with.
    if (error instanceof VmiError && error.code !== 'VMI_CLOSED') return undefined;
    throw error;
  }
}
