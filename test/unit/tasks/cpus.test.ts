import { describe, expect, it, vi } from 'vitest';
import { fakeAddon } from '../support/fake-memory.js';
import { MadeGuest } from './support/made-guest.js';

vi.mock('../../../lib/addon.js', () => ({ addon: () => fakeAddon }));

/** A guest whose CPU 0 runs one task of two. */
function two(options: ConstructorParameters<typeof MadeGuest>[0] = {}) {
  const guest = new MadeGuest({ cpus: 1, ...options });
  const spaces = [guest.mm(), guest.mm()] as const;
  const one = guest.task({ pid: 30, mm: spaces[0] });
  const other = guest.task({ pid: 31, mm: spaces[1] });
  guest.run(0, one, spaces[0]);
  const steps = [
    () => guest.count(0),
    () => guest.queue(0, other),
    () => guest.load(0, 'switching'),
    () => guest.load(0, spaces[1]),
    () => guest.current(0, other),
    // And back.
    () => guest.count(0),
    () => guest.queue(0, one),
    () => guest.load(0, spaces[0]),
    () => guest.current(0, one),
  ];
  const space = new Map([one, other].map((task, i) => [task.pid, spaces[i]!]));
  return { guest, steps, space, spaces, one };
}

const look = (guest: MadeGuest) => guest.tasks().cpus()[0]!;

describe('what a CPU runs', () => {
  it('is its current task and the page table that is loaded', () => {
    const { guest, spaces } = two();
    const { cpu, task } = look(guest);
    expect(task.pid).toBe(30);
    expect(cpu).toMatchObject({ loadedMm: spaces[0].address, switching: false, error: undefined });
  });

  /**
   * Every step of a switch after every read: as a CPU that runs on, one that stops on the way, and
   * one that switches back.
   */
  it.each([[{}], [{ without: ['runqueues'] }]])(
    'is never a task with the page table of another (%o)',
    (options) => {
      const reads = 40;
      let pairs = 0;
      for (let first = 1; first < reads; first++) {
        for (const pause of [0, 1, 2, 4, 7]) {
          for (const stop of [1, 2, 3, 4, 5, 9]) {
            const { guest, steps, space } = two(options);
            const tasks = guest.tasks();
            let at = guest.native.log.length + first;
            const left = steps.slice(0, stop);
            guest.native.onRead = (read) => {
              while (left.length > 0 && read >= at) {
                left.shift()!();
                at += pause;
              }
            };
            const { cpu, task } = tasks.cpus()[0]!;
            if (cpu.switching) continue;
            pairs++;
            const own = space.get(task.pid)!;
            expect(cpu.loadedMm, `read ${first}, pause ${pause}, ${stop} steps`).toBe(own.address);
            expect(task.cr3).toBe(own.cr3);
          }
        }
      }
      expect(pairs).toBeGreaterThan(200);
    },
  );

  it('is not a task with the page table of one that ran in between', () => {
    for (let there = 1; there < 24; there++) {
      for (let back = 1; back < 24; back++) {
        const { guest, steps, space } = two();
        const tasks = guest.tasks();
        const from = guest.native.log.length;
        guest.native.onRead = (read) => {
          const due = read < from + there ? 0 : read < from + there + back ? 5 : 9;
          while (9 - steps.length < due) steps.shift()!();
        };
        const { cpu, task } = tasks.cpus()[0]!;
        if (cpu.switching) continue;
        expect(cpu.loadedMm, `${there} ${back}`).toBe(space.get(task.pid)!.address);
      }
    }
  });

  it('is not a task that executes a program, with the page table it had before', () => {
    for (let first = 1; first < 24; first++) {
      for (const pause of [1, 2, 4, 7, 1000]) {
        const { guest, one, spaces } = two();
        const tasks = guest.tasks();
        const at = guest.native.log.length + first;
        const steps = [
          () => guest.set(one, 'mm', spaces[1].address),
          () => guest.load(0, spaces[1]),
        ];
        let done = 0;
        guest.native.onRead = (read) => {
          while (done < steps.length && read >= at + done * pause) steps[done++]!();
        };
        const { cpu, task } = tasks.cpus()[0]!;
        if (!cpu.switching) expect(cpu.loadedPgd, `read ${first}, pause ${pause}`).toBe(task.pgd);
      }
    }
  });

  it('is told to be switching where a CPU does not get past it', () => {
    for (const stop of [2, 3, 4]) {
      const { guest, steps } = two();
      for (const step of steps.slice(0, stop)) step();
      const { cpu } = look(guest);
      expect(cpu, `after ${stop} steps`).toMatchObject({ switching: true, loadedPgd: 0n });
    }
  });

  it('is known of a still guest although it is not the task that it belongs to', () => {
    const { guest, steps, spaces } = two({ live: false });
    for (const step of steps.slice(0, 4)) step();
    const { cpu, task } = look(guest);
    expect(task.pid).toBe(30);
    expect(cpu).toMatchObject({ switching: true, loadedMm: spaces[1].address });
  });

  it('is an error when what is loaded is no page table', () => {
    const { guest, one } = two();
    guest.run(0, one, guest.mm({ text: 0n }));
    const { cpu } = look(guest);
    expect(cpu).toMatchObject({ loadedPgd: 0n });
    expect(cpu.error?.code ?? 'switching').toMatch(/VMI_CORRUPT|switching/);
    expect(cpu.error !== undefined || cpu.switching).toBe(true);
  });
});

describe('a kernel thread that leaves its CPU while it is read', () => {
  it('is not said to run on what its borrowed address space has become', () => {
    const guest = new MadeGuest({ cpus: 1 });
    const mm = guest.mm();
    const next = guest.mm();
    const thread = guest.task({ pid: 40, kthread: true, activeMm: mm });
    guest.run(0, thread, mm);
    const tasks = guest.tasks();
    // As soon as its active_mm was read: it sleeps, and its mm is freed and another's by now.
    const from = guest.native.log.length;
    let rows = 0;
    guest.native.onRead = () => {
      const last = guest.native.log.at(-1)!;
      const parent = (thread.address - 0xffff_8880_0000_0000n + 0x70n).toString(16);
      if (last !== `read 0x${parent}+8`) return;
      rows++;
      guest.native.onRead = undefined;
      guest.set(thread, 'active_mm', 0n);
      guest.run(0, guest.idle[0]!, guest.initMm);
      guest.write(mm.address + 0x48n, next.cr3 + 0xffff_8880_0000_0000n);
    };
    const found = tasks.list().find(({ pid }) => pid === 40)!;
    expect([rows, guest.native.log.length > from]).toEqual([1, true]);
    expect([found.cr3, found.cr3Source]).toEqual([null, 'none']);
  });
});
