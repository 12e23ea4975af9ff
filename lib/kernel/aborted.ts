import { VmiError } from '../errors.js';

export function checkAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted)
    throw new VmiError('VMI_ABORTED', 'the search for the kernel was aborted', {
      cause: signal.reason,
    });
}
