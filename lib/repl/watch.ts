import type { Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';

/** Milliseconds between two looks. */
const INTERVAL = 1000;

/** What goes on in a REPL until Ctrl-C. */
export class Watches {
  #abort = new AbortController();

  /** Ends all that goes on. */
  end(): void {
    this.#abort.abort();
    this.#abort = new AbortController();
  }

  /**
   * Looks again and again, and prints what is not as it was before, until Ctrl-C.
   * @param look what is asked each time, as `() => task(1).object.nvcsw`
   * @param write text of a value
   * @returns how many different values there were, one after the other
   * @throws {TypeError} `look` is no function; whatever it throws
   */
  async watch(
    look: () => unknown,
    milliseconds: number | undefined,
    write: (value: unknown) => string,
    output: Writable,
  ): Promise<number> {
    if (typeof look !== 'function')
      throw new TypeError(`Expected look as a function but received ${typeof look}`);
    const { signal } = this.#abort;
    let last: string | undefined;
    let count = 0;
    while (!signal.aborted) {
      const text = write(await look());
      if (text !== last) {
        output.write(`${text}\n`);
        count++;
      }
      last = text;
      await delay(milliseconds ?? INTERVAL, undefined, { signal }).catch(() => {});
    }
    return count;
  }
}
