import { afterEach, describe, expect, it, vi } from 'vitest';
import { Cr3Index, type Cr3IndexOptions } from '../../../lib/monitor/cr3-index.js';
import { fakeAddon } from '../support/fake-memory.js';
import { MadeGuest } from '../tasks/support/made-guest.js';

vi.mock('../../../lib/addon.js', () => ({ addon: () => fakeAddon }));

const open: Cr3Index[] = [];
afterEach(() => {
  for (const index of open.splice(0)) index.close();
});

/** An index that looks when it is told to. */
function indexOf(guest: MadeGuest, options: Cr3IndexOptions = {}): Cr3Index {
  const tasks = guest.tasks();
  const indexed = {
    kernel: guest.kernel,
    tasks: () => tasks.list({ threads: true }),
    findTask: (pid: number) => tasks.find(pid),
  };
  const index = new Cr3Index(indexed, { interval: 60_000, ...options }, () => {});
  open.push(index);
  return index;
}

/** A time between two looks. */
function moment(): number {
  const before = performance.now();
  while (performance.now() - before < 0.2);
  const time = performance.timeOrigin + performance.now();
  while (performance.now() - before < 0.4);
  return time;
}

const pids = (index: Cr3Index, value: bigint, at?: number) =>
  index.name(value, at).owners.map(({ pid }) => pid);

describe('an index of CR3 values', () => {
  it('names a process and its threads, the leader first', () => {
    const guest = new MadeGuest({ pti: true });
    const mm = guest.mm();
    const leader = guest.task({ pid: 50, mm, comm: 'make' });
    guest.task({ pid: 51, of: leader, mm });
    const index = indexOf(guest);
    const at = moment();
    index.look();
    const name = index.name(mm.cr3 | 0x1805n | (1n << 63n), at);
    expect(name).toMatchObject({ cr3: mm.cr3, kernel: false, certain: true });
    expect(name.owners.map(({ pid, gone }) => [pid, gone])).toEqual([
      [50, false],
      [51, false],
    ]);
    expect(name.owners[0]!.comm).toBe('make');
  });

  it('is not certain of a task that one look alone has met, nor without a time', () => {
    const guest = new MadeGuest();
    const mm = guest.mm();
    guest.task({ pid: 50, mm });
    const index = indexOf(guest);
    expect(index.name(mm.cr3, moment())).toMatchObject({ certain: false });
    index.look();
    expect(index.name(mm.cr3)).toMatchObject({ certain: false });
    expect(pids(index, mm.cr3)).toEqual([50]);
  });

  it('tells two processes apart that had one page table, by the time', () => {
    const guest = new MadeGuest();
    const mm = guest.mm();
    const first = guest.task({ pid: 50, mm });
    const index = indexOf(guest);
    const early = moment();
    index.look();
    guest.reap(first);
    const between = moment();
    guest.task({ pid: 60, mm });
    index.look();
    const late = moment();
    index.look();
    expect([pids(index, mm.cr3, early), pids(index, mm.cr3, late)]).toEqual([[50], [60]]);
    expect(index.name(mm.cr3, early)).toMatchObject({ certain: true, owners: [{ gone: true }] });
    expect(index.name(mm.cr3, late).certain).toBe(true);
    expect(index.name(mm.cr3, between).certain).toBe(false);
    expect(pids(index, mm.cr3, between)).toEqual([60, 50]);
  });

  it('takes the same PID with another start time for another task', () => {
    const guest = new MadeGuest();
    const [one, two] = [guest.mm(), guest.mm()];
    const task = guest.task({ pid: 50, mm: one, startTime: 1n });
    const index = indexOf(guest);
    guest.reap(task);
    guest.task({ pid: 50, mm: two, startTime: 2n });
    index.look();
    expect(index.name(one.cr3).owners).toMatchObject([{ startTime: 1n, gone: true }]);
    expect(index.name(two.cr3).owners).toMatchObject([{ startTime: 2n, gone: false }]);
  });

  it('follows a task that executes something else', () => {
    const guest = new MadeGuest();
    const [one, two] = [guest.mm(), guest.mm()];
    const task = guest.task({ pid: 50, mm: one });
    const index = indexOf(guest);
    guest.set(task, 'mm', two.address);
    guest.set(task, 'active_mm', two.address);
    index.look();
    expect(index.name(one.cr3).owners).toMatchObject([{ pid: 50, gone: true }]);
    expect(index.name(two.cr3).owners).toMatchObject([{ pid: 50, gone: false }]);
  });

  it('does not name a task by what its old mm has become', () => {
    const guest = new MadeGuest();
    const [old, other] = [guest.mm(), guest.mm()];
    const task = guest.task({ pid: 50, mm: old });
    const tasks = guest.tasks();
    let looks = 0;
    const indexed = {
      kernel: guest.kernel,
      // The row shows the old mm; its page table, read a moment later, is another process's.
      tasks: () => {
        const was = guest.read(old.address + 0x48n);
        guest.write(old.address + 0x48n, other.cr3 + 0xffff_8880_0000_0000n);
        const list = tasks.list({ threads: true });
        guest.write(old.address + 0x48n, was);
        looks++;
        return list;
      },
      findTask: (pid: number) => tasks.find(pid),
    };
    const index = new Cr3Index(indexed, { interval: 60_000 }, () => {});
    open.push(index);
    expect(looks).toBe(1);
    expect(index.name(other.cr3).owners).toEqual([]);
    expect(task.pid).toBe(50);
  });

  it('calls the kernel by its name, and refuses bits that no CR3 has', () => {
    const guest = new MadeGuest();
    const mm = guest.mm();
    guest.task({ pid: 50, mm });
    const index = indexOf(guest);
    expect(index.name(guest.initMm.cr3 | 3n)).toMatchObject({ kernel: true, certain: true });
    expect(index.name(mm.cr3 | (1n << 55n)).owners).toEqual([]);
    expect(index.name(0x7000_0000n)).toMatchObject({ kernel: false, owners: [], certain: false });
  });

  it('leaves out borrowed address spaces and those that are none', () => {
    const guest = new MadeGuest();
    const mm = guest.mm();
    const thread = guest.task({ pid: 50, kthread: true, activeMm: mm });
    guest.run(0, thread, mm);
    const bad = guest.mm({ text: 0n });
    guest.task({ pid: 51, mm: bad });
    const index = indexOf(guest);
    expect([pids(index, mm.cr3), pids(index, bad.cr3)]).toEqual([[], []]);
  });

  it('counts the tasks that it never met', () => {
    const guest = new MadeGuest();
    guest.task({ pid: 50, mm: guest.mm() });
    const index = indexOf(guest);
    expect(index.lost).toBe(0);
    guest.task({ pid: 51, kthread: true });
    guest.reap(guest.task({ pid: 52, mm: guest.mm() }));
    guest.task({ pid: 53, mm: guest.mm() });
    index.look();
    expect(index.lost).toBe(1);
  });

  it('keeps only so many that have gone', () => {
    const guest = new MadeGuest();
    const index = indexOf(guest, { keep: 2 });
    const spaces = Array.from({ length: 6 }, (_, i) => {
      const mm = guest.mm();
      const task = guest.task({ pid: 50 + i, mm });
      index.look();
      guest.reap(task);
      return mm;
    });
    index.look();
    expect(spaces.map(({ cr3 }) => pids(index, cr3).length)).toEqual([0, 0, 0, 0, 1, 1]);
    expect(index.size).toBe(2);
  });

  it('refuses options that mean nothing', () => {
    const guest = new MadeGuest();
    expect(() => indexOf(guest, { interval: 0 })).toThrow(
      'Expected interval as an integer between 1 and 60000 but received 0',
    );
    expect(() => indexOf(guest, { keep: -1 })).toThrow(RangeError);
    expect(() => indexOf(guest, { every: 3 } as Cr3IndexOptions)).toThrow(TypeError);
  });
});
