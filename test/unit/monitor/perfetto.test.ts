import { fileURLToPath } from 'node:url';
import protobuf from 'protobufjs';
import { describe, expect, it } from 'vitest';
import { PerfettoWriter } from '../../../lib/monitor/trace/perfetto.js';
import { EVENTS, SHELL, slicesOf, traced, written } from '../support/traced.js';

/** Perfetto's own schema, as far as a trace of this project goes. */
const schema = protobuf.loadSync(fileURLToPath(new URL('perfetto.proto', import.meta.url)));
const Trace = schema.lookupType('perfetto.protos.Trace');

interface Packet {
  readonly timestamp?: number;
  readonly trustedPacketSequenceId: number;
  readonly sequenceFlags?: number;
  readonly trackDescriptor?: Record<string, unknown>;
  readonly trackEvent?: {
    readonly type: string;
    readonly trackUuid: number;
    readonly name?: string;
    readonly categories?: string[];
    readonly counterValue?: number;
    readonly debugAnnotations?: Record<string, unknown>[];
  };
}

/** The packets of a trace; that nothing in it is unknown to the schema is expected. */
function packetsOf(bytes: Buffer): Packet[] {
  const trace = Trace.decode(bytes);
  expect(Trace.verify(trace)).toBeNull();
  // A field with a number or a type of its own would be left out when it is written again.
  expect(Trace.encode(trace).finish()).toHaveLength(bytes.length);
  return Trace.toObject(trace, { longs: Number, enums: String }).packet as Packet[];
}

describe('a trace for Perfetto', () => {
  const packets = packetsOf(written(new PerfettoWriter()));
  const events = packets.flatMap(({ trackEvent }) => trackEvent ?? []);

  it('begins with its tracks: one, and two for each CPU below it, in the order of the CPUs', () => {
    const tracks = packets.flatMap(({ trackDescriptor }) => trackDescriptor ?? []);
    expect(packets.slice(0, tracks.length).every(({ trackEvent }) => !trackEvent)).toBe(true);
    const counter = { parentUuid: 1, counter: { unit: 'UNIT_COUNT' } };
    expect(tracks).toEqual([
      { uuid: 1, name: 'qemu:1 <b>', childOrdering: 'EXPLICIT' },
      { uuid: 16, name: 'CPU 0', parentUuid: 1, siblingOrderRank: 16 },
      { ...counter, uuid: 17, name: 'CPU 0 missed switches', siblingOrderRank: 17 },
      { uuid: 18, name: 'CPU 1', parentUuid: 1, siblingOrderRank: 18 },
      { ...counter, uuid: 19, name: 'CPU 1 missed switches', siblingOrderRank: 19 },
    ]);
    expect(packets[0]).toMatchObject({ sequenceFlags: 1 });
    expect(packets.every(({ trustedPacketSequenceId }) => trustedPacketSequenceId === 1)).toBe(
      true,
    );
  });

  it('has the slices that were written, each begun and ended on its track', () => {
    const open = new Map<number, { packet: Packet; name: string | undefined }>();
    const read = [];
    for (const packet of packets) {
      const { type, trackUuid, name } = packet.trackEvent ?? { type: '', trackUuid: 0 };
      if (type === 'TYPE_SLICE_BEGIN') {
        expect(open.has(trackUuid)).toBe(false);
        open.set(trackUuid, { packet, name });
      }
      if (type !== 'TYPE_SLICE_END') continue;
      const { packet: begin } = open.get(trackUuid)!;
      open.delete(trackUuid);
      read.push([(trackUuid - 16) / 2, begin.timestamp, packet.timestamp, begin.trackEvent?.name]);
    }
    expect(open.size).toBe(0);
    expect(read).toEqual([
      [0, 0, 100_000, 'idle'],
      [0, 100_000, 198_000, 'a,"b"</script>'],
      [0, 198_000, 200_000, '3 missed'],
      [0, 200_000, 300_000, '[kworker/0:1]'],
      [1, 0, 300_000, 'a,"b"</script>'],
    ]);
    expect(read).toHaveLength(slicesOf(EVENTS).length);
  });

  it('has PID, CR3 and what was missed as arguments and as a counter', () => {
    const [, , shell, , gap, , counter] = events;
    const facts = (event: typeof shell) =>
      Object.fromEntries(
        event!.debugAnnotations!.map(({ name, uintValue, stringValue }) => [
          name,
          uintValue ?? stringValue,
        ]),
      );
    expect(shell?.categories).toEqual(['sched']);
    expect(facts(shell)).toEqual({
      pid: 7,
      tgid: 7,
      cr3: '0x1000',
      space: 'own',
      begin: 'sampled',
    });
    expect(gap?.categories).toEqual(['missed']);
    expect(facts(gap)).toEqual({ missed: 3 });
    expect(counter).toMatchObject({ type: 'TYPE_COUNTER', trackUuid: 17, counterValue: 3 });
  });

  it('keeps times of days and names of any bytes', () => {
    const day = 86_400_000_000_000;
    const task = traced(2 ** 22, 'größe');
    const [slice] = slicesOf([{ ...EVENTS[1]!, task, cr3: 0xfffff_ffff_f000n }]);
    const long = { ...slice!, start: 30 * day, end: 30 * day + 1, task: task ?? SHELL };
    const [begin, end] = packetsOf(written(new PerfettoWriter(), [long])).slice(-2);
    expect(begin?.timestamp).toBe(30 * day);
    expect(end?.timestamp).toBe(30 * day + 1);
    expect(begin?.trackEvent?.name).toBe(task.comm);
    expect(begin?.trackEvent?.debugAnnotations).toContainEqual({
      name: 'cr3',
      stringValue: '0xffffffffff000',
    });
  });
});
