import { describe, expect, it } from 'vitest';
import { CorruptError, VmiError } from '../../../lib/errors.js';
import type { Cr3WriteStream } from '../../../lib/guest/cr3-writes.js';
import { ReportedSwitches } from '../../../lib/guest/reported-switches.js';
import type { Switch } from '../../../lib/monitor/switch.js';

const KERNEL = 0x9000n;

/** A process, or what is thrown when it is looked for. */
type Named = { pid: number } | Error | undefined;
type Write = [vcpu: number, value: bigint, previous: bigint, named: Named];

const task = (pid: number) => ({
  address: 0xffff_8880_0000_0000n + BigInt(pid) * 0x1000n,
  pid,
  tgid: pid,
  startTime: BigInt(pid),
  mm: 0xffff_8880_1000_0000n,
  flags: 0x40,
  commBytes: Buffer.from(`task-${pid}\0x`),
});

function writes(list: Write[], failure?: Error) {
  const stream = {
    dropped: 2,
    ended: 0,
    async next() {
      const next = list.shift();
      if (next === undefined) {
        if (failure !== undefined) throw failure;
        return { done: true, value: undefined };
      }
      const [vcpu, value, previous, named] = next;
      const write = {
        vcpu,
        value,
        previous,
        kernel: (value & ~0xfffn) === KERNEL,
        get task() {
          if (named instanceof Error) throw named;
          return named === undefined ? undefined : task(named.pid);
        },
      };
      return { done: false, value: write };
    },
    async return() {
      stream.ended++;
    },
  };
  return stream;
}

function reported(list: Write[], failure?: Error) {
  const raw = writes(list, failure);
  const stream = new ReportedSwitches(raw as unknown as Cr3WriteStream, (value) => value & ~0xfffn);
  return { raw, stream };
}

async function all(stream: ReportedSwitches): Promise<Switch[]> {
  const events: Switch[] = [];
  for await (const event of stream) events.push(event);
  return events;
}

describe('reported switches', () => {
  it('name the process whose address space was loaded, and the one before', async () => {
    const { stream } = reported([
      [0, 0x1005n, 0n, { pid: 1 }],
      [1, 0x3000n, 0n, { pid: 3 }],
      [0, 0x2006n, 0x1005n, { pid: 2 }],
      [1, 0x1005n, 0x3000n, { pid: 1 }],
    ]);
    const events = await all(stream);
    expect(
      events.map(({ cpu, cr3, task, previous }) => [cpu, cr3, task.comm, previous?.pid]),
    ).toEqual([
      [0, 0x1000n, 'task-1', undefined],
      [1, 0x3000n, 'task-3', undefined],
      [0, 0x2000n, 'task-2', 1],
      [1, 0x1000n, 'task-1', 3],
    ]);
    for (const { by, began, seenUntil, missed, count } of events)
      expect([by, began, seenUntil, missed, count]).toEqual(['reported', null, null, null, null]);
    expect(stream.dropped).toBe(2);
  });

  it('say how many they cannot name, and name none before the next', async () => {
    const { stream } = reported([
      [0, 0x1000n, 0n, { pid: 1 }],
      [0, KERNEL, 0x1000n, undefined],
      [0, 0x2000n, KERNEL, { pid: 2 }],
      [0, 0x4000n, 0x2000n, undefined],
      [0, 0x5000n, 0x4000n, new CorruptError('a list that is none', 0n)],
      [0, 0x1000n, 0x5000n, { pid: 1 }],
    ]);
    const events = await all(stream);
    expect(events.map(({ task, previous }) => [task.pid, previous])).toEqual([
      [1, null],
      [2, null],
      [1, null],
    ]);
    expect([stream.kernel, stream.unnamed]).toEqual([1, 2]);
  });

  it('end what they listen to when the loop is left, and pass its failure on', async () => {
    const { raw, stream } = reported([
      [0, 0x1000n, 0n, { pid: 1 }],
      [0, 0x2000n, 0x1000n, { pid: 2 }],
    ]);
    for await (const event of stream) {
      expect(event.task.pid).toBe(1);
      break;
    }
    expect(raw.ended).toBe(1);
    const gone = reported([], new VmiError('VMI_CLOSED', 'the domain is gone'));
    await expect(gone.stream.next()).rejects.toMatchObject({ code: 'VMI_CLOSED' });
    const other = reported([[0, 0x1000n, 0n, new TypeError('a fault of our own')]]);
    await expect(other.stream.next()).rejects.toThrow(TypeError);
    expect(other.raw.ended).toBe(1);
  });
});
