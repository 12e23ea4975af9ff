// @ts-check
/** A client of QEMU's machine protocol, as small as the lab needs it. */
import { connect } from 'node:net';

/** An error that QEMU answered. */
export class QmpError extends Error {
  /** @param {string} command @param {{ class: string, desc: string }} error */
  constructor(command, error) {
    super(`${command}: ${error.desc}`);
    this.class = error.class;
  }
}

/**
 * @typedef {{ event: string, data?: any, timestamp: { seconds: number, microseconds: number } }}
 * QmpEvent
 */

/** One connection. Commands are answered in order; events go to `onEvent`. */
export class Qmp {
  #text = '';
  /**
   * @type {{ command: string, resolve: (value: any) => void,
   *   reject: (error: Error) => void }[]}
   */
  #waiting = [];
  /** @type {Error | undefined} */ #ended;
  /** @type {((event: QmpEvent) => void) | undefined} */ onEvent;

  /** @param {import('node:net').Socket} socket */
  constructor(socket) {
    this.socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (/** @type {string} */ text) => this.#receive(text));
    socket.on('error', (error) => this.#end(error));
    socket.on('close', () => this.#end(new Error('QEMU closed its QMP connection')));
  }

  /**
   * Connects to a QMP socket and negotiates.
   *
   * @param {string} path
   * @returns {Promise<Qmp>}
   */
  static async connect(path) {
    const qmp = new Qmp(connect(path));
    await qmp.execute('qmp_capabilities');
    return qmp;
  }

  /**
   * @param {string} command
   * @param {object} [args]
   * @returns {Promise<any>} what QEMU returned
   * @throws {QmpError} when QEMU refuses
   */
  execute(command, args) {
    return new Promise((resolve, reject) => {
      if (this.#ended) return reject(this.#ended);
      this.#waiting.push({ command, resolve, reject });
      this.socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    });
  }

  close() {
    this.socket.destroy();
  }

  /** @param {string} text */
  #receive(text) {
    const lines = (this.#text + text).split('\n');
    this.#text = /** @type {string} */ (lines.pop());
    for (const line of lines) {
      const message = JSON.parse(line);
      if (message.event) this.onEvent?.(message);
      if (!('return' in message) && !message.error) continue; // a greeting or an event
      const asked = this.#waiting.shift();
      if (message.error) asked?.reject(new QmpError(asked.command, message.error));
      else asked?.resolve(message.return);
    }
  }

  /** @param {Error} error */
  #end(error) {
    this.#ended ??= error;
    for (const { reject } of this.#waiting.splice(0)) reject(this.#ended);
  }
}
