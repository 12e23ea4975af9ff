import { writeSync } from 'node:fs';
import type { Sink } from './output.js';

/**
 * Standard output or standard error, written to by system calls: to make a stream of either costs a
 * tenth of what Node takes to start, and Node's own are as synchronous on Linux. A stream is made
 * where the reader is slow and whoever shares the pipe wants no waiting (EAGAIN).
 */
export class StandardStream implements Sink {
  readonly #descriptor: 1 | 2;
  readonly #failed: (error: NodeJS.ErrnoException) => void;
  #stream: NodeJS.WriteStream | undefined;

  /** @param failed called with each error of writing */
  constructor(descriptor: 1 | 2, failed: (error: NodeJS.ErrnoException) => void) {
    this.#descriptor = descriptor;
    this.#failed = failed;
  }

  write(chunk: string | Uint8Array): boolean {
    if (this.#stream !== undefined) return this.#stream.write(chunk);
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
    let at = 0;
    try {
      while (at < bytes.length) at += writeSync(this.#descriptor, bytes, at);
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') {
        this.#failed(error as NodeJS.ErrnoException);
        return true;
      }
    }
    this.#stream = this.#descriptor === 1 ? process.stdout : process.stderr;
    this.#stream.on('error', this.#failed);
    return this.#stream.write(bytes.subarray(at));
  }

  get writableNeedDrain(): boolean {
    return this.#stream?.writableNeedDrain === true;
  }

  once(event: 'drain', call: () => void): void {
    this.#stream?.once(event, call);
  }

  /** Calls back once all is written. */
  whenWritten(call: () => void): void {
    if (this.#stream === undefined || this.#stream.writableLength === 0) call();
    else this.#stream.write('', call);
  }
}
