import { connect, type Socket } from 'node:net';
import { VmiError } from '../../errors.js';
import { tcpSocket } from '../../target.js';
import type { AccessWords } from '../pause-guard.js';
import type { Monitor, MonitorAccess } from './monitor.js';

/** How long a monitor may take to greet or to answer, milliseconds. */
const DEADLINE = 10_000;
/** A monitor that is free greets at once; one that another client holds stays silent. */
const GREETING_DEADLINE = 1_000;
/** Longest line that is accepted, characters: `info mtree -f` of a big machine is some 100 KB. */
const MAX_LINE = 64 << 20;

interface Pending {
  readonly command: string;
  resolve(value: unknown): void;
  reject(error: Error): void;
}

interface QmpMessage {
  readonly QMP?: { readonly version?: { readonly qemu?: QemuVersion } };
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
}

interface QemuVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
}

/**
 * A QEMU Machine Protocol client over a UNIX socket. QEMU docs/interop/qmp-spec.
 *
 * Answers come in the order of their commands, since out-of-band ones are never sent; events are
 * ignored. QEMU takes what it is sent byte by byte, with a turn of its main loop for each
 * (monitor/monitor.c, `monitor_can_read`; 6 µs a byte with QEMU 7.2 and more on a busy host):
 * commands are short, and have no `id`.
 */
export class QmpClient implements Monitor {
  readonly socketPath: string;
  version = '';
  readonly #socket: Socket;
  /** Commands without an answer yet, the first one sent first. */
  readonly #pending: Pending[] = [];
  #buffer = '';
  /** Lines of a message that is laid out for people: `-qmp-pretty`. */
  #lines: string[] | undefined;
  #failure: VmiError | undefined;
  #greeted: ((error?: VmiError) => void) | undefined;

  private constructor(socketPath: string, socket: Socket) {
    this.socketPath = socketPath;
    this.#socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.#receive(text));
    socket.on('error', (error) => this.#fail(describeConnect(socketPath, error)));
    socket.on('close', () => {
      this.#fail(
        new VmiError('VMI_CLOSED', `QEMU closed its monitor at ${socketPath}; the guest has ended`),
      );
    });
  }

  /**
   * Connects and negotiates capabilities.
   * @throws {VmiError} `VMI_ATTACH`: nobody listens, no right to connect, or another client holds
   * it
   */
  static async open(socketPath: string): Promise<QmpClient> {
    const socket = connect(tcpSocket(socketPath) ?? { path: socketPath });
    const client = new QmpClient(socketPath, socket);
    // QEMU may as well read it while it greets. Answers come in order, so nobody waits for this
    // one: should it be refused, all that follows is, with the reason.
    client.execute('qmp_capabilities').catch((error: VmiError) => client.#fail(error));
    try {
      await client.#greeting();
    } catch (error) {
      client.close();
      throw error;
    }
    // An idle monitor must not keep the process alive.
    socket.unref();
    return client;
  }

  async execute(command: string, args?: object): Promise<unknown> {
    if (this.#failure !== undefined) throw this.#failure;
    this.#socket.ref();
    try {
      return await new Promise<unknown>((resolve, reject) => {
        const timer = setTimeout(() => {
          // Its answer may still come, and is nobody else's.
          reject(
            new VmiError(
              'VMI_BUSY',
              `QEMU did not answer '${command}' at ${this.socketPath} within ${DEADLINE} ms`,
            ),
          );
        }, DEADLINE);
        this.#pending.push({
          command,
          resolve: (value) => {
            clearTimeout(timer);
            resolve(value);
          },
          reject: (error) => {
            clearTimeout(timer);
            reject(error);
          },
        });
        this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
      });
    } finally {
      if (this.#pending.length === 0) this.#socket.unref();
    }
  }

  async human(commandLine: string): Promise<string> {
    const text = await this.execute('human-monitor-command', { 'command-line': commandLine });
    return String(text);
  }

  close(): void {
    this.#failure ??= new VmiError(
      'VMI_CLOSED',
      `the monitor connection to ${this.socketPath} is closed`,
    );
    this.#socket.destroy();
  }

  #greeting(): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#greeted = undefined;
        reject(
          new VmiError(
            'VMI_ATTACH',
            `the QMP socket ${this.socketPath} takes a connection but does not greet: another client holds it (a monitor serves one at a time). Close that client, or start QEMU with a second '-qmp unix:PATH,server=on,wait=off'`,
          ),
        );
      }, GREETING_DEADLINE);
      this.#greeted = (error) => {
        clearTimeout(timer);
        if (error === undefined) resolve();
        else reject(error);
      };
    });
  }

  #receive(text: string): void {
    this.#buffer += text;
    const waiting = this.#lines?.reduce((sum, { length }) => sum + length, 0) ?? 0;
    if (this.#buffer.length + waiting > MAX_LINE) {
      this.#fail(
        new VmiError(
          'VMI_ATTACH',
          `${this.socketPath} sent a line of over ${MAX_LINE} characters: no QMP`,
        ),
      );
      this.#socket.destroy();
      return;
    }
    for (;;) {
      const end = this.#buffer.indexOf('\n');
      if (end < 0) return;
      const line = this.#buffer.slice(0, end).trimEnd();
      this.#buffer = this.#buffer.slice(end + 1);
      if (line === '{') this.#lines = [];
      this.#lines?.push(line);
      if (this.#lines === undefined ? line === '' : line !== '}') continue;
      const message = this.#lines?.join('\n') ?? line;
      this.#lines = undefined;
      this.#handle(message);
    }
  }

  #handle(line: string): void {
    let message: QmpMessage;
    try {
      message = JSON.parse(line) as QmpMessage;
    } catch {
      this.#fail(
        new VmiError(
          'VMI_ATTACH',
          `${this.socketPath} does not speak QMP: it sent '${line.slice(0, 60)}'`,
        ),
      );
      this.#socket.destroy();
      return;
    }
    if (message.QMP !== undefined) {
      const qemu = message.QMP.version?.qemu;
      if (qemu !== undefined) this.version = `${qemu.major}.${qemu.minor}.${qemu.micro}`;
      this.#greeted?.();
      this.#greeted = undefined;
      return;
    }
    // An event, or an answer that nobody waits for.
    if (message.return === undefined && message.error === undefined) return;
    const pending = this.#pending.shift();
    if (pending === undefined) return;
    if (message.error === undefined) {
      pending.resolve(message.return);
    } else {
      pending.reject(
        new VmiError('VMI_UNSUPPORTED', `QEMU refused '${pending.command}': ${message.error.desc}`),
      );
    }
  }

  #fail(error: VmiError): void {
    this.#failure ??= error;
    this.#greeted?.(this.#failure);
    this.#greeted = undefined;
    for (const pending of this.#pending.splice(0)) pending.reject(this.#failure);
  }
}

/** A QMP socket that has a path. */
export class QmpSocket implements MonitorAccess {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  get words(): AccessWords {
    return ['qmp', this.path];
  }

  /** Connects, runs `work`, and leaves the monitor to others again, however that ends. */
  async use<T>(work: (monitor: Monitor) => T | Promise<T>): Promise<T> {
    const client = await QmpClient.open(this.path);
    try {
      return await work(client);
    } finally {
      client.close();
    }
  }
}

function describeConnect(socketPath: string, error: NodeJS.ErrnoException): VmiError {
  const advice: Record<string, string> = {
    ENOENT: "there is no such socket; 'vmi list' shows the guests of this host and their sockets",
    ECONNREFUSED: 'nobody listens there; the QEMU that made it has ended',
    EACCES: 'no right to connect; run as the user of that QEMU or as root',
    ENOTSOCK: 'that is no socket',
    EAGAIN: "the monitor's queue of clients is full: others wait for it already; try again",
  };
  const why = advice[error.code ?? ''] ?? error.message;
  return new VmiError('VMI_ATTACH', `cannot connect to the QMP socket ${socketPath}: ${why}`, {
    cause: error,
  });
}
