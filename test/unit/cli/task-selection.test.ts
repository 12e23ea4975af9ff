import { describe, expect, it } from 'vitest';
import { textWidth } from '../../../lib/text/width.js';
import { type FakeGuest, fakeTask, vmi } from './fake-guest.js';

const TARGET = 'qemu:4242';
const TASKS = [
  fakeTask({ pid: 1, comm: 'init', ppid: 0, uid: 0, cr3: '0x9000', startTime: '1500000000' }),
  fakeTask({ pid: 2, comm: 'kthreadd', ppid: 0, uid: 0, kthread: true, cr3: null }),
  fakeTask({ pid: 5, comm: 'kworker/0:1', ppid: 2, uid: 0, kthread: true, state: 'I', cr3: null }),
  fakeTask({ pid: 7, comm: 'sshd', ppid: 1, uid: 0, cr3: '0x3000', startTime: '9000000000' }),
  fakeTask({ pid: 8, comm: 'ssh-agent', ppid: 7, uid: 1000, state: 'R', cr3: '0x12000' }),
];

const use = (guest: FakeGuest) => void guest.tasksNow.splice(0, guest.tasksNow.length, ...TASKS);
/** The PIDs that a list has, in its order. */
async function pids(...words: string[]) {
  const { code, stdout, stderr } = await vmi(['ps', TARGET, '--columns', 'pid', ...words], use);
  expect([code, stderr]).toEqual([0, '']);
  return stdout.trim().split('\n').slice(1).map(Number);
}

describe('vmi ps', () => {
  it('prints the columns that were chosen, in their order', async () => {
    const { stdout } = await vmi(['ps', TARGET, '--columns', 'comm,start,pid', '--uid', '0'], use);
    expect(stdout).toBe(
      [
        'COMM           START  PID',
        'init           1.500    1',
        '[kthreadd]     0.001    2',
        '[kworker/0:1]  0.001    5',
        'sshd           9.000    7',
        '',
      ].join('\n'),
    );
  });

  it('lists the tasks that were asked for', async () => {
    expect(await pids('--comm', 'ssh*')).toEqual([7, 8]);
    expect(await pids('--comm', 'sshd', '--comm', '*it')).toEqual([1, 7]);
    // No part of a name, and no regular expression.
    expect((await vmi(['ps', TARGET, '--comm', 'ssh'], use)).code).toBe(1);
    expect((await vmi(['ps', TARGET, '--comm', 'ss.d'], use)).code).toBe(1);
    expect(await pids('--uid', '1000')).toEqual([8]);
    expect(await pids('--state', 'RI')).toEqual([5, 8]);
    expect(await pids('--only', 'kernel')).toEqual([2, 5]);
    expect(await pids('--only', 'user', '--state', 'S')).toEqual([1, 7]);
    expect(await vmi(['ps', TARGET, '--uid', '42'], use)).toMatchObject({
      code: 1,
      stdout: '',
      stderr: 'vmi: none of 5 tasks is as asked\n',
    });
  });

  it('sorts by numbers as numbers, and what is not there first', async () => {
    expect(await pids('--sort', 'cr3')).toEqual([2, 5, 7, 1, 8]);
    expect(await pids('--sort', 'comm', '-r')).toEqual([7, 8, 5, 2, 1]);
    const { stdout } = await vmi(['ps', TARGET, '--json', '--sort', 'cr3'], use);
    expect(JSON.parse(stdout.split('\n')[4]!).pid).toBe(8);
  });

  it('draws a tree, whatever the guest says of parents', async () => {
    const tree = async (change: (guest: FakeGuest) => void) =>
      (await vmi(['ps', TARGET, '--tree', '--columns', 'pid,comm'], change)).stdout;
    expect(await tree(use)).toBe(
      [
        'PID  COMM',
        '  1  init',
        '  7    sshd',
        '  8      ssh-agent',
        '  2  [kthreadd]',
        '  5    [kworker/0:1]',
        '',
      ].join('\n'),
    );
    // Two that are each other's parent, one that is its own, one whose parent is not listed.
    const liars = await tree((guest) => {
      const parents = [
        [11, 12],
        [12, 11],
        [13, 13],
        [14, 99],
      ] as const;
      const tasks = parents.map(([pid, ppid]) => fakeTask({ pid, ppid, comm: `t${pid}` }));
      guest.tasksNow.splice(0, guest.tasksNow.length, ...tasks);
    });
    expect(liars.split('\n').slice(1, 5).sort()).toEqual([
      ' 11  t11',
      ' 12    t12',
      ' 13  t13',
      ' 14  t14',
    ]);
    // Very deep, and no wider for it.
    const deep = await tree((guest) => {
      const tasks = Array.from({ length: 5_000 }, (_, i) =>
        fakeTask({ pid: i + 1, ppid: i, comm: 'deep' }),
      );
      guest.tasksNow.splice(0, guest.tasksNow.length, ...tasks);
    });
    expect(deep.split('\n')).toHaveLength(5_002);
    expect(Math.max(...deep.split('\n').map((line) => line.length))).toBeLessThan(100);
  });

  it('refuses what is no column, user or state, and what goes together with nothing', async () => {
    const message = async (...words: string[]) => {
      const { code, stderr } = await vmi(['ps', TARGET, ...words], use);
      expect(code).toBe(2);
      return stderr;
    };
    expect(await message('--columns', 'pid,nosuch')).toMatch(/no column 'nosuch'; columns are pid/);
    expect(await message('--sort', 'missing')).toMatch(/no column 'missing'/);
    expect(await message('--uid', 'root')).toMatch(/Expected --uid as the number of a user/);
    expect(await message('--state', 'Q')).toMatch(/Expected --state as letters/);
    expect(await message('--only', 'both')).toMatch(/Expected --only as user or kernel/);
    expect(await message('--tree', '--sort', 'pid')).toMatch(/do not go together/);
    expect(await message('--tree', '--json')).toMatch(/do not go together/);
    expect(await message('--cross', '--uid', '0')).toMatch(/--cross and --uid do not go together/);
  });

  it('keeps columns straight beside characters of two cells', async () => {
    const { stdout } = await vmi(['ps', TARGET, '--columns', 'comm,pid'], (guest) => {
      const names = ['データベース', 'ｶﾀｶﾅ', '한국', '🚀x', 'e\u0301e', 'plain'];
      const tasks = names.map((comm, i) => fakeTask({ pid: i + 1, comm }));
      guest.tasksNow.splice(0, guest.tasksNow.length, ...tasks);
    });
    // The bytes of what was written.
    const lines = Buffer.from(stdout, 'latin1').toString().trimEnd().split('\n');
    // Cells as wcwidth(3) counts them: of the names 12, 4, 4, 3, 2 and 5.
    expect(lines.map(textWidth)).toEqual(Array(7).fill(17));
    expect(lines[2]).toBe(`ｶﾀｶﾅ${' '.repeat(8 + 2 + 2)}2`);
    expect(lines[5]).toBe(`e\u0301e${' '.repeat(10 + 2 + 2)}5`);
  });
});
