import type { Slice } from './slices.js';
import { sliceFacts, sliceName, type TraceHeader, type TraceWriter } from './writer.js';

/**
 * Perfetto's protobuf: a `Trace` is packets (field 1), each a track's description or an event on a
 * track. Field numbers are those of protos/perfetto/trace in Perfetto's sources:
 * trace_packet.proto, track_event/track_descriptor.proto, track_event/track_event.proto,
 * track_event/debug_annotation.proto, track_event/counter_descriptor.proto.
 */
const TRACE = { packet: 1 } as const;
const PACKET = {
  timestamp: 8,
  sequence: 10,
  trackEvent: 11,
  flags: 13,
  trackDescriptor: 60,
} as const;
const DESCRIPTOR = { uuid: 1, name: 2, parent: 5, counter: 8, ordering: 11, rank: 12 } as const;
const COUNTER = { unit: 3 } as const;
const EVENT = { annotation: 4, type: 9, track: 11, category: 22, name: 23, counter: 30 } as const;
const ANNOTATION = { uint: 3, string: 6, name: 10 } as const;
/** TrackEvent.Type. */
const TYPE = { begin: 1, end: 2, counter: 4 } as const;
/** TrackDescriptor.ChildTracksOrdering: by rank, since names would put CPU 10 before CPU 2. */
const EXPLICIT = 3;
/** CounterDescriptor.Unit. */
const UNIT_COUNT = 2;
/** TracePacket.SequenceFlags: SEQ_INCREMENTAL_STATE_CLEARED. */
const STATE_CLEARED = 1;
const SEQUENCE = 1;
/** Track of everything, and the first of the CPUs' two tracks each. */
const ROOT = 1;
const FIRST_TRACK = 16;

const VARINT = 0;
const LENGTH = 2;

/** One message, its fields appended in order. Protocol buffers, "Encoding". */
class Message {
  readonly #bytes: number[] = [];

  number(field: number, value: number): this {
    this.#varint(field * 8 + VARINT);
    this.#varint(value);
    return this;
  }

  text(field: number, value: string): this {
    return this.bytes(field, Buffer.from(value));
  }

  message(field: number, value: Message): this {
    return this.bytes(field, value.#bytes);
  }

  bytes(field: number, value: ArrayLike<number>): this {
    this.#varint(field * 8 + LENGTH);
    this.#varint(value.length);
    for (let i = 0; i < value.length; i++) this.#bytes.push(value[i]!);
    return this;
  }

  finish(): Uint8Array {
    return Uint8Array.from(this.#bytes);
  }

  /** Seven bits a byte, the lowest first. Times need more than 32 bits, so no bit operators. */
  #varint(value: number): void {
    let rest = value;
    while (rest >= 128) {
      this.#bytes.push((rest % 128) + 128);
      rest = Math.floor(rest / 128);
    }
    this.#bytes.push(rest);
  }
}

/**
 * A trace for ui.perfetto.dev and trace_processor: a track of slices and one that counts what was
 * missed, for each CPU.
 */
export class PerfettoWriter implements TraceWriter {
  readonly #missed = new Map<number, number>();

  begin({ name, cpus }: TraceHeader): Uint8Array {
    const tracks = new Message();
    const root = new Message()
      .number(DESCRIPTOR.uuid, ROOT)
      .text(DESCRIPTOR.name, name)
      .number(DESCRIPTOR.ordering, EXPLICIT);
    tracks.message(
      TRACE.packet,
      packet().number(PACKET.flags, STATE_CLEARED).message(PACKET.trackDescriptor, root),
    );
    for (const cpu of cpus) {
      const slices = new Message()
        .number(DESCRIPTOR.uuid, trackOf(cpu))
        .text(DESCRIPTOR.name, `CPU ${cpu}`)
        .number(DESCRIPTOR.parent, ROOT)
        .number(DESCRIPTOR.rank, trackOf(cpu));
      const counter = new Message()
        .number(DESCRIPTOR.uuid, trackOf(cpu) + 1)
        .text(DESCRIPTOR.name, `CPU ${cpu} missed switches`)
        .number(DESCRIPTOR.parent, ROOT)
        .number(DESCRIPTOR.rank, trackOf(cpu) + 1)
        .message(DESCRIPTOR.counter, new Message().number(COUNTER.unit, UNIT_COUNT));
      for (const track of [slices, counter])
        tracks.message(TRACE.packet, packet().message(PACKET.trackDescriptor, track));
    }
    return tracks.finish();
  }

  slice(slice: Slice): Uint8Array {
    const trace = new Message();
    const track = trackOf(slice.cpu);
    const begin = new Message()
      .number(EVENT.type, TYPE.begin)
      .number(EVENT.track, track)
      .text(EVENT.category, slice.task === undefined ? 'missed' : 'sched')
      .text(EVENT.name, sliceName(slice));
    for (const [name, value] of Object.entries(sliceFacts(slice))) {
      const annotation = new Message().text(ANNOTATION.name, name);
      if (typeof value === 'number') annotation.number(ANNOTATION.uint, value);
      else annotation.text(ANNOTATION.string, value);
      begin.message(EVENT.annotation, annotation);
    }
    const end = new Message().number(EVENT.type, TYPE.end).number(EVENT.track, track);
    trace.message(TRACE.packet, packet(slice.start).message(PACKET.trackEvent, begin));
    trace.message(TRACE.packet, packet(slice.end).message(PACKET.trackEvent, end));
    if (slice.missed > 0) {
      const total = (this.#missed.get(slice.cpu) ?? 0) + slice.missed;
      this.#missed.set(slice.cpu, total);
      const count = new Message()
        .number(EVENT.type, TYPE.counter)
        .number(EVENT.track, track + 1)
        .number(EVENT.counter, total);
      trace.message(TRACE.packet, packet(slice.end).message(PACKET.trackEvent, count));
    }
    return trace.finish();
  }

  end(): Uint8Array {
    return new Uint8Array();
  }
}

/** A packet of the one sequence there is. @param time nanoseconds */
function packet(time?: number): Message {
  const message = new Message();
  if (time !== undefined) message.number(PACKET.timestamp, Math.round(time));
  return message.number(PACKET.sequence, SEQUENCE);
}

function trackOf(cpu: number): number {
  return FIRST_TRACK + cpu * 2;
}
