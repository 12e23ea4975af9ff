import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { REPLServer } from 'node:repl';
import type { Writable } from 'node:stream';
import { parseAddress } from '../address.js';
import type { Guest } from '../index.js';
import { explainText } from '../text/explain.js';
import { hexdump } from '../text/hexdump.js';
import { printable, styles } from '../text/printable.js';
import { disassemble } from './disassemble.js';
import type { Writer } from './writer.js';

/** What a dot command works on. */
export interface Session {
  readonly guest: Guest;
  readonly writer: Writer;
  readonly output: Writable;
  readonly colours: boolean;
  /** Defines the guest's names anew. */
  load(): void;
}

interface DotCommand {
  readonly help: string;
  /** Lines to print. @param words behind the command */
  run(session: Session, words: readonly string[], server: REPLServer): Lines | Promise<Lines>;
}

type Lines = readonly string[];
/** Places of a pattern that are shown. */
const MOST_HITS = 20;
/** Names of structures that are shown. */
const MOST_TYPES = 200;

/** Commands of the REPL by the word after the dot. */
export const DOT_COMMANDS: Readonly<Record<string, DotCommand>> = {
  explain: {
    help: 'PID: every step from a PID to CR3',
    run: ({ guest, colours }, [pid]) => explainText(guest.explain(Number(pid)), styles(colours)),
  },
  what: {
    help: 'PLACE: what an address of the kernel is',
    run: ({ guest, writer }, [place]) => [writer.write(guest.whatIs(placeOf(guest, place)))],
  },
  search: {
    help: 'TEXT: where RAM holds a text',
    async run({ guest, writer }, words) {
      const hits = [];
      for await (const hit of guest.search(words.join(' '))) {
        if (hits.push(hit) >= MOST_HITS) break;
      }
      return [writer.write(hits)];
    },
  },
  stack: {
    help: 'PID: the kernel functions that a task is in, waiting or running',
    run: async ({ guest, writer }, [pid]) => [writer.write(await guest.stack(Number(pid)))],
  },
  dis: {
    help: 'PLACE [N]: instructions of the kernel; takes @alexaltea/capstone-js',
    run: ({ guest }, [place, count]) =>
      disassemble(guest, placeOf(guest, place), count === undefined ? undefined : Number(count)),
  },
  hexdump: {
    help: 'PLACE [BYTES]: memory of the kernel',
    run({ guest }, [place, length = '64']) {
      const address = placeOf(guest, place);
      return hexdump(guest.read(address, Number(length)), address);
    },
  },
  types: {
    help: 'TEXT: structures of this kernel whose name holds a text',
    run({ guest }, [text = '']) {
      const names = [...guest.kernel.types.names()].filter((name) => name.includes(text)).sort();
      const rest = names.length - MOST_TYPES;
      return [...names.slice(0, MOST_TYPES), ...(rest > 0 ? [`… and ${rest} more`] : [])];
    },
  },
  attach: {
    help: 'look at the guest anew, after it was reset',
    async run({ guest, load }) {
      await guest.reattach();
      load();
      return [`Linux ${guest.kernel.release}, ${guest.tasks().length} processes`];
    },
  },
  pipe: {
    help: 'COMMAND: the last result through a shell command, as .pipe grep bash',
    async run({ writer }, words, server) {
      const child = spawn(words.join(' '), { shell: true, stdio: ['pipe', 'pipe', 'inherit'] });
      // A command that reads no further, as head does, is no failure.
      child.stdin.on('error', () => {});
      child.stdin.end(`${writer.write((server as { last?: unknown }).last)}\n`);
      let text = '';
      child.stdout.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      await once(child, 'close');
      return text === '' ? [] : [text.replace(/\n$/, '')];
    },
  },
};

/** Adds {@link DOT_COMMANDS} to a REPL. */
export function defineCommands(server: REPLServer, session: Session): void {
  for (const [name, { help, run }] of Object.entries(DOT_COMMANDS)) {
    server.defineCommand(name, {
      help,
      action(text) {
        this.clearBufferedCommand();
        const words = text
          .trim()
          .split(/\s+/)
          .filter((word) => word !== '');
        void answer(() => run(session, words, server), session).then(() => this.displayPrompt());
      },
    });
  }
}

async function answer(run: () => Lines | Promise<Lines>, session: Session): Promise<void> {
  const { output, writer } = session;
  try {
    for (const line of await run()) output.write(`${line}\n`);
  } catch (error) {
    output.write(`${writer.write(error)}\n`);
  }
}

/** @throws {RangeError} nothing, or what is neither an address nor `SYMBOL+OFFSET` */
function placeOf(guest: Guest, text = ''): bigint {
  const [, name, offset = '0'] = /^([A-Za-z_][\w.]*)(?:\+(0x[0-9a-f]+|\d+))?$/i.exec(text) ?? [];
  if (name === undefined || /^[0-9a-f]{16}$/i.test(text)) return parseAddress(text, 'place');
  return guest.symbol(printable(name)) + BigInt(offset);
}
