import { createInterface } from 'node:readline';
import type { REPLServer } from 'node:repl';
import { PassThrough, type Readable } from 'node:stream';

/**
 * Lines of a file or pipe, handed to a REPL one at a time. Node's own reads ahead: a line after an
 * `await` would run before the awaited value is there.
 */
export class LineFeed {
  /** What the REPL reads. */
  readonly input = new PassThrough();
  #next = () => {};

  /**
   * Hands over the lines of `from`, each when the one before it is done; it ends when they end or
   * the REPL does.
   */
  async run(from: Readable, server: REPLServer): Promise<void> {
    let left = false;
    server.once('exit', () => {
      left = true;
      this.#next();
    });
    // The REPL prompts when it is done with a line, whatever came of it. Nobody reads the prompt
    // itself.
    server.displayPrompt = () => this.#next();
    for await (const line of createInterface({
      input: from,
      crlfDelay: Number.POSITIVE_INFINITY,
    })) {
      const done = new Promise<void>((resolve) => {
        this.#next = resolve;
      });
      this.input.write(`${line}\n`);
      await done;
      if (left) break;
    }
    this.input.end();
  }
}
