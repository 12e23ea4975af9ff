import { describe, expect, it, vi } from 'vitest';
import { CorruptError } from '../../../lib/errors.js';
import { fakeAddon } from '../support/fake-memory.js';
import { at, MadeGuest, type MadeTask, PAGE_OFFSET } from './support/made-guest.js';

vi.mock('../../../lib/addon.js', () => ({ addon: () => fakeAddon }));

/** What every way to ask says of a task: list, look-up, columns. All have to agree. */
function answer(guest: MadeGuest, { pid }: MadeTask) {
  const tasks = guest.tasks();
  const listed = tasks.list({ threads: true }).find((task) => task.pid === pid)!;
  const found = tasks.find(pid)!;
  const columns = tasks.columns({ threads: true });
  const row = columns.pid.indexOf(pid);
  expect(found.cr3).toBe(listed.cr3);
  expect(found.cr3Source).toBe(listed.cr3Source);
  expect(tasks.cr3(pid)).toBe(listed.cr3);
  expect(columns.cr3[row]).toBe(listed.cr3 ?? 0n);
  return { cr3: listed.cr3, source: listed.cr3Source, userCr3: listed.userCr3 };
}

describe.each([false, true])('the CR3 of a task, in a guest that is live: %s', (live) => {
  it('is that of its mm', () => {
    const guest = new MadeGuest({ live });
    const mm = guest.mm();
    const task = guest.task({ pid: 10, mm });
    expect(answer(guest, task)).toEqual({ cr3: mm.cr3, source: 'mm', userCr3: undefined });
  });

  it('is that of active_mm while a kernel thread borrows it on a CPU', () => {
    const guest = new MadeGuest({ live });
    const mm = guest.mm();
    const thread = guest.task({ pid: 11, kthread: true, activeMm: mm });
    guest.run(1, thread, mm);
    expect(answer(guest, thread)).toMatchObject({ cr3: mm.cr3, source: 'active_mm' });
  });

  it('is what the CPU has loaded when that is another one by now', () => {
    const guest = new MadeGuest({ live });
    const thread = guest.task({ pid: 11, kthread: true, activeMm: guest.mm() });
    guest.run(1, thread, guest.initMm);
    expect(answer(guest, thread)).toMatchObject({ cr3: guest.initMm.cr3, source: 'loaded_mm' });
  });

  it('is null for a kernel thread off the CPU', () => {
    const guest = new MadeGuest({ live });
    const thread = guest.task({ pid: 12, kthread: true });
    expect(answer(guest, thread)).toMatchObject({ cr3: null, source: 'none' });
  });

  it('is null for a task that has exited', () => {
    const guest = new MadeGuest({ live });
    const zombie = guest.task({ pid: 13, exitState: 32 });
    expect(answer(guest, zombie)).toMatchObject({ cr3: null, source: 'exited' });
  });

  it('is that of its threads for a leader that has exited', () => {
    const guest = new MadeGuest({ live });
    const mm = guest.mm();
    const leader = guest.task({ pid: 14, exitState: 32 });
    guest.task({ pid: 15, of: leader });
    guest.task({ pid: 16, of: leader, mm });
    expect(answer(guest, leader)).toMatchObject({ cr3: mm.cr3, source: 'thread' });
  });

  it('is no longer that of threads that have all exited', () => {
    const guest = new MadeGuest({ live });
    const leader = guest.task({ pid: 14, exitState: 32 });
    guest.task({ pid: 15, of: leader, exitState: 32 });
    expect(answer(guest, leader)).toMatchObject({ cr3: null, source: 'exited' });
  });

  it('has a user half under page-table isolation, and keeps bit 12 without it', () => {
    const isolated = new MadeGuest({ live, pti: true });
    const mm = isolated.mm();
    const { cr3, userCr3 } = answer(isolated, isolated.task({ pid: 10, mm }));
    expect([cr3, userCr3]).toEqual([mm.cr3, mm.cr3 | 0x1000n]);
    const plain = new MadeGuest({ live });
    const odd = plain.mm({ odd: true });
    expect(odd.cr3 & 0x1000n).toBe(0x1000n);
    expect(answer(plain, plain.task({ pid: 10, mm: odd })).cr3).toBe(odd.cr3);
  });

  it.each([
    ['has another entry for the kernel', { text: 0x1063n }],
    ['is not on a page of its own', { skew: 8n }],
  ])('is an error when the page directory %s', (_, page) => {
    const guest = new MadeGuest({ live });
    const task = guest.task({ pid: 10, mm: guest.mm(page) });
    const listed = guest.tasks().list()[0]!;
    expect(() => listed.cr3).toThrow(CorruptError);
    expect(() => listed.cr3).toThrow(/^task 10 at 0xffff8880[0-9a-f]+ names an address space/);
    expect(() => guest.tasks().cr3(task.pid)).toThrow(CorruptError);
    expect(listed.toJSON()).toMatchObject({ cr3: null, cr3Source: 'corrupt' });
  });

  it('is an error when mm leads nowhere', () => {
    const guest = new MadeGuest({ live });
    const task = guest.task({ pid: 10, mm: guest.mm() });
    guest.set(task, 'mm', 0x10n);
    expect(() => guest.tasks().list()[0]!.cr3).toThrow(CorruptError);
    expect(() => guest.tasks().find(10)!.cr3).toThrow(CorruptError);
  });
});

describe('a failed read', () => {
  it('of a thread makes no exited process of its leader, whichever it is', () => {
    const guest = new MadeGuest();
    const mm = guest.mm();
    const leader = guest.task({ pid: 14, exitState: 32 });
    guest.task({ pid: 15, of: leader, mm });
    const tasks = guest.tasks();
    const { native } = guest;
    const from = native.log.length;
    expect(tasks.list()[0]!.cr3).toBe(mm.cr3);
    const reads = native.log.length - from;
    let told = 0;
    for (let n = 1; n <= reads; n++) {
      native.emptyAt = native.log.length + n;
      let cr3: bigint | null | undefined;
      try {
        cr3 = tasks.list()[0]!.cr3;
      } catch (error) {
        expect(error).toHaveProperty('code');
      }
      if (cr3 === undefined) continue;
      told++;
      expect(cr3, `read ${n} of ${reads} failed`).toBe(mm.cr3);
    }
    expect(told).toBeGreaterThan(5);
  });

  it('of what says which process a task is of makes no exited one of it', () => {
    const guest = new MadeGuest();
    const leader = guest.task({ pid: 14, exitState: 32 });
    guest.task({ pid: 15, of: leader, mm: guest.mm() });
    const tasks = guest.tasks();
    const read = guest.native.peek.bind(guest.native);
    const signal = leader.address - PAGE_OFFSET + at('task_struct.signal');
    guest.native.peek = (address, into) => (address === signal ? 0 : read(address, into));
    expect(() => tasks.list()[0]!.cr3).toThrow(/^the task at 0xffff8880[0-9a-f]+ cannot be read$/);
  });
});

describe('the tasks of a CR3', () => {
  const pids = (guest: MadeGuest, value: bigint) =>
    guest
      .tasks()
      .withCr3s([value])[0]!
      .map(({ pid }) => pid);

  function shared() {
    const guest = new MadeGuest({ pti: true });
    const mm = guest.mm();
    const leader = guest.task({ pid: 20, mm });
    guest.task({ pid: 21, of: leader, mm });
    guest.task({ pid: 22, mm, startTime: 1n });
    const borrower = guest.task({ pid: 23, kthread: true, activeMm: mm });
    guest.run(0, borrower, mm);
    guest.task({ pid: 24, mm: guest.mm() });
    guest.task({ pid: 25, kthread: true });
    return { guest, mm };
  }

  it('are its threads, those who share it, and the kernel threads that borrow it', () => {
    const { guest, mm } = shared();
    expect(pids(guest, mm.cr3)).toEqual([20, 21, 22, 23]);
  });

  it.each([
    ['PCID', (cr3: bigint) => cr3 | 0x5n],
    ['no flush', (cr3: bigint) => cr3 | (1n << 63n)],
    ['LAM', (cr3: bigint) => cr3 | (3n << 61n)],
    ['the user half', (cr3: bigint) => cr3 | 0x1000n | 0x805n],
  ])('are the same with %s', (_, flagged) => {
    const { guest, mm } = shared();
    expect(pids(guest, flagged(mm.cr3))).toEqual([20, 21, 22, 23]);
  });

  it('are told from those of the next page where there is no isolation', () => {
    const guest = new MadeGuest();
    const mm = guest.mm();
    guest.task({ pid: 20, mm });
    expect(pids(guest, mm.cr3 | 0x1000n)).toEqual([]);
    expect(pids(guest, mm.cr3)).toEqual([20]);
  });

  it('include the idle task of a CPU that has it loaded', () => {
    const { guest, mm } = shared();
    guest.set(guest.idle[1]!, 'active_mm', mm.address);
    guest.run(1, guest.idle[1]!, mm);
    expect(pids(guest, mm.cr3)).toEqual([20, 21, 22, 23, 0]);
  });

  it('name those of which nobody can tell', () => {
    const { guest, mm } = shared();
    guest.task({ pid: 26, mm: guest.mm({ text: 0n }) });
    const found = guest.tasks().withCr3s([mm.cr3])[0]!;
    expect(found.map(({ pid }) => pid)).toEqual([20, 21, 22, 23]);
    expect(found.corrupt.map(({ pid }) => pid)).toEqual([26]);
  });
});
