import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { VmiError } from '../../errors.js';
import { frame, PACKET_SIZE, PacketReader } from './packet.js';
import type { ProcessView } from './process-view.js';
import { Session } from './session.js';

/** Debuggers at a time; gdb asks one question after the other, so each costs little. */
const MAX_CLIENTS = 4;
/** Most that may wait for a debugger that does not read. */
const MAX_WAITING = 16 * PACKET_SIZE;

/** Where debuggers come in. */
export type Place =
  | { readonly socket: string }
  | { readonly port: number; readonly host: string }
  /** A socket in a new folder that only this user can enter. */
  | 'private';

export interface ServerEvents {
  /** For people: what was refused, what is not in memory. */
  log(text: string): void;
  /** What holds the guest still for as long as a debugger is there, where it shall. */
  hold?(): Promise<AsyncDisposable>;
}

/** A server of the gdb remote protocol for one process. `close()` it. */
export class GdbServer {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #ended: Promise<void>;
  #folder: string | undefined;
  #fail!: (error: unknown) => void;
  #end!: () => void;
  /** What gdb's `target remote` takes. */
  address = '';

  constructor(view: ProcessView, events: ServerEvents) {
    this.#ended = new Promise((resolve, reject) => {
      this.#end = resolve;
      this.#fail = reject;
    });
    this.#ended.catch(() => {});
    this.#server = createServer((socket) => {
      if (this.#sockets.size >= MAX_CLIENTS) {
        events.log(`turned a debugger away: ${MAX_CLIENTS} are here already`);
        socket.destroy();
        return;
      }
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
      serve(socket, view, events).catch(this.#fail);
    });
    this.#server.on('error', (error) => this.#fail(error));
  }

  /** @throws {Error} of node:net: the place is taken, or not allowed */
  async listen(place: Place): Promise<void> {
    let where: { path: string } | { port: number; host: string };
    if (place === 'private') {
      this.#folder = mkdtempSync(join(tmpdir(), 'vmi-gdb-'));
      where = { path: join(this.#folder, 'socket') };
    } else {
      where = 'socket' in place ? { path: place.socket } : place;
    }
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(where, () => {
        this.#server.off('error', reject);
        resolve();
      });
    });
    if ('path' in where) chmodSync(where.path, 0o600);
    const bound = this.#server.address();
    this.address =
      typeof bound === 'string' || bound === null
        ? String(bound)
        : `${bound.family === 'IPv6' ? `[${bound.address}]` : bound.address}:${bound.port}`;
  }

  /** Settles when it is closed, and fails with what ended it. */
  get ended(): Promise<void> {
    return this.#ended;
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    if (this.#folder !== undefined) rmSync(this.#folder, { recursive: true, force: true });
    this.#end();
  }
}

/**
 * Serves one debugger until it goes. A process that has ended, packets that are none and a debugger
 * that does not read end it, too.
 * @throws {VmiError} `VMI_CLOSED`: the guest has ended
 */
export async function serve(
  stream: Duplex,
  view: ProcessView,
  events: ServerEvents,
): Promise<void> {
  const reader = new PacketReader();
  let acknowledge = true;
  stream.on('error', () => {});
  const send = (text: string) => {
    stream.write(Buffer.from(text, 'latin1'));
    if (stream.writableLength > MAX_WAITING) throw new RangeError('a debugger that does not read');
  };
  try {
    await using _hold = await events.hold?.();
    const session = new Session(view, events.log);
    for await (const piece of stream) {
      let last: string | undefined;
      for (const heard of reader.push((piece as Buffer).toString('latin1'))) {
        // Nothing runs that could be interrupted.
        if (heard === 'interrupt') continue;
        if (heard === 'broken') {
          send('-');
          continue;
        }
        // gdb says it again where an answer takes more than two seconds, as while a guest is found.
        if (heard.packet === last) continue;
        last = heard.packet;
        if (acknowledge) send('+');
        const { data, end } = session.answer(heard.packet);
        if (data !== undefined) send(frame(data));
        if (heard.packet === 'QStartNoAckMode') acknowledge = false;
        if (end === true) return;
      }
    }
  } catch (error) {
    if (error instanceof VmiError && error.code === 'VMI_CLOSED') throw error;
    // A socket that was reset, and whoever sent what gdb would not.
    events.log(`a debugger was let go: ${(error as Error).message}`);
  } finally {
    stream.end();
    stream.destroy();
  }
}
