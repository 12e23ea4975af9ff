import { describe, expect, it, vi } from 'vitest';
import { CorruptError, VmiError } from '../../../lib/errors.js';
import { fakeAddon } from '../support/fake-memory.js';
import { MadeGuest } from './support/made-guest.js';

vi.mock('../../../lib/addon.js', () => ({ addon: () => fakeAddon }));

describe('a look-up by PID', () => {
  it('finds leaders and threads, and nobody else', () => {
    const guest = new MadeGuest();
    const mm = guest.mm();
    const leader = guest.task({ pid: 100, mm });
    guest.task({ pid: 4242, of: leader, mm });
    const tasks = guest.tasks();
    expect(tasks.find(100)).toMatchObject({ pid: 100, tgid: 100, leader: true });
    expect(tasks.find(4242)).toMatchObject({ pid: 4242, tgid: 100, leader: false });
    expect(tasks.find(101)).toBeUndefined();
    expect(tasks.find(0x7fff_ffff)).toBeUndefined();
    expect(tasks.cr3(101)).toBeUndefined();
  });

  it('takes the task that has the PID now, not the one that had it', () => {
    const guest = new MadeGuest();
    const [before, after] = [guest.mm(), guest.mm()];
    guest.task({ pid: 100, mm: before, startTime: 1n });
    const tasks = guest.tasks();
    expect(tasks.cr3(100)).toBe(before.cr3);
    // The PID is given to a new task; the old one's memory is still there.
    guest.task({ pid: 100, mm: after, startTime: 2n });
    expect(tasks.cr3(100)).toBe(after.cr3);
    expect(tasks.find(100)).toMatchObject({ startTime: 2n, cr3: after.cr3 });
  });

  it('does not take a struct pid that only names a session for a task', () => {
    const guest = new MadeGuest();
    const task = guest.task({ pid: 100, mm: guest.mm() });
    guest.write(guest.read(task.address + 0x88n) + 0x10n, 0n);
    expect(guest.tasks().find(100)).toBeUndefined();
    expect(guest.tasks().cr3(100)).toBeUndefined();
  });

  it('refuses a tree that leads to the task of another PID', () => {
    const guest = new MadeGuest();
    const task = guest.task({ pid: 100, mm: guest.mm() });
    guest.setPid(101, guest.read(task.address + 0x88n));
    expect(() => guest.tasks().find(101)).toThrow(CorruptError);
    expect(() => guest.tasks().find(101)).toThrow("the PID tree's task for 101 has the PID 100");
    expect(() => guest.tasks().cr3(101)).toThrow(CorruptError);
  });

  it('tells the PIDs in every namespace, the outermost first', () => {
    const guest = new MadeGuest();
    guest.task({ pid: 100, mm: guest.mm(), inner: [7, 1] });
    guest.task({ pid: 101, mm: guest.mm() });
    const [nested, plain] = guest.tasks().list();
    expect(nested!.nsPids).toEqual([100, 7, 1]);
    expect(plain!.nsPids).toEqual([101]);
    expect(guest.tasks().find(100)!.nsPids).toEqual([100, 7, 1]);
  });
});

describe('a listing', () => {
  it('has every process once, and with threads every thread', () => {
    const guest = new MadeGuest();
    const mm = guest.mm();
    const leader = guest.task({ pid: 100, mm });
    guest.task({ pid: 101, of: leader, mm });
    guest.task({ pid: 102, kthread: true });
    const pids = (threads: boolean) =>
      guest
        .tasks()
        .list({ threads })
        .map(({ pid }) => pid);
    expect(pids(false)).toEqual([100, 102]);
    expect(pids(true)).toEqual([100, 101, 102]);
  });

  it.each([
    [false, false, 'static'],
    [true, false, 'live'],
    [true, true, 'paused'],
  ])('of a guest that is live: %s and held here: %s is %s', async (live, held, mode) => {
    const guest = new MadeGuest({ live });
    guest.task({ pid: 100, mm: guest.mm() });
    if (held) await guest.memory.pause();
    expect(guest.tasks().list().mode).toBe(mode);
    expect(guest.tasks().columns().mode).toBe(mode);
    await guest.memory.resume();
    expect(guest.tasks().list().mode).toBe(live ? 'live' : 'static');
  });

  it.each([true, false])('takes no threads of another process for its own, live: %s', (live) => {
    const guest = new MadeGuest({ live });
    const one = guest.task({ pid: 100, mm: guest.mm() });
    const other = guest.task({ pid: 101, mm: guest.mm() });
    guest.set(one, 'signal', guest.read(other.address + 0x78n));
    guest.set(other, 'signal', guest.read(one.address + 0x78n) + 0x100n);
    if (live) {
      expect(() => guest.tasks().list({ threads: true })).toThrow(VmiError);
      return;
    }
    // Of an image, what can be proven is listed, and what does not fit is said.
    const tasks = guest.tasks().list({ threads: true });
    expect(tasks.misfits.length).toBeGreaterThan(0);
    expect(new Set(tasks.map(({ address }) => address)).size).toBe(tasks.length);
  });

  it('refuses a process without threads instead of leaving it out', () => {
    const guest = new MadeGuest();
    const task = guest.task({ pid: 100, mm: guest.mm() });
    guest.set(task, 'signal', 0n);
    expect(() => guest.tasks().list({ threads: true })).toThrow('has no signal_struct');
    expect(guest.tasks().list()).toHaveLength(1);
  });

  it('sees a task that is not on the list of processes through the PID tree', () => {
    const guest = new MadeGuest();
    const task = guest.task({ pid: 100, mm: guest.mm() });
    guest.task({ pid: 101, mm: guest.mm() });
    const node = task.address + 0x60n;
    const [next, prev] = [guest.read(node), guest.read(node + 8n)];
    guest.write(prev, next);
    guest.write(next + 8n, prev);
    const rows = guest.tasks().cross();
    expect(rows.map(({ task, missing }) => [task.pid, missing])).toEqual([
      [100, ['list']],
      [101, []],
    ]);
  });
});
