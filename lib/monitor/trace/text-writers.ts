import type { Slice } from './slices.js';
import { sliceFacts, sliceName, type TraceHeader, type TraceWriter } from './writer.js';

/**
 * The JSON trace events that chrome://tracing made known, and Perfetto reads: times in
 * microseconds.
 */
export class JsonTraceWriter implements TraceWriter {
  begin({ name, cpus }: TraceHeader): string {
    const meta = [
      { ph: 'M', name: 'process_name', pid: 0, tid: 0, args: { name } },
      ...cpus.map((cpu) => ({
        ph: 'M',
        name: 'thread_name',
        pid: 0,
        tid: cpu,
        args: { name: `CPU ${cpu}` },
      })),
    ];
    return `{"displayTimeUnit":"ns","traceEvents":[\n${meta.map((one) => JSON.stringify(one)).join(',\n')}`;
  }

  slice(slice: Slice): string {
    const event = {
      ph: 'X',
      name: sliceName(slice),
      cat: slice.task === undefined ? 'missed' : 'sched',
      pid: 0,
      tid: slice.cpu,
      ts: slice.start / 1_000,
      dur: (slice.end - slice.start) / 1_000,
      args: sliceFacts(slice),
    };
    return `,\n${JSON.stringify(event)}`;
  }

  end(): string {
    return '\n]}\n';
  }
}

/** One slice a line, for spreadsheets and data frames; RFC 4180. */
export class CsvWriter implements TraceWriter {
  begin(): string {
    return 'start_ns,end_ns,cpu,pid,tgid,comm,cr3,space,begin,missed\n';
  }

  slice(slice: Slice): string {
    const { pid = '', tgid = '', cr3 = '', space = '', begin = '' } = sliceFacts(slice);
    const comm = slice.task === undefined ? '' : slice.task.comm;
    const cells = [slice.start, slice.end, slice.cpu, pid, tgid, comm, cr3, space, begin];
    return `${[...cells, slice.missed].map(cell).join(',')}\n`;
  }

  end(): string {
    return '';
  }
}

function cell(value: string | number): string {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** One slice a line as JSON, in the order in which slices ended. */
export class NdjsonWriter implements TraceWriter {
  begin(header: TraceHeader): string {
    return `${JSON.stringify({ trace: header.name, cpus: header.cpus })}\n`;
  }

  slice(slice: Slice): string {
    const { cpu, start, end } = slice;
    return `${JSON.stringify({ start, end, cpu, name: sliceName(slice), ...sliceFacts(slice) })}\n`;
  }

  end(): string {
    return '';
  }
}
