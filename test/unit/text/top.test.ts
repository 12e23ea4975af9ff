import { describe, expect, it } from 'vitest';
import type { Usage } from '../../../lib/monitor/task-usage.js';
import type { Task } from '../../../lib/tasks/task.js';
import { type TopView, topFrame } from '../../../lib/text/top.js';

function usage(rows: readonly [pid: number, ppid: number, comm: string, share: number][]): Usage {
  return {
    seconds: 1,
    cpus: 2,
    switches: 1234.4,
    tasks: rows.map(([pid, ppid, comm, share]) => ({
      task: {
        ...{ pid, tgid: pid, ppid, comm, uid: 0, state: 'S', kthread: pid === 2, leader: true },
      } as unknown as Task,
      cr3: pid === 2 ? null : 0x3ace_c000n,
      share,
      switches: pid,
    })),
  };
}

const VIEW: TopView = {
  sort: 'cpu',
  filter: '',
  tree: false,
  threads: false,
  scroll: 0,
  width: 80,
  height: 10,
  foot: 'q quit',
};
const ROWS = usage([
  [1, 0, 'init', 0.01],
  [2, 0, 'kthreadd', 0],
  [30, 1, 'a process with a long name', 0.5],
  [31, 30, 'child', 1.2],
]);

const frame = (view: Partial<TopView> = {}, rows = ROWS) =>
  topFrame('qemu:1  Linux 6.1', rows, { ...VIEW, ...view }).lines;

describe('topFrame', () => {
  it('is as large as the terminal, at any width', () => {
    for (const width of [1, 5, 40, 80, 200]) {
      for (const height of [1, 4, 10, 60]) {
        const lines = frame({ width, height });
        expect(lines).toHaveLength(height);
        for (const line of lines)
          expect(line.length, `${width}x${height}`).toBeLessThanOrEqual(width);
      }
    }
  });

  it('shows what fits', () => {
    expect(frame({ width: 40 }).slice(1, 5)).toEqual([
      '4 processes, 2 CPUs, 86 % busy, 1234 sw…',
      '    PID   %CPU COMM                     ',
      '     31  120.0 child',
      '     30   50.0 a process with a long na…',
    ]);
    expect(frame({ width: 200 })[3]).toBe(
      '     31      31      30      0 S  120.0      31   0x3acec000 child',
    );
  });

  it('sorts, filters, scrolls and hangs children on their parents', () => {
    const pids = (view: Partial<TopView>) =>
      frame({ width: 40, ...view })
        .slice(3, -1)
        .filter((line) => line !== '')
        .map((line) => Number(line.slice(0, 7)));
    expect(pids({ sort: 'pid' })).toEqual([1, 2, 30, 31]);
    expect(pids({ sort: 'switches' })).toEqual([31, 30, 2, 1]);
    expect(pids({ sort: 'name' })).toEqual([30, 31, 1, 2]);
    expect(pids({ filter: '3' })).toEqual([31, 30]);
    expect(pids({ filter: 'IN' })).toEqual([1]);
    expect(pids({ scroll: 2, sort: 'pid' })).toEqual([30, 31]);
    expect(pids({ tree: true })).toEqual([1, 30, 31, 2]);
    expect(frame({ tree: true, width: 40 })[5]).toBe('     31  120.0     child');
  });

  it('shows every task of a guest whose parents go in circles, once at most', () => {
    const rows = usage([
      [5, 6, 'a', 0],
      [6, 5, 'b', 0],
      [7, 7, 'c', 0],
    ]);
    expect(frame({ tree: true }, rows).filter((line) => / c$/.test(line))).toHaveLength(1);
  });
});
