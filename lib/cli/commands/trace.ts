import { closeSync, openSync, writeSync } from 'node:fs';
import type { Guest, TraceWriter } from '../../index.js';
import { onlyOne, parsePid, UsageError } from '../arguments.js';
import { ATTACH_OPTIONS, type Command, TARGET } from '../command.js';
import { EXIT } from '../exit-code.js';
import { OutputError } from '../output.js';
import { parseCpus, parseRate, parseSeconds, stopping, watchSwitches } from '../watching.js';

/** Formats by name; the one that a file's name ends with is taken where none is given. */
const FORMATS = ['perfetto', 'json', 'csv', 'ndjson', 'html'] as const;
type Format = (typeof FORMATS)[number];
const SECONDS = 5;

export const trace: Command = {
  name: 'trace',
  summary: 'record what each CPU runs as a timeline',
  operands: [TARGET],
  options: {
    output: { short: 'o', value: 'FILE', values: 'files', summary: 'where the trace goes' },
    format: {
      value: 'FORMAT',
      values: FORMATS,
      summary: `${FORMATS.join(', ')}; default: by the file's name, else perfetto`,
    },
    html: { summary: 'the same as --format html: one page that needs nothing else' },
    seconds: { value: 'N', summary: `how long; default ${SECONDS}, and Ctrl-C ends it sooner` },
    pid: { value: 'PID', many: true, summary: 'only switches to or from this task or process' },
    cpu: { value: 'CPU', many: true, summary: 'only this CPU' },
    rate: { value: 'HZ', summary: "looks a second, or 'full'; default: what 5 % of a core allows" },
    ...ATTACH_OPTIONS,
  },
  details: [
    'perfetto is the protobuf of https://ui.perfetto.dev; json the trace events that chrome://tracing reads, too. Each CPU is a track, each slice a task with its PID, CR3 and whether its begin is exact; what was missed between two slices is a slice of its own that says how many.',
    'csv and ndjson have a slice a line, with nanoseconds since the trace began.',
  ],
  examples: [
    'vmi trace qemu:4242 -o guest.perfetto-trace',
    'vmi trace qemu:4242 -o guest.html --seconds 2 --rate full',
    'vmi trace qemu:4242 -o guest.csv --pid 812',
  ],
  run(invocation) {
    const { out, value } = invocation;
    onlyOne(invocation, 'html', 'format');
    const file = value('output');
    if (file === undefined) throw new UsageError('missing -o FILE (where the trace goes)');
    const format = chooseFormat(file, invocation.has('html') ? 'html' : value('format'));
    const seconds = parseSeconds(value('seconds')) ?? SECONDS;
    const rate = parseRate(value('rate'));
    const cpus = parseCpus(invocation.values('cpu'));
    const pids = invocation.values('pid').map((text) => parsePid(text, '--pid'));
    return invocation.withGuest(async (guest) => {
      using stop = stopping(invocation, seconds);
      const options = { rate, cpus, pids: pids.length === 0 ? undefined : pids };
      const writer = await writerOf(format);
      const told = await record(guest, file, writer, { ...options, signal: stop.signal });
      out.note(told);
      return EXIT.done;
    });
  },
};

function chooseFormat(file: string, given: string | undefined): Format {
  const name = given ?? FORMATS.find((known) => file.endsWith(`.${known}`)) ?? 'perfetto';
  const found = FORMATS.find((known) => known === name);
  if (found !== undefined) return found;
  throw new UsageError(`Expected --format as one of ${FORMATS.join(', ')} but received '${name}'`);
}

async function writerOf(format: Format): Promise<TraceWriter> {
  const api = await import('../../index.js');
  switch (format) {
    case 'perfetto':
      return new api.PerfettoWriter();
    case 'json':
      return new api.JsonTraceWriter();
    case 'csv':
      return new api.CsvWriter();
    case 'ndjson':
      return new api.NdjsonWriter();
    case 'html':
      return new api.HtmlWriter();
  }
}

/** @returns what was recorded, for people */
async function record(
  guest: Guest,
  file: string,
  writer: TraceWriter,
  options: Parameters<Guest['watchSwitches']>[0],
): Promise<string> {
  await using stream = watchSwitches(guest, options);
  const descriptor = written(file, () => openSync(file, 'w'));
  let slices = 0;
  const write = (data: string | Uint8Array) => {
    const bytes = typeof data === 'string' ? Buffer.from(data) : data;
    for (let at = 0; at < bytes.length; )
      at += written(file, () => writeSync(descriptor, bytes, at));
  };
  const { Slices } = await import('../../index.js');
  const made = new Slices(stream.clock);
  try {
    const name = `${guest.target} Linux ${guest.kernel.release}`;
    write(writer.begin({ name, cpus: stream.cpus }));
    try {
      for await (const event of stream) {
        for (const slice of made.add(event)) {
          write(writer.slice(slice));
          slices++;
        }
      }
    } catch (error) {
      // A guest that ends, and time that is up, end a trace as it is.
      if (!/^VMI_(ABORTED|CLOSED)$/.test(String((error as { code?: unknown }).code))) throw error;
    }
    for (const slice of made.finish(process.hrtime.bigint())) {
      write(writer.slice(slice));
      slices++;
    }
    write(writer.end());
  } finally {
    closeSync(descriptor);
  }
  const { missed, statistics } = stream;
  return `${slices} slices in ${file}: ${statistics.seen} switches seen, ${missed} missed`;
}

/** @throws {OutputError} */
function written<Result>(file: string, write: () => Result): Result {
  try {
    return write();
  } catch (error) {
    throw new OutputError(file, error);
  }
}
