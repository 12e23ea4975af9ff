import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Guest } from '../index.js';
import { explorer } from './explore.js';
import { helpers } from './helpers.js';
import { Writer } from './writer.js';

/** What a script is run with. */
export interface Script {
  /** Path of an ES module; or code, when there is none. */
  readonly path?: string | undefined;
  readonly code?: string | undefined;
  /** What the script finds in `process.argv` from the third word on. */
  readonly args: readonly string[];
}

/**
 * Runs a script with the names of the REPL as globals.
 * @returns the value of code that is one expression, as the REPL prints it; `undefined` otherwise
 * @throws whatever the script throws
 */
export async function runScript(guest: Guest, script: Script): Promise<string | undefined> {
  const { path, code = '', args } = script;
  define(guest);
  process.argv.splice(1, process.argv.length - 1, path ?? 'vmi', ...args);
  if (path !== undefined) {
    await import(pathToFileURL(resolve(path)).href);
    return undefined;
  }
  const result = await bodyOf(code)();
  return result === undefined ? undefined : new Writer(false).write(result);
}

function define(guest: Guest): void {
  const names = {
    guest,
    kernel: guest.kernel,
    memory: guest.memory,
    ...helpers(guest, new WeakMap()),
    ...explorer(guest),
  };
  for (const [name, value] of Object.entries(names)) {
    Object.defineProperty(globalThis, name, { value, writable: true, configurable: true });
  }
}

type Body = () => Promise<unknown>;

/** The code as the body of an async function; what is one expression is returned. */
function bodyOf(code: string): Body {
  const AsyncFunction = (async () => {}).constructor as new (body: string) => Body;
  try {
    return new AsyncFunction(`return (${code}\n)`);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return new AsyncFunction(code);
  }
}
