import type { Guest, SwitchStream } from '../index.js';
import { UsageError } from './arguments.js';
import type { Invocation } from './command.js';

/** Longest time that a command may be told to run, seconds: setTimeout takes 32 bits. */
const MAX_SECONDS = 2_000_000;

/** What ends a command that goes on by itself: Ctrl-C, or its time. */
export interface Stopping extends Disposable {
  readonly signal: AbortSignal;
}

export function stopping(invocation: Invocation, seconds: number | undefined): Stopping {
  const abort = new AbortController();
  const forget = invocation.onInterrupt(() => abort.abort());
  const timer =
    seconds === undefined ? undefined : setTimeout(() => abort.abort(), seconds * 1_000);
  return {
    signal: abort.signal,
    [Symbol.dispose]() {
      clearTimeout(timer);
      forget();
    },
  };
}

/** @throws {UsageError} */
export function parseSeconds(text: string | undefined, name = '--seconds'): number | undefined {
  if (text === undefined) return undefined;
  const seconds = Number(text);
  if (!/^[0-9]+(\.[0-9]+)?$/.test(text) || seconds <= 0 || seconds > MAX_SECONDS) {
    throw new UsageError(
      `Expected ${name} above 0 and up to ${MAX_SECONDS} but received '${text}'`,
    );
  }
  return seconds;
}

/** @throws {UsageError} */
export function parseRate(text: string | undefined): number | 'full' | undefined {
  if (text === undefined || text === 'full') return text;
  const rate = Number(text);
  if (!/^[0-9]+(\.[0-9]+)?$/.test(text) || rate <= 0 || rate > 1_000_000) {
    throw new UsageError(
      `Expected --rate as 'full' or a number above 0 and up to 1000000 but received '${text}'`,
    );
  }
  return rate;
}

/**
 * Begins to watch.
 * @throws {UsageError} the guest has no such CPU, which is known once it is there
 */
export function watchSwitches(
  guest: Guest,
  options: Parameters<Guest['watchSwitches']>[0],
): SwitchStream {
  try {
    return guest.watchSwitches(options);
  } catch (error) {
    if (error instanceof RangeError) throw new UsageError(error.message);
    throw error;
  }
}

/** @throws {UsageError} */
export function parseCpus(texts: readonly string[]): number[] | undefined {
  if (texts.length === 0) return undefined;
  return texts.map((text) => {
    if (!/^[0-9]{1,4}$/.test(text))
      throw new UsageError(`Expected --cpu as the number of a CPU but received '${text}'`);
    return Number(text);
  });
}
