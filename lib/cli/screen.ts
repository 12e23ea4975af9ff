/** A terminal as a full-screen command needs it. */
export interface Terminal {
  readonly input: NodeJS.ReadStream;
  readonly output: NodeJS.WriteStream;
}

const ENTER = '\x1b[?1049h\x1b[?25l\x1b[?7l';
const LEAVE = '\x1b[?7h\x1b[?25h\x1b[?1049l';
const HOME = '\x1b[H';
const CLEAR_LINE = '\x1b[K';
const CLEAR_BELOW = '\x1b[J';

/**
 * The whole of a terminal: a screen of its own, keys one by one. However it ends, the terminal is
 * what it was before; while it is suspended (Ctrl-Z), too.
 */
export class Screen implements Disposable {
  readonly #terminal: Terminal;
  readonly #keys: (key: string) => void;
  readonly #redraw: () => void;
  #isOpen = false;
  readonly #onData = (data: Buffer) => this.#receive(data.toString('utf8'));
  readonly #onResize = () => this.#redraw();
  readonly #onExit = () => this.#leave();
  readonly #onContinue = () => {
    this.#enter();
    this.#redraw();
  };

  /**
   * @param keys called with each key: a character, or `up`, `down`, `pageup`, `pagedown`, `escape`,
   * `backspace`, `enter`
   * @param redraw called when what is shown is gone
   */
  constructor(terminal: Terminal, keys: (key: string) => void, redraw: () => void) {
    this.#terminal = terminal;
    this.#keys = keys;
    this.#redraw = redraw;
    this.#enter();
    terminal.input.on('data', this.#onData);
    terminal.output.on('resize', this.#onResize);
    process.on('exit', this.#onExit);
    process.on('SIGCONT', this.#onContinue);
  }

  get width(): number {
    return this.#terminal.output.columns ?? 80;
  }

  get height(): number {
    return this.#terminal.output.rows ?? 24;
  }

  /**
   * Shows lines from the top; what was below them is gone. Each is cleared before it is written: of
   * one that is as wide as the terminal, clearing after it would take the last character.
   */
  show(lines: readonly string[]): void {
    if (!this.#isOpen) return;
    const clear = (at: number) => (at === lines.length - 1 ? CLEAR_BELOW : CLEAR_LINE);
    const text = lines.map((line, at) => clear(at) + line).join('\r\n');
    this.#terminal.output.write(HOME + text);
  }

  [Symbol.dispose](): void {
    const { input, output } = this.#terminal;
    input.off('data', this.#onData);
    output.off('resize', this.#onResize);
    process.off('exit', this.#onExit);
    process.off('SIGCONT', this.#onContinue);
    this.#leave();
    input.pause();
  }

  #enter(): void {
    if (this.#isOpen) return;
    this.#isOpen = true;
    this.#terminal.input.setRawMode(true);
    this.#terminal.input.resume();
    this.#terminal.output.write(ENTER);
  }

  #leave(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#terminal.output.write(LEAVE);
    this.#terminal.input.setRawMode(false);
  }

  #receive(text: string): void {
    const named: Record<string, string> = {
      '\x1b[A': 'up',
      '\x1b[B': 'down',
      '\x1b[5~': 'pageup',
      '\x1b[6~': 'pagedown',
      '\x1b': 'escape',
      '\x7f': 'backspace',
      '\r': 'enter',
    };
    // In raw mode the terminal makes no signals of these.
    if (text === '\x03') {
      process.kill(process.pid, 'SIGINT');
      return;
    }
    if (text === '\x1a') {
      this.#leave();
      process.kill(process.pid, 'SIGSTOP');
      return;
    }
    const name = named[text];
    if (name !== undefined) {
      this.#keys(name);
      return;
    }
    if (text.startsWith('\x1b')) return;
    for (const key of text) this.#keys(key === '\r' ? 'enter' : key === '\x7f' ? 'backspace' : key);
  }
}
