import { VmiError } from '../errors.js';

/** An entry of libvmi.conf, its keys as written. */
export interface ConfEntry {
  readonly name: string;
  readonly values: ReadonlyMap<string, string | bigint>;
}

/**
 * Parses libvmi.conf: entries `name { key = value; … }`, values quoted or numbers, comments with
 * `#`.
 * @throws {VmiError} `VMI_ATTACH`: not of this form, with the line
 */
export function parseConf(text: string, source = 'libvmi.conf'): ConfEntry[] {
  const entries: ConfEntry[] = [];
  const token = /#[^\n]*|"([^"\n]*)"|([{}=;])|([^\s{}=;"#]+)/y;
  const tokens: { text: string; quoted: boolean; line: number }[] = [];
  let line = 1;
  for (let at = 0; at < text.length; ) {
    const char = text[at]!;
    if (/\s/.test(char)) {
      if (char === '\n') line++;
      at++;
      continue;
    }
    token.lastIndex = at;
    const match = token.exec(text);
    if (match === null) throw bad(source, line, `unexpected ${JSON.stringify(char)}`);
    at = token.lastIndex;
    if (!match[0].startsWith('#')) {
      tokens.push({
        text: match[1] ?? match[2] ?? match[3]!,
        quoted: match[1] !== undefined,
        line,
      });
    }
  }
  let at = 0;
  const next = (expected?: string) => {
    const found = tokens[at++];
    if (found === undefined)
      throw bad(source, line, `the file ends where ${expected ?? 'a word'} belongs`);
    if (expected !== undefined && (found.quoted || found.text !== expected)) {
      throw bad(source, found.line, `expected ${expected} but found '${found.text}'`);
    }
    return found;
  };
  while (at < tokens.length) {
    const name = next().text;
    next('{');
    const values = new Map<string, string | bigint>();
    while (tokens[at] !== undefined && tokens[at]!.text !== '}') {
      const key = next().text;
      next('=');
      const value = next();
      const number = !value.quoted && /^(0x[0-9a-f]+|[0-9]+)$/i.test(value.text);
      values.set(key, number ? BigInt(value.text) : value.text);
      next(';');
    }
    next('}');
    entries.push({ name, values });
  }
  return entries;
}

function bad(source: string, line: number, why: string): VmiError {
  return new VmiError('VMI_ATTACH', `${source}, line ${line}: ${why}`);
}
