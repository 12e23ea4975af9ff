import { expect, test } from 'vitest';
import { Cr3WriteStream } from '../../../lib/guest/cr3-writes.js';
import type { RawCr3Writes } from '../../../lib/memory/cr3-writes.js';
import type { Task } from '../../../lib/tasks/task.js';
import type { TaskList } from '../../../lib/tasks/task-list.js';

const task = (pid: number, leader: boolean) => ({ pid, leader }) as Task;
/** Tasks by CR3; what was asked for is noted. */
function finder(tasks: Record<string, Task[]>) {
  const asked: bigint[] = [];
  const find = (cr3: bigint) => {
    asked.push(cr3);
    return (tasks[String(cr3)] ?? []) as unknown as TaskList;
  };
  return { asked, find };
}

/** A stream of these values, closed once. */
function raw(...values: bigint[]): RawCr3Writes & { closed: number } {
  const stream = {
    dropped: 3,
    closed: 0,
    next: async () => {
      const value = values.shift();
      return value === undefined
        ? { done: true, value: undefined }
        : { done: false, value: { vcpu: 1, value, previous: 0x9000n } };
    },
    close: async () => {
      stream.closed++;
    },
  };
  return stream as unknown as RawCr3Writes & { closed: number };
}

test('tasks are looked up when they are asked for, once', async () => {
  const { asked, find } = finder({
    4096: [task(12, false), task(11, true)],
    8192: [task(13, false)],
  });
  const source = raw(0x1000n, 0x2000n, 0x3000n);
  let closed = 0;
  const stream = new Cr3WriteStream(source, find, () => closed++);
  const seen = [];
  for await (const write of stream) seen.push(write);
  expect(asked).toEqual([]);
  expect(seen.map(({ vcpu, value, previous }) => [vcpu, value, previous])).toEqual([
    [1, 0x1000n, 0x9000n],
    [1, 0x2000n, 0x9000n],
    [1, 0x3000n, 0x9000n],
  ]);
  // The leader, else the first, else none.
  expect(seen.map((write) => write.task?.pid)).toEqual([11, 13, undefined]);
  expect(seen[0]!.tasks.length).toBe(2);
  expect(asked).toEqual([0x1000n, 0x2000n, 0x3000n]);
  expect(stream.dropped).toBe(3);
  expect([source.closed, closed]).toEqual([0, 0]);
});

test('leaving the loop closes it', async () => {
  const source = raw(0x1000n, 0x2000n);
  let closed = 0;
  const stream = new Cr3WriteStream(source, finder({}).find, () => closed++);
  for await (const write of stream) {
    expect(write.value).toBe(0x1000n);
    break;
  }
  expect([source.closed, closed]).toEqual([1, 1]);
});
