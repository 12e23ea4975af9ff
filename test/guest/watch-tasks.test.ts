import { afterAll, beforeAll, expect, it } from 'vitest';
import { attach, type Guest, type TaskEvent } from '../../lib/index.js';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';

let lab: LabGuest;
let guest: Guest;

beforeAll(async () => {
  lab = await bootGuest({ flavour: 'cloud', memory: 256, cpus: 1, tasks: 10, backend: 'memfd' });
  guest = await attach(`qemu:${lab.pid}`);
});

afterAll(async () => {
  await guest?.close();
  await lab?.close();
});

function forks(): bigint {
  return guest.kernel.memory.readU64(guest.symbol('total_forks'));
}

it('tells of births, execs and exits, and counts those that it did not see', async () => {
  const before = guest.tasks({ threads: true });
  const stream = guest.watchTasks({ interval: 20, threads: true });
  // Watching begins with the first call, and nothing happens until there is churn.
  const first = stream.next();
  const start = forks();
  await lab.command('churn on');
  const events: TaskEvent[] = [(await first).value!];
  for await (const event of stream) {
    events.push(event);
    if (events.length === 300) break;
  }
  const alive = new Map<string, TaskEvent>();
  const kinds = { birth: 0, exec: 0, exit: 0 };
  for (const event of events) {
    const key = `${event.task.pid} ${event.task.startTime}`;
    kinds[event.kind]++;
    if (event.kind === 'birth') {
      expect(alive.has(key), key).toBe(false);
      alive.set(key, event);
      continue;
    }
    if (event.kind === 'exec') {
      expect(event.before!.mm).not.toBe(event.task.mm);
      expect(event.before!.pid).toBe(event.task.pid);
      continue;
    }
    // Who was there before may exit, too; whoever exits was born, or was there.
    const known =
      alive.delete(key) || before.some(({ pid, startTime }) => `${pid} ${startTime}` === key);
    expect(known, key).toBe(true);
  }
  expect(kinds.birth).toBeGreaterThan(20);
  expect(kinds.exit).toBeGreaterThan(20);
  expect(kinds.exec).toBeGreaterThan(0);
  const lost = stream.lost!;
  expect(lost).toBeGreaterThanOrEqual(0);
  // The count that it is taken from goes on: births that were handed out and those lost are not
  // more.
  expect(kinds.birth + (events.at(-1)!.lost ?? 0)).toBeLessThanOrEqual(Number(forks() - start) + 1);
  await lab.command('churn off');
  // What lives through all of it gave no event.
  const survivors = new Set(
    guest.tasks({ threads: true }).map(({ pid, startTime }) => `${pid} ${startTime}`),
  );
  for (const task of before) {
    const key = `${task.pid} ${task.startTime}`;
    if (!survivors.has(key)) continue;
    expect(
      events.filter((event) => `${event.task.pid} ${event.task.startTime}` === key),
      key,
    ).toEqual([]);
  }
});

it('ends when it is told to, or when the guest is closed', async () => {
  const abort = new AbortController();
  const stream = guest.watchTasks({ signal: abort.signal });
  const waiting = stream.next();
  abort.abort();
  await expect(waiting).rejects.toMatchObject({ code: 'VMI_ABORTED' });
  expect((await stream.next()).done).toBe(true);
  expect(() => guest.watchTasks({ interval: 0 })).toThrow(RangeError);
  expect(() => guest.watchSwitches({ rate: 0 })).toThrow(RangeError);
  expect(() => guest.watchSwitches({ cpus: [9] })).toThrow(RangeError);
  expect(() => guest.watchSwitches({ pids: [-1] })).toThrow(RangeError);
  expect(() => guest.watchSwitches({ by: 'guessed' as 'sampled' })).toThrow(RangeError);
  expect(() => guest.watchSwitches({ by: 'reported' })).toThrow(
    expect.objectContaining({ code: 'VMI_UNSUPPORTED' }),
  );
  expect(() => guest.watchSwitches({ by: 'trapped', pids: [] })).toThrow(RangeError);
  expect(() => guest.watchSwitches({ hz: 1 } as object)).toThrow(TypeError);
  const second = await attach(`qemu:${lab.pid}`);
  const switches = second.watchSwitches();
  const tasks = second.watchTasks();
  const ends = Promise.all([...[1, 2, 3].map(() => tasks.next())]);
  await second.close();
  expect((await switches.next()).done).toBe(true);
  expect((await ends).at(-1)!.done).toBe(true);
});
