import { expect, test } from 'vitest';
import {
  type NamedWrite,
  type NamedWrites,
  ReportedSwitches,
  reportedSwitchJson,
} from '../../../lib/monitor/reported-switches.js';
import type { Task } from '../../../lib/tasks/task.js';

const KERNEL = 0x9000n;

/** The process on an address space of a hundredth of its number. */
function owner(value: bigint): Task | undefined {
  const pid = Number((value & ~0xfffn) >> 12n);
  if (value === KERNEL || pid >= 100) return undefined;
  return {
    ...{ address: 0xffff_8880_0000_0000n + BigInt(pid) * 0x1000n, pid, tgid: pid, flags: 0 },
    ...{
      startTime: BigInt(pid),
      mm: 0xffff_8880_1000_0000n,
      commBytes: Buffer.from(`task-${pid}`),
    },
  } as unknown as Task;
}

/** Batches of writes (vCPU, value, value before), each with what was lost by then. */
function writes(...batches: [dropped: number, ...writes: [number, bigint, bigint][]][]) {
  const start = performance.now() - 1_000;
  const queue = batches.flatMap(([dropped, ...rows], at) =>
    rows.map((row) => ({ row, dropped, taken: start + at })),
  );
  const stream = {
    returned: 0,
    taken: 0,
    droppedByThen: 0,
    async next(): Promise<IteratorResult<NamedWrite, undefined>> {
      const next = queue.shift();
      if (next === undefined) return { done: true, value: undefined };
      stream.taken = next.taken;
      stream.droppedByThen = next.dropped;
      const [vcpu, value, previous] = next.row;
      const named = { vcpu, value, previous, kernel: value === KERNEL, task: owner(value) };
      return { done: false, value: named };
    },
    async return() {
      stream.returned++;
    },
  };
  return stream satisfies NamedWrites;
}

async function all(source: NamedWrites, pids?: number[]) {
  const stream = new ReportedSwitches(source, (value) => value & ~0xfffn, { pids });
  const seen = [];
  for await (const event of stream) seen.push(event);
  return seen;
}

test('each is a process or the kernel, after the one before on that CPU', async () => {
  const seen = await all(
    writes(
      [0, [0, 0x7005n, 0x1000n], [1, 0x8000n, 0x7000n], [0, KERNEL, 0x7005n]],
      [0, [0, 0x8000n, KERNEL], [1, 0x64000n, 0x8000n], [1, 0x7000n, 0x64000n]],
    ),
  );
  expect(
    seen.map(({ cpu, task, kernel, previous }) => [cpu, task?.pid, kernel, previous?.pid]),
  ).toEqual([
    [0, 7, false, undefined],
    [1, 8, false, undefined],
    [0, undefined, true, 7],
    [0, 8, false, undefined],
    [1, undefined, false, 8],
    [1, 7, false, undefined],
  ]);
  expect(seen.map(({ cr3 }) => cr3)).toEqual([
    0x7000n,
    0x8000n,
    KERNEL,
    0x8000n,
    0x64000n,
    0x7000n,
  ]);
  expect(seen.every(({ missed, by }) => missed === 0 && by === 'reported')).toBe(true);
  expect(seen.every(({ began, count, seenUntil }) => began ?? count ?? seenUntil ?? true)).toBe(
    true,
  );
  expect(seen[0]!.task!.comm).toBe('task-7');
  expect(seen[0]!.time).toBeLessThan(process.hrtime.bigint() - 500_000_000n);
});

test('nothing is said of what came before where reports were lost', async () => {
  const seen = await all(
    writes(
      [0, [0, 0x7000n, 0x1000n], [1, 0x7000n, 0x1000n]],
      // Somewhere in this batch five were lost, and the first may fit by chance.
      [5, [0, 0x8000n, 0x7000n], [0, 0x7000n, 0x8000n]],
      [5, [0, 0x8000n, 0x7000n], [1, 0x8000n, 0x7000n]],
      [5, [1, 0x9900n, 0x8000n], [1, 0x7000n, 0x5000n]],
    ),
  );
  expect(seen.map(({ missed, previous }) => [missed, previous?.pid])).toEqual([
    [0, undefined],
    [0, undefined],
    [null, undefined],
    [null, undefined],
    [0, 7],
    // Of those that were lost some may have been this CPU's.
    [null, undefined],
    [0, 8],
    // The values do not follow each other, whatever is said to be lost.
    [null, undefined],
  ]);
});

test('some processes only, and JSON', async () => {
  const source = writes([0, [0, 0x7000n, 0x1000n], [0, 0x8000n, 0x7000n], [0, 0x6000n, 0x8000n]]);
  const [to, from, ...rest] = await all(source, [7]);
  expect([to?.task?.pid, from?.previous?.pid, rest]).toEqual([7, 7, []]);
  expect(reportedSwitchJson(from!)).toMatchObject({
    ...{ cpu: 0, cr3: '0x8000', kernel: false, began: null, missed: 0, by: 'reported' },
    ...{ task: { pid: 8, comm: 'task-8' }, previous: { pid: 7 } },
  });
});

test('leaving the loop ends listening', async () => {
  const source = writes([0, [0, 0x7000n, 0x1000n], [0, 0x8000n, 0x7000n]]);
  const stream = new ReportedSwitches(source, (value) => value, {});
  for await (const _ of stream) break;
  expect(source.returned).toBe(1);
});
