import { wrap } from '../address.js';
import { hex } from '../errors.js';

const ROW = 16;

/**
 * Bytes as lines of address, sixteen bytes in hex, and the same as ASCII (hexdump -C without
 * folding).
 */
export function hexdump(bytes: Uint8Array, address = 0n): string[] {
  const lines: string[] = [];
  const width = Math.max(hex(address).length, hex(wrap(address + BigInt(bytes.length))).length);
  for (let at = 0; at < bytes.length; at += ROW) {
    const row = bytes.subarray(at, at + ROW);
    const left = hexOf(row.subarray(0, ROW / 2));
    const right = hexOf(row.subarray(ROW / 2));
    const text = Array.from(row, (byte) =>
      byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.',
    ).join('');
    lines.push(
      `${hex(wrap(address + BigInt(at))).padEnd(width)}  ${left.padEnd(23)}  ${right.padEnd(23)}  |${text}|`,
    );
  }
  return lines;
}

function hexOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
}
