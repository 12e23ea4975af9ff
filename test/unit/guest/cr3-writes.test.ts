import { expect, test } from 'vitest';
import { CorruptError } from '../../../lib/errors.js';
import { Cr3Names, Cr3WriteStream, type NamedGuest } from '../../../lib/guest/cr3-writes.js';
import type { RawCr3Writes } from '../../../lib/memory/cr3-writes.js';
import type { Task } from '../../../lib/tasks/task.js';
import type { TaskList } from '../../../lib/tasks/task-list.js';

interface FakeTask {
  pid: number;
  startTime: bigint;
  mm: bigint | null;
  cr3: bigint | null;
  cr3Source: string;
}

const process = (pid: number, cr3: bigint, startTime = BigInt(pid)): FakeTask => ({
  pid,
  startTime,
  mm: cr3 + 0xffff_0000n,
  cr3,
  cr3Source: 'mm',
});

/** A guest with these processes, which a test changes; what was asked of it is noted. */
class FakeGuest implements NamedGuest {
  readonly asked: string[] = [];
  readonly kernel = 0x9000n;
  readonly list: FakeTask[];
  broken = 0;

  constructor(list: FakeTask[]) {
    this.list = list;
  }

  processes(): Task[] {
    this.asked.push('walk');
    if (this.broken-- > 0) throw new CorruptError('a list that is none', 0x1000n);
    return this.list.map((task) => ({ ...task })) as unknown as Task[];
  }

  find(pid: number): Task | undefined {
    this.asked.push(`find ${pid}`);
    return this.list.find((task) => task.pid === pid) as unknown as Task | undefined;
  }

  sharing(value: bigint): TaskList {
    this.asked.push('sharing');
    return this.list.filter(({ cr3 }) => cr3 === this.base(value)) as unknown as TaskList;
  }

  base(value: bigint): bigint {
    return value & ~0xfffn;
  }

  take(): string[] {
    return this.asked.splice(0);
  }
}

/** A stream of these values, closed once; each is taken at `at()`. */
function raw(values: bigint[], at: () => number = () => performance.now()) {
  const stream = {
    dropped: 3,
    closed: 0,
    taken: 0,
    next: async () => {
      const value = values.shift();
      stream.taken = at();
      return value === undefined
        ? { done: true, value: undefined }
        : { done: false, value: { vcpu: 1, value, previous: 0x8000n } };
    },
    close: async () => {
      stream.closed++;
    },
  };
  return stream as unknown as RawCr3Writes & { closed: number };
}

test('names are looked up when they are asked for, once', async () => {
  const guest = new FakeGuest([process(11, 0x1000n), process(13, 0x2000n)]);
  const source = raw([0x1005n, 0x2000n, 0x3000n, 0x9000n]);
  let closed = 0;
  const stream = new Cr3WriteStream(source, new Cr3Names(guest), () => closed++);
  const seen = [];
  for await (const write of stream) seen.push(write);
  expect(guest.take()).toEqual([]);
  expect(seen.map(({ vcpu, value, previous }) => [vcpu, value, previous])).toEqual([
    [1, 0x1005n, 0x8000n],
    [1, 0x2000n, 0x8000n],
    [1, 0x3000n, 0x8000n],
    [1, 0x9000n, 0x8000n],
  ]);
  expect(seen.map((write) => write.task?.pid)).toEqual([11, 13, undefined, undefined]);
  expect(seen.map((write) => write.kernel)).toEqual([false, false, false, true]);
  // One walk for all that was taken before it, absent ones too; none for the kernel's own.
  expect(guest.take()).toEqual(['walk']);
  expect(seen.map((write) => write.task?.pid)).toEqual([11, 13, undefined, undefined]);
  expect(guest.take()).toEqual([]);
  expect([seen[0]!.tasks.length, seen[0]!.tasks.length]).toEqual([1, 1]);
  expect(guest.take()).toEqual(['sharing']);
  expect(stream.dropped).toBe(3);
  expect([source.closed, closed]).toEqual([0, 0]);
});

test('what is known is looked up again for a later write, and walked for when it differs', () => {
  const guest = new FakeGuest([process(11, 0x1000n), process(13, 0x2000n)]);
  const names = new Cr3Names(guest);
  const name = (value: bigint) => names.task(value, performance.now())?.pid;
  expect([name(0x1000n), guest.take()]).toEqual([11, ['walk']]);
  expect([name(0x1000n), guest.take()]).toEqual([11, ['find 11']]);
  // The process has exited, and a new one has its page.
  guest.list[0] = process(14, 0x1000n);
  expect([name(0x1000n), guest.take()]).toEqual([14, ['find 11', 'walk']]);
  // The same PID, another process.
  guest.list[0] = process(14, 0x1000n, 99n);
  expect([name(0x1000n), guest.take()]).toEqual([14, ['find 14', 'walk']]);
  // The same process on another address space, as after exec, with nobody on the old one.
  guest.list[0] = process(14, 0x5000n, 99n);
  expect([name(0x1000n), guest.take()]).toEqual([undefined, ['find 14', 'walk']]);
  // Not known, and so walked for each time a write is new.
  expect([name(0x1000n), guest.take()]).toEqual([undefined, ['walk']]);
  expect([name(0x2000n), guest.take()]).toEqual([13, ['find 13']]);
});

test('who borrows an address space is not who loaded it', () => {
  const kthread = { ...process(15, 0x1000n), mm: null, cr3Source: 'active_mm' };
  const guest = new FakeGuest([kthread, process(20, 0x1000n), { ...kthread, cr3: 0x2000n }]);
  const names = new Cr3Names(guest);
  expect(names.task(0x1000n, performance.now())?.pid).toBe(20);
  expect(names.task(0x2000n, performance.now())).toBeUndefined();
});

test('a walk that the guest breaks is tried again, not for ever', () => {
  const guest = new FakeGuest([process(11, 0x1000n)]);
  const names = new Cr3Names(guest);
  guest.broken = 2;
  expect(names.task(0x1000n, performance.now())?.pid).toBe(11);
  expect(guest.take()).toEqual(['walk', 'walk', 'walk']);
  guest.broken = 3;
  expect(() => names.task(0x3000n, performance.now())).toThrow(CorruptError);
});

test('leaving the loop closes it', async () => {
  const source = raw([0x1000n, 0x2000n]);
  let closed = 0;
  const names = new Cr3Names(new FakeGuest([]));
  const stream = new Cr3WriteStream(source, names, () => closed++);
  for await (const write of stream) {
    expect(write.value).toBe(0x1000n);
    break;
  }
  expect([source.closed, closed]).toEqual([1, 1]);
});
