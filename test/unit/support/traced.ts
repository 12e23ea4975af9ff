/** Switches, slices and traces of a guest with two CPUs. */
import type { ClockTie } from '../../../lib/monitor/clock-tie.js';
import { RunningTask, type Switch } from '../../../lib/monitor/switch.js';
import { type Slice, Slices } from '../../../lib/monitor/trace/slices.js';
import type { TraceWriter } from '../../../lib/monitor/trace/writer.js';

/** A task as a CPU ran it. */
export function traced(pid: number, comm: string, kthread = false): RunningTask {
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
export function at(micros: number, to: RunningTask, more: Partial<Switch> = {}): Switch {
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

export const IDLE = traced(0, 'swapper/0');
export const SHELL = traced(7, 'a,"b"</script>');
export const THREAD = traced(9, 'kworker/0:1', true);
export const EVENTS = [
  at(100, IDLE),
  at(200, SHELL),
  at(300, THREAD, { missed: 3 }),
  at(50, SHELL, { cpu: 1, cr3: null }),
];

export function slicesOf(events: readonly Switch[], clock?: ClockTie): Slice[] {
  const slices = new Slices(clock);
  return [...events.flatMap((event) => slices.add(event)), ...slices.finish(400_000n)];
}

/** The file that a writer makes. */
export function written(writer: TraceWriter, slices = slicesOf(EVENTS)): Buffer {
  const header = { name: 'qemu:1 <b>', cpus: [0, 1] };
  const parts = [writer.begin(header), ...slices.map((one) => writer.slice(one)), writer.end()];
  return Buffer.concat(parts.map((part) => Buffer.from(part as Uint8Array)));
}
