/** Tokens that names are written in, one a byte. scripts/kallsyms.c. */
export const TOKENS = 256;
/** Most bytes of a token table; real ones take some 900. */
export const MAX_TOKEN_TABLE = 8192;

/**
 * Characters that occur in symbols keep themselves as tokens, and digits do: ten tokens in a row.
 */
export const TOKEN_PATTERN = Buffer.from(
  '0\x001\x002\x003\x004\x005\x006\x007\x008\x009\0',
  'latin1',
);
const DIGIT_ZERO = 0x30;

/**
 * Finds the token table from a hit of {@link TOKEN_PATTERN}: walks on to its end, where the token
 * index says how far back it starts.
 * @param bytes 8 KiB before the hit and 8 KiB behind it, where there are so many
 * @returns index of token 0 and of `kallsyms_token_index`, or `undefined` when it is no token table
 */
export function tokenTableAround(
  bytes: Buffer,
  hit: number,
): { table: number; index: number } | undefined {
  let at = hit;
  for (let token = DIGIT_ZERO; token < TOKENS; token++) {
    const end = tokenEnd(bytes, at);
    if (end - hit >= MAX_TOKEN_TABLE) return undefined;
    at = end + 1;
  }
  for (let index = at; index < at + 8 && index + TOKENS * 2 <= bytes.length; index++) {
    const table = hit - bytes.readUInt16LE(index + DIGIT_ZERO * 2);
    if (table < 0 || table === hit) continue;
    const checked = checkTokens(bytes, table);
    if (checked?.index === index) return checked;
  }
  return undefined;
}

/** Index of the NUL that ends a token; far beyond any table when there is none. */
function tokenEnd(bytes: Buffer, from: number): number {
  const limit = Math.min(bytes.length, from + MAX_TOKEN_TABLE);
  for (let at = from; at < limit; at++) if (bytes[at] === 0) return at;
  return Number.MAX_SAFE_INTEGER;
}

/**
 * Token offsets by walking the table, when `kallsyms_token_index` right behind it says the same.
 */
export function checkTokens(
  bytes: Buffer,
  table: number,
): { table: number; index: number } | undefined {
  const starts = new Uint16Array(TOKENS);
  let at = table;
  for (let token = 0; token < TOKENS; token++) {
    starts[token] = at - table;
    const end = tokenEnd(bytes, at);
    if (end - table >= MAX_TOKEN_TABLE) return undefined;
    at = end + 1;
  }
  // scripts/kallsyms.c aligns every table to 8 bytes, 7.x to 4.
  for (let index = at; index < at + 8 && index + TOKENS * 2 <= bytes.length; index++) {
    let same = true;
    for (let token = 0; same && token < TOKENS; token++)
      same = bytes.readUInt16LE(index + token * 2) === starts[token];
    if (same) return { table, index };
  }
  return undefined;
}
