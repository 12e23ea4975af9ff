import { connect, type Socket } from 'node:net';
import { VmiError } from '../../errors.js';

/** How long a stub may take to answer, milliseconds: it shares a thread with all that QEMU does. */
const DEADLINE = 10_000;
/** Longest packet that is accepted: QEMU sends at most some KB. */
const MAX_PACKET = 1 << 20;
/** Interrupts what runs. */
const BREAK = '\x03';

/**
 * Speaks the protocol of gdb's remote targets: packets `$text#sum`, each acknowledged by `+`. gdb
 * manual, appendix E; QEMU gdbstub.c.
 */
export class GdbSocket {
  readonly #socket: Socket;
  #buffer = '';
  readonly #packets: string[] = [];
  readonly #waiting: { resolve(text: string): void; reject(error: Error): void }[] = [];
  #failure: VmiError | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('latin1');
    socket.on('data', (text: string) => this.#receive(text));
    socket.on('error', (error) => this.#fail(error));
    socket.on('close', () => this.#fail());
  }

  /** @throws {VmiError} `VMI_ATTACH`: nobody listens */
  static open(path: string): Promise<GdbSocket> {
    return new Promise((resolve, reject) => {
      const socket = connect({ path });
      const refuse = (cause: Error) =>
        reject(
          new VmiError('VMI_ATTACH', `cannot connect to QEMU's debug stub at ${path}`, { cause }),
        );
      socket.once('error', refuse);
      socket.once('connect', () => {
        socket.off('error', refuse);
        resolve(new GdbSocket(socket));
      });
    });
  }

  get closed(): boolean {
    return this.#failure !== undefined;
  }

  /** Sends a command and waits for its answer. @throws {VmiError} `VMI_BUSY`, `VMI_CLOSED` */
  async ask(command: string): Promise<string> {
    this.send(command);
    return this.receive(DEADLINE);
  }

  send(command: string): void {
    if (this.#failure !== undefined) throw this.#failure;
    let sum = 0;
    for (let i = 0; i < command.length; i++) sum = (sum + command.charCodeAt(i)) & 0xff;
    this.#socket.write(`$${command}#${sum.toString(16).padStart(2, '0')}`, 'latin1');
  }

  /** Stops what runs; it answers as for any other stop. */
  break(): void {
    this.#socket.write(BREAK, 'latin1');
  }

  /** The next packet. @param deadline milliseconds; left out: as long as it takes */
  receive(deadline?: number): Promise<string> {
    const packet = this.#packets.shift();
    if (packet !== undefined) return Promise.resolve(packet);
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      let timer: NodeJS.Timeout | undefined;
      const waiting = {
        resolve: (text: string) => {
          clearTimeout(timer);
          resolve(text);
        },
        reject: (error: Error) => {
          clearTimeout(timer);
          reject(error);
        },
      };
      this.#waiting.push(waiting);
      if (deadline === undefined) return;
      timer = setTimeout(() => {
        this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
        reject(new VmiError('VMI_BUSY', `QEMU's debug stub did not answer within ${deadline} ms`));
      }, deadline);
    });
  }

  close(): void {
    this.#fail();
    this.#socket.destroy();
  }

  #receive(text: string): void {
    this.#buffer += text;
    for (;;) {
      const start = this.#buffer.indexOf('$');
      const end = this.#buffer.indexOf('#', start);
      if (start < 0 || end < 0 || this.#buffer.length < end + 3) break;
      const packet = this.#buffer.slice(start + 1, end);
      this.#buffer = this.#buffer.slice(end + 3);
      this.#socket.write('+');
      const waiting = this.#waiting.shift();
      if (waiting === undefined) this.#packets.push(packet);
      else waiting.resolve(packet);
    }
    if (this.#buffer.length > MAX_PACKET) this.close();
  }

  #fail(cause?: Error): void {
    this.#failure ??= new VmiError(
      'VMI_CLOSED',
      "the connection to QEMU's debug stub is closed",
      cause === undefined ? {} : { cause },
    );
    for (const waiting of this.#waiting.splice(0)) waiting.reject(this.#failure);
  }
}
