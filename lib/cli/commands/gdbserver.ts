import { Duplex } from 'node:stream';
import type { GdbServer, Place } from '../../serve/gdb/server.js';
import { parsePid, UsageError } from '../arguments.js';
import { ATTACH_OPTIONS, type Command, type Invocation, TARGET } from '../command.js';
import { EXIT } from '../exit-code.js';
import { OutputError } from '../output.js';

export const gdbserver: Command = {
  name: 'gdbserver',
  summary: 'let gdb look into one process, without stopping it',
  operands: [TARGET, { name: 'PID', summary: 'the process, or one of its threads' }],
  options: {
    listen: {
      short: 'l',
      value: 'WHERE',
      summary:
        "path of a unix socket, [127.0.0.1:]PORT, [::1]:PORT, or - for gdb's 'target remote |'; default: a private socket",
    },
    pause: { summary: 'stop the guest for as long as a debugger is there' },
    ...ATTACH_OPTIONS,
  },
  details: [
    "Read-only: memory is read through the process's page tables, registers are those that the kernel saved when a thread entered it. A thread that runs has none. Writing, continuing and stepping are refused.",
    "The guest runs on meanwhile: after a while say 'maintenance flush register-cache' and 'maintenance flush dcache' to gdb, or use --pause.",
    "A page that is not in memory is an error in gdb and told here; 'monitor absent' lists them, 'monitor help' the rest. gdb needs the guest's programs: 'set sysroot FOLDER'.",
  ],
  examples: [
    'vmi gdbserver qemu:4242 812',
    'vmi gdbserver qemu:4242 812 --listen 1234 --pause',
    "gdb -ex 'set sysroot guest-root' -ex 'target remote | vmi gdbserver qemu:4242 812 -l -'",
  ],
  run(invocation) {
    const { operands, out, value, has, withGuest } = invocation;
    const pid = parsePid(operands[1]!);
    const place = value('listen') === '-' ? '-' : parsePlace(value('listen'));
    return withGuest(async (guest) => {
      const { GdbServer, serve } = await import('../../serve/gdb/server.js');
      const { ProcessView } = await import('../../serve/gdb/process-view.js');
      const view = new ProcessView(guest, pid);
      const events = {
        log: (text: string) => out.note(text),
        ...(has('pause') ? { hold: () => guest.pause() } : {}),
      };
      if (place === '-') {
        await serve(standard(invocation), view, events);
        return EXIT.done;
      }
      const server = new GdbServer(view, events);
      try {
        await listening(server, place);
        const forget = invocation.onInterrupt(() => server.close());
        out.line(`target remote ${server.address}`);
        out.note(`process ${view.pid}, ${view.exe()}: read-only; Ctrl-C ends this`);
        await server.ended;
        forget();
      } finally {
        server.close();
      }
      return EXIT.done;
    });
  },
};

/** @throws {UsageError} no such place, or one that others on the network could reach */
function parsePlace(text: string | undefined): Place {
  if (text === undefined) return 'private';
  const match = /^(?:(\[::1\]|127\.0\.0\.1|localhost)?:)?([0-9]{1,5})$/.exec(text);
  if (match !== null && Number(match[2]) < 65_536) {
    const host = (match[1] ?? '127.0.0.1').replace(/[[\]]/g, '');
    return { host, port: Number(match[2]) };
  }
  if (text.includes('/')) return { socket: text };
  throw new UsageError(
    `Expected --listen as a path with '/', a port of this host (1234, 127.0.0.1:1234, [::1]:1234) or - but received '${text}'`,
  );
}

/** @throws {OutputError} */
async function listening(server: GdbServer, place: Place): Promise<void> {
  try {
    await server.listen(place);
  } catch (error) {
    const where = typeof place === 'string' ? place : 'socket' in place ? place.socket : place.port;
    throw new OutputError(String(where), error);
  }
}

/** Standard input and output as one stream. */
function standard({ input, out }: Invocation): Duplex {
  return Duplex.from({
    readable: input,
    writable: async (source: AsyncIterable<Uint8Array>) => {
      for await (const piece of source) out.bytes(piece);
    },
  });
}
