import { describe, expect, it } from 'vitest';
import { ClockTie } from '../../../lib/monitor/clock-tie.js';
import { RunningTask, type Switch } from '../../../lib/monitor/switch.js';
import { HtmlWriter } from '../../../lib/monitor/trace/html.js';
import { PerfettoWriter } from '../../../lib/monitor/trace/perfetto.js';
import { type Slice, Slices } from '../../../lib/monitor/trace/slices.js';
import {
  CsvWriter,
  JsonTraceWriter,
  NdjsonWriter,
} from '../../../lib/monitor/trace/text-writers.js';
import type { TraceWriter } from '../../../lib/monitor/trace/writer.js';

function task(pid: number, comm: string, kthread = false): RunningTask {
  return new RunningTask({
    address: 0xffff_8880_0000_0000n + BigInt(pid) * 4096n,
    pid,
    tgid: pid,
    startTime: BigInt(pid),
    mm: kthread || pid === 0 ? 0n : 0xffff_8880_1000_0000n,
    flags: kthread ? 0x20_0000 : 0,
    comm: Buffer.from(comm.padEnd(16, '\0'), 'latin1'),
  });
}

/** A switch at a host time, in microseconds, that the look before did not see. */
function at(micros: number, to: RunningTask, more: Partial<Switch> = {}): Switch {
  return {
    time: BigInt(micros) * 1_000n,
    began: null,
    seenUntil: BigInt(micros - 2) * 1_000n,
    cpu: 0,
    cr3: 0x1000n,
    task: to,
    previous: null,
    missed: 0,
    count: null,
    by: 'sampled',
    ...more,
  };
}

const IDLE = task(0, 'swapper/0');
const SHELL = task(7, 'a,"b"</script>');
const THREAD = task(9, 'kworker/0:1', true);
const EVENTS = [
  at(100, IDLE),
  at(200, SHELL),
  at(300, THREAD, { missed: 3 }),
  at(50, SHELL, { cpu: 1, cr3: null }),
];

function slicesOf(events: readonly Switch[], clock?: ClockTie): Slice[] {
  const slices = new Slices(clock);
  return [...events.flatMap((event) => slices.add(event)), ...slices.finish(400_000n)];
}

describe('Slices', () => {
  it('leaves no gap, and has what was missed as a slice of its own', () => {
    const plain = slicesOf(EVENTS).map(({ cpu, start, end, task, missed }) => [
      ...[cpu, start, end, task?.pid, missed],
    ]);
    expect(plain).toEqual([
      [0, 0, 100_000, 0, 0],
      [0, 100_000, 198_000, 7, 0],
      [0, 198_000, 200_000, undefined, 3],
      [0, 200_000, 300_000, 9, 0],
      [1, 0, 300_000, 7, 0],
    ]);
  });

  it('takes the begin of a slice from the guest where its clock is known', () => {
    const clock = new ClockTie();
    clock.add(5_000n, 150_000n, 150_200n);
    const [idle, shell] = slicesOf([at(100, IDLE), at(200, SHELL, { began: 45_000n })], clock);
    expect(idle).toMatchObject({ start: 0, end: 90_100, exact: false });
    expect(shell).toMatchObject({ start: 90_100, exact: true });
  });

  it('never goes back, whatever a guest says', () => {
    const clock = new ClockTie();
    clock.add(5_000n, 150_000n, 150_200n);
    for (const { start, end } of slicesOf(
      [at(100, IDLE), at(200, SHELL, { began: 1n }), at(300, IDLE), at(310, SHELL, { began: 9n })],
      clock,
    ))
      expect(end).toBeGreaterThanOrEqual(start);
  });
});

function written(writer: TraceWriter, slices = slicesOf(EVENTS)): Buffer {
  const header = { name: 'qemu:1 <b>', cpus: [0, 1] };
  const parts = [writer.begin(header), ...slices.map((one) => writer.slice(one)), writer.end()];
  return Buffer.concat(parts.map((part) => Buffer.from(part as Uint8Array)));
}

/** Fields of a protocol buffer, numbers and bytes as they come. */
function* fields(bytes: Uint8Array): Generator<[number, number | Uint8Array]> {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++]!;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    const value = varint();
    if ((key & 7) === 0) {
      yield [key >> 3, value];
    } else {
      expect(key & 7).toBe(2);
      yield [key >> 3, bytes.subarray(at, at + value)];
      at += value;
      expect(at).toBeLessThanOrEqual(bytes.length);
    }
  }
}

describe('a trace', () => {
  it('is Perfetto packets: tracks first, then a begin and an end each', () => {
    const packets = [...fields(written(new PerfettoWriter()))].map(([number, bytes]) => {
      expect(number).toBe(1);
      return Object.fromEntries(fields(bytes as Uint8Array));
    });
    const tracks = packets.flatMap((packet) => (60 in packet ? [packet[60]] : []));
    const names = tracks.map((bytes) => {
      const found = Object.fromEntries(fields(bytes as Uint8Array));
      return Buffer.from(found[2] as Uint8Array).toString();
    });
    expect(names.slice(0, 3)).toEqual(['qemu:1 <b>', 'CPU 0', 'CPU 0 missed switches']);
    const events = packets.filter((packet) => 11 in packet);
    const types = events.map((packet) => {
      const event = Object.fromEntries(fields(packet[11] as Uint8Array));
      return event[9];
    });
    expect(types).toEqual([1, 2, 1, 2, 1, 2, 4, 1, 2, 1, 2]);
    for (const packet of packets) expect(packet[10]).toBe(1);
    for (const packet of events) expect(packet[8]).toBeGreaterThanOrEqual(0);
  });

  it('is JSON, lines of JSON, or CSV', () => {
    const json = JSON.parse(written(new JsonTraceWriter()).toString());
    expect(json.traceEvents).toHaveLength(3 + 5);
    expect(json.traceEvents.at(4)).toMatchObject({
      ph: 'X',
      name: 'a,"b"</script>',
      ts: 100,
      dur: 98,
      args: { pid: 7, cr3: '0x1000', space: 'own' },
    });
    const lines = written(new NdjsonWriter()).toString().trim().split('\n');
    expect(lines.map((line) => JSON.parse(line))[3]).toMatchObject({ missed: 3, cpu: 0 });
    const csv = written(new CsvWriter()).toString().trim().split('\n');
    expect(csv).toHaveLength(6);
    expect(csv[2]).toBe('100000,198000,0,7,7,"a,""b""</script>",0x1000,own,sampled,0');
  });

  it('is a page that no name can break', () => {
    const page = written(new HtmlWriter()).toString();
    expect(page.match(/<script>/g)).toHaveLength(1);
    expect(page.match(/<\/script>/g)).toHaveLength(1);
    expect(page).toContain('qemu:1 &lt;b>');
    expect(page).not.toMatch(/https?:/);
    const script = page.slice(page.indexOf('<script>') + 8, page.indexOf('</script>'));
    // It is JavaScript, and the rows are what was written.
    const rows = new Function(`${script.split('\nconst $=')[0]}return{ROWS,names}`)();
    expect(rows.ROWS).toHaveLength(5);
    expect(rows.names[rows.ROWS[1][4]]).toBe('a,"b"</script>');
    expect(() => new Function(script)).not.toThrow();
  });
});
