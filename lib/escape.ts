/** What a terminal may act on or hide, and the backslash that the escapes begin with. */
const UNSAFE = /[\p{C}\p{Zl}\p{Zp}\\]/u;

/**
 * Bytes as text: printable UTF-8 stays, the rest is escaped (`\n`, `\x1b`, `\xe2`) so that nothing
 * is lost and nothing reaches a terminal. A backslash is doubled.
 */
export function escapeBytes(bytes: Uint8Array): string {
  if (isPlain(bytes)) {
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
  }
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let text = '';
  for (let at = 0; at < bytes.length; ) {
    const byte = bytes[at]!;
    const length = byte < 0x80 ? 1 : byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
    let char: string | undefined;
    try {
      char = decoder.decode(bytes.subarray(at, at + length));
    } catch {
      char = undefined;
    }
    if (char === undefined || [...char].length !== 1 || /[\p{C}\p{Zl}\p{Zp}]/u.test(char)) {
      text +=
        byte === 0x0a ? '\\n' : byte === 0x09 ? '\\t' : `\\x${byte.toString(16).padStart(2, '0')}`;
      at += 1;
    } else {
      text += char === '\\' ? '\\\\' : char;
      at += length;
    }
  }
  return text;
}

/** The same for a name that was decoded already, as of a type. */
export function escapeText(text: string): string {
  return UNSAFE.test(text) ? escapeBytes(Buffer.from(text)) : text;
}

/** Few bytes, all printable ASCII without a backslash: nearly every name there is. */
function isPlain(bytes: Uint8Array): boolean {
  if (bytes.length > 64) return false;
  for (const byte of bytes) if (byte < 0x20 || byte > 0x7e || byte === 0x5c) return false;
  return true;
}
