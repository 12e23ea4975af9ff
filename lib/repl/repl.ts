import type { CompleterResult } from 'node:readline';
import { type REPLServer, start } from 'node:repl';
import type { Readable, Writable } from 'node:stream';
import type { Guest } from '../index.js';
import { printable } from '../text/printable.js';
import { defineCommands } from './commands.js';
import { completeArgument } from './complete.js';
import { completeMember } from './complete-member.js';
import { explorer } from './explore.js';
import { LineFeed } from './feed.js';
import { HELP } from './help-text.js';
import { helpers } from './helpers.js';
import { historyFile, keepHistory } from './history.js';
import { Watches } from './watch.js';
import { Writer } from './writer.js';

export interface ReplOptions {
  readonly input: Readable & { readonly isTTY?: boolean };
  readonly output: Writable & { readonly isTTY?: boolean };
  readonly env: NodeJS.ProcessEnv;
}

/**
 * Node's REPL with the guest loaded. On a terminal it greets, completes and keeps a history;
 * otherwise it runs the lines it is given and prints their results.
 * @returns when the user leaves or the input ends; the guest is the caller's to close
 */
export async function startRepl(guest: Guest, { input, output, env }: ReplOptions): Promise<void> {
  const terminal = input.isTTY === true && output.isTTY === true;
  const colours = terminal && !env.NO_COLOR;
  const origins = new WeakMap<Uint8Array, bigint>();
  const writer = new Writer(colours, origins);
  if (terminal) output.write(`${banner(guest)}\n`);
  const feed = terminal ? undefined : new LineFeed();
  const server = start({
    prompt: terminal ? '> ' : '',
    input: feed?.input ?? input,
    output,
    terminal,
    useColors: colours,
    writer: writer.write,
    // Ctrl-C must end a loop that waits for something the guest never does.
    breakEvalOnSigint: terminal,
    // Node's preview prints bigints in decimal.
    preview: false,
    ignoreUndefined: !terminal,
  });
  const watches = new Watches();
  const load = () => {
    define(server, guest, origins);
    defineName(server, 'watch', (look: () => unknown, milliseconds?: number) =>
      watches.watch(look, milliseconds, writer.write, output),
    );
  };
  load();
  server.on('reset', load);
  easeDeclarations(server);
  // What is awaited has no other end: streams of the guest, and what is watched.
  server.prependListener('SIGINT', () => {
    watches.end();
    void guest.interrupt();
  });
  defineCommands(server, { guest, writer, output, colours, load });
  server.defineCommand('help', {
    help: 'Show what can be asked, by example',
    action() {
      this.clearBufferedCommand();
      output.write(`${HELP}\nCommands:\n${commandsText(this)}\n`);
      this.displayPrompt();
    },
  });
  completeGuest(server, guest);
  const left = new Promise<void>((resolve) => server.once('exit', resolve));
  const file = terminal ? historyFile(env) : undefined;
  if (file !== undefined) await keepHistory(server, file);
  await feed?.run(input, server);
  await left;
}

/** What was attached, and what to try first. */
export function banner(guest: Guest): string {
  const { kernel, memory } = guest;
  const { located, cached, milliseconds } = kernel.provenance;
  return [
    printable(`${guest.target}: ${memory.description}`),
    `Linux ${printable(kernel.release)}, found by ${located}${cached ? ' and the cache' : ''} in ${milliseconds.toFixed(0)} ms, ${guest.tasks().length} processes`,
    'Try ps(), cr3(1), who(cr3(1)); .help shows more by example.',
  ].join('\n');
}

function define(server: REPLServer, guest: Guest, origins: WeakMap<Uint8Array, bigint>): void {
  const names = {
    guest,
    kernel: guest.kernel,
    memory: guest.memory,
    ...helpers(guest, origins),
    ...explorer(guest),
  };
  for (const [name, value] of Object.entries(names)) defineName(server, name, value);
}

function defineName(server: REPLServer, name: string, value: unknown): void {
  Object.defineProperty(server.context, name, {
    value,
    writable: true,
    configurable: true,
    enumerable: true,
  });
}

/** Lets names be declared again, as one does who tries things out. */
function easeDeclarations(server: REPLServer): void {
  const open = server as { eval: REPLServer['eval'] };
  const own = open.eval;
  open.eval = function (this: REPLServer, code, ...rest) {
    own.call(this, redeclarable(code), ...rest);
  };
}

/** A declaration at the start of what is typed, of a name that may be there already. */
export function redeclarable(code: string): string {
  return code.replace(/^(\s*)(?:const|let)(?=\s+[\w$[{])/, '$1var');
}

function completeGuest(server: REPLServer, guest: Guest): void {
  type Done = (error?: null | Error, result?: CompleterResult) => void;
  const open = server as unknown as { completer: (line: string, done: Done) => void };
  const own = open.completer;
  open.completer = (line, done) => {
    let found: CompleterResult | undefined;
    try {
      found = completeArgument(line, guest) ?? completeMember(line, guest, server.context);
    } catch {
      // A guest that cannot be asked completes nothing.
    }
    if (found === undefined) own.call(server, line, done);
    else done(null, found);
  };
}

function commandsText(server: REPLServer): string {
  return Object.entries(server.commands)
    .map(([name, command]) => `  .${name.padEnd(10)}${command?.help ?? ''}\n`)
    .join('');
}
