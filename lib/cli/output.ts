import type { TextSink } from '../index.js';
import { jsonLine, printableLines, type Styles, styles } from '../text/printable.js';

/** Where text goes: a stream, or an array in a test. */
export interface Sink {
  write(chunk: string | Uint8Array): unknown;
  readonly writableNeedDrain?: boolean;
  once?(event: 'drain', call: () => void): unknown;
}

export interface Streams {
  readonly stdout: Sink;
  readonly stderr: Sink;
  /** Whether standard output may be coloured. */
  readonly colours: boolean;
}

/** A file that was asked for cannot be written. */
export class OutputError extends Error {
  override readonly name = 'OutputError';

  constructor(file: string, cause: unknown) {
    super(`cannot write ${file}: ${(cause as Error).message}`, { cause });
  }
}

/**
 * Everything a command prints: results on standard output, messages as `vmi: …` on standard error.
 */
export class Output {
  readonly styles: Styles;
  readonly #streams: Streams;
  readonly #quiet: boolean;

  constructor(streams: Streams, quiet = false) {
    this.#streams = streams;
    this.#quiet = quiet;
    this.styles = styles(streams.colours);
  }

  /** Lines that are safe to print already. */
  lines(lines: Iterable<string>): void {
    let text = '';
    for (const line of lines) text += `${line}\n`;
    this.text(text);
  }

  /** Text that is safe to print already, line feeds included. */
  text(text: string): void {
    if (text !== '') this.#streams.stdout.write(text);
  }

  /**
   * Standard output for whoever writes a long text by himself; each piece of text passes through
   * `safe`.
   */
  sink(safe: (text: string) => string): TextSink {
    const { stdout } = this.#streams;
    return {
      write: (chunk) => stdout.write(typeof chunk === 'string' ? safe(chunk) : chunk),
      get writableNeedDrain() {
        return stdout.writableNeedDrain === true;
      },
      once: (event, call) => stdout.once?.(event, call),
    };
  }

  line(line: string): void {
    this.lines([line]);
  }

  /** One object a line. */
  json(values: Iterable<unknown>): void {
    this.lines(Array.from(values, jsonLine));
  }

  bytes(bytes: Uint8Array): void {
    this.#streams.stdout.write(bytes);
  }

  /** Waits for a slow reader, so that a long result is not kept in memory. */
  async drained(): Promise<void> {
    const { stdout } = this.#streams;
    if (stdout.writableNeedDrain === true)
      await new Promise<void>((resolve) => stdout.once?.('drain', resolve));
  }

  /** What helps to read a result; `--quiet` leaves it out. */
  note(text: string): void {
    if (!this.#quiet) this.error(text);
  }

  error(text: string): void {
    this.#streams.stderr.write(`vmi: ${printableLines(text)}\n`);
  }
}
