/*
 * The gdb remote protocol's framing: `$data#cs`, cs being two hex digits of the sum of the bytes.
 * Each packet is answered `+` or `-` until both sides agree to leave that out. In binary data `}`
 * comes before a byte that is turned by 0x20. gdb's manual, appendix "Remote Protocol".
 *
 * Text here has one character a byte (latin1).
 */

/** Most bytes of a packet's data, both ways: what is told to gdb as `PacketSize`. */
export const PACKET_SIZE = 0x4000;

export type Heard = { readonly packet: string } | 'broken' | 'interrupt';

/** Packets out of the pieces that a socket gives. */
export class PacketReader {
  #text = '';

  /**
   * Takes a piece in and gives what became whole; acknowledgements are left out.
   * @throws {RangeError} a packet that is longer than may be: whoever sends it is no gdb
   */
  push(piece: string): Heard[] {
    this.#text += piece;
    const heard: Heard[] = [];
    for (let at = 0; ; ) {
      const start = this.#text.slice(at).search(/[$\x03]/);
      if (start < 0) {
        this.#text = '';
        return heard;
      }
      at += start;
      if (this.#text[at] === '\x03') {
        heard.push('interrupt');
        at++;
        continue;
      }
      const end = this.#text.indexOf('#', at);
      if ((end < 0 ? this.#text.length : end) - at > PACKET_SIZE + 1)
        throw new RangeError(`a packet of more than ${PACKET_SIZE} bytes`);
      if (end < 0 || end + 3 > this.#text.length) {
        this.#text = this.#text.slice(at);
        return heard;
      }
      const packet = this.#text.slice(at + 1, end);
      const sum = this.#text.slice(end + 1, end + 3).toLowerCase();
      heard.push(sum === checksum(packet) ? { packet } : 'broken');
      at = end + 3;
    }
  }
}

/** A packet as it is sent. @param data text whose bytes are escaped already, where they must be */
export function frame(data: string): string {
  return `$${data}#${checksum(data)}`;
}

/** Bytes as a packet carries them: `#`, `$`, `}` and `*` would mean something else. */
export function escapeBinary(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) {
    const special = byte === 0x23 || byte === 0x24 || byte === 0x7d || byte === 0x2a;
    text += special ? `}${String.fromCharCode(byte ^ 0x20)}` : String.fromCharCode(byte);
  }
  return text;
}

function checksum(data: string): string {
  let sum = 0;
  for (let i = 0; i < data.length; i++) sum = (sum + data.charCodeAt(i)) & 0xff;
  return sum.toString(16).padStart(2, '0');
}
