import { readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ReportedSwitch } from '../../../lib/monitor/reported-switches.js';
import { RunningTask, type Switch } from '../../../lib/monitor/switch.js';
import type { TaskEvent } from '../../../lib/monitor/task-watch.js';
import { type FakeGuest, vmi } from './fake-guest.js';

const TARGET = 'qemu:4242';

const SHELL = new RunningTask({
  address: 0xffff_8880_0000_1000n,
  pid: 7,
  tgid: 7,
  startTime: 5n,
  mm: 0xffff_8880_0000_2000n,
  flags: 0,
  comm: Buffer.from('sh\x1b[31m\0', 'latin1'),
});
const IDLE = new RunningTask({
  ...{ address: 0xffff_ffff_8200_0000n, pid: 0, tgid: 0, startTime: 0n, mm: 0n, flags: 0 },
  comm: Buffer.from('swapper/0\0'),
});

const EVENTS: readonly Switch[] = [IDLE, SHELL, IDLE].map((task, number) => ({
  time: 1_000_000n * BigInt(number + 1),
  began: null,
  seenUntil: null,
  cpu: 0,
  cr3: 0x3000n,
  task,
  previous: number === 1 ? IDLE : null,
  missed: number === 2 ? 4 : 0,
  count: 5n,
  by: 'sampled' as const,
}));

const REPORTS: readonly ReportedSwitch[] = [SHELL, null, null].map((task, number) => ({
  ...{ time: 1_000_000n * BigInt(number + 1), began: null, seenUntil: null, count: null },
  ...{ cpu: 1, cr3: 0x3000n, task, kernel: number === 1, previous: number === 1 ? SHELL : null },
  ...{ missed: number === 2 ? null : 0, by: 'reported' },
}));

/** A guest whose streams hold these, and then end. */
function streaming(guest: FakeGuest, asked: unknown[]): void {
  const stream = <T>(events: readonly T[]) => ({
    ...{ limits: ['it shows nothing'], missed: 4, cpus: [0], clock: undefined },
    statistics: { seen: 3, rate: 3_000 },
    async *[Symbol.asyncIterator]() {
      yield* events;
    },
    async [Symbol.asyncDispose]() {},
  });
  const born: TaskEvent = {
    kind: 'birth',
    time: process.hrtime.bigint(),
    lost: 2,
    task: {
      ...{ pid: 9, tgid: 9, ppid: null, comm: 'new', uid: null, kthread: false },
      ...{ startTime: 1n, address: 1n, mm: 2n, cr3: 0x5000n },
    },
  };
  const switches = (options: { readonly by?: string } | undefined) => {
    asked.push(options);
    return options?.by === 'reported' ? { ...stream(REPORTS), dropped: 2 } : stream(EVENTS);
  };
  Object.assign(guest, {
    target: TARGET,
    watchSwitches: switches,
    trapSwitches: switches,
    watchTasks: () => stream([born]),
  });
}

describe('vmi watch', () => {
  it('prints a line a switch, and what was missed', async () => {
    const asked: { pids?: number[]; cpus?: number[]; rate?: number }[] = [];
    const line = ['watch', TARGET, '--pid', '7', '--cpu', '0', '--rate', '500'];
    const { code, stdout, stderr } = await vmi(line, (guest) => streaming(guest, asked));
    expect(code).toBe(0);
    expect(stdout.split('\n').slice(1)).toEqual([
      '    0.000000    0        0        0         0x3000         idle',
      '    0.001000    0        7        7         0x3000         sh\\x1b[31m         0 idle',
      '    0.002000    0        0        0         0x3000      +4 idle',
      '',
    ]);
    expect(stderr).toBe(
      'vmi: it shows nothing\nvmi: 3 shown, 3 seen, 4 missed, at 3000 looks a second\n',
    );
    expect(asked[0]).toMatchObject({ pids: [7], cpus: [0], rate: 500 });
  });

  it('prints what the hypervisor reports, and whose nobody knows', async () => {
    const asked: { pids?: number[]; by?: string }[] = [];
    const use = (guest: FakeGuest) => streaming(guest, asked);
    const { code, stdout, stderr } = await vmi(['watch', TARGET, '--reported'], use);
    expect(code).toBe(0);
    expect(stdout.split('\n')).toEqual([
      '        TIME  CPU      PID     TGID            CR3  MISSED COMM               BEFORE',
      '    0.000000    1        7        7         0x3000         sh\\x1b[31m',
      '    0.001000    1        -        -         0x3000         (kernel)           7 sh\\x1b[31m',
      '    0.002000    1        -        -         0x3000       ? (gone)',
      '',
    ]);
    expect(stderr).toBe('vmi: 3 shown, 2 dropped\n');
    expect(asked[0]).toMatchObject({ by: 'reported' });
    const { stdout: json } = await vmi(
      ['watch', TARGET, '--reported', '--pid', '7', '--json'],
      use,
    );
    expect(asked[1]).toMatchObject({ by: 'reported', pids: [7] });
    expect(
      json
        .trim()
        .split('\n')
        .map((row) => JSON.parse(row))[1],
    ).toMatchObject({
      ...{ cpu: 1, task: null, kernel: true, previous: { pid: 7 }, by: 'reported' },
    });
  });

  it('prints JSON, tasks, and trapped switches', async () => {
    const asked: { pids?: number[] }[] = [];
    const use = (guest: FakeGuest) => streaming(guest, asked);
    const json = await vmi(['watch', TARGET, '--json'], use);
    const rows = json.stdout
      .trim()
      .split('\n')
      .map((row) => JSON.parse(row));
    expect(rows[1]).toMatchObject({ cpu: 0, cr3: '0x3000', task: { pid: 7 }, by: 'sampled' });
    const tasks = await vmi(['watch', TARGET, '--tasks'], use);
    expect(tasks.stdout).toMatch(/birth +9 +9 +\? +0x5000 +2 new\n$/);
    await vmi(['watch', TARGET, '--trap', '--pid', '7', '--pid', '8'], use);
    expect(asked.at(-1)).toMatchObject({ pids: [7, 8] });
  });

  it.each([
    [['watch', TARGET, '--trap'], /--trap takes one to four --pid/],
    [['watch', TARGET, '--tasks', '--pid', '1'], /do not go together/],
    [['watch', TARGET, '--rate', '0'], /Expected --rate/],
    [['watch', TARGET, '--seconds', 'x'], /Expected --seconds/],
    [['watch', TARGET, '--cpu', 'a'], /Expected --cpu/],
    [['watch', TARGET, '--pid', '-1'], /received '-1'/],
    [['top', TARGET, '--once', '--every', '0'], /Expected --every/],
    [['search', TARGET, 'x', '--max', '0'], /Expected --max/],
    [['trace', TARGET], /missing -o FILE/],
    [['trace', TARGET, '-o', '/x', '--format', 'pdf'], /Expected --format/],
    [['top', TARGET], /needs a terminal/],
    [['top', TARGET, '--once', '--sort', 'x'], /Expected --sort/],
  ])('refuses %j', async (line, message) => {
    const { code, stderr } = await vmi(line);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
  });
});

describe('vmi trace', () => {
  it('writes slices to a file', async () => {
    const file = join(tmpdir(), `vmi-trace-${process.pid}.csv`);
    const { code, stderr } = await vmi(['trace', TARGET, '-o', file], (guest) =>
      streaming(guest, []),
    );
    const lines = readFileSync(file, 'utf8').split('\n');
    rmSync(file);
    expect(code).toBe(0);
    expect(stderr).toBe(`vmi: 4 slices in ${file}: 3 switches seen, 4 missed\n`);
    expect(lines[2]).toBe('1000000,2000000,0,7,7,sh\\x1b[31m,0x3000,own,sampled,0');
  });
});

it.each(['watch', 'trace'])('%s: a CPU that the guest has not is a wrong option', async (name) => {
  const words = name === 'trace' ? ['-o', join(tmpdir(), 'never-written')] : [];
  const refused = await vmi([name, TARGET, '--cpu', '99', ...words], (guest) => {
    Object.assign(guest, {
      watchSwitches() {
        throw new RangeError('Expected cpus of the guest that are online (0) but received 99');
      },
    });
  });
  expect(refused).toMatchObject({
    code: 2,
    stderr: `vmi: Expected cpus of the guest that are online (0) but received 99; see 'vmi ${name} --help'\n`,
  });
});
