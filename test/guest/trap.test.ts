import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attach, type Guest, type Task } from '../../lib/index.js';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';

const EXAMPLE = fileURLToPath(new URL('../../examples/stop-when.mjs', import.meta.url));
const CHILD = fileURLToPath(new URL('../lifecycle/trap.mjs', import.meta.url));

let lab: LabGuest;
let guest: Guest;
/** A task that forks and waits all the time. */
let churn: Task;

beforeAll(async () => {
  lab = await bootGuest({ flavour: 'cloud', memory: 256, cpus: 1, tasks: 10, backend: 'memfd' });
  await lab.command('churn on');
  guest = await attach(`qemu:${lab.pid}`);
  churn = guest.tasks().find(({ comm }) => comm === 'churn')!;
});

afterAll(async () => {
  await guest?.close();
  await lab?.close();
});

/** How often a task was switched away from, by the kernel's own account. */
function switchesOf(task: Task): bigint {
  const { memory, types } = guest.kernel;
  const member = (name: string) =>
    memory.readU64(task.address + BigInt(types.offset('task_struct', name)));
  return member('nvcsw') + member('nivcsw');
}

/** The guest runs, no stub is on, and the task that was watched switches without stopping it. */
async function expectFree(): Promise<void> {
  const devices = (await lab.qmp('query-chardev')) as { label: string }[];
  expect(devices.map(({ label }) => label)).not.toContain('gdb');
  const before = switchesOf(churn);
  for (let tries = 0; tries < 200 && switchesOf(churn) < before + 20n; tries++) await sleep(50);
  expect(switchesOf(churn)).toBeGreaterThanOrEqual(before + 20n);
  expect(await lab.qmp('query-status')).toMatchObject({ status: 'running' });
}

/** Where debug stubs listen, of this test and of others. */
function stubFolders(): string[] {
  return readdirSync(tmpdir()).filter((name) => name.startsWith('vmi-stub-'));
}

/** What {@link expectFree} expects may take a guard a moment. */
async function untilFree(): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    const devices = (await lab.qmp('query-chardev')) as { label: string }[];
    const { status } = (await lab.qmp('query-status')) as { status: string };
    if (status === 'running' && !devices.some(({ label }) => label === 'gdb')) break;
    await sleep(100);
  }
  await expectFree();
}

describe('trapped switches', () => {
  it('are all that the kernel counts, one in and one out', async () => {
    let away = 0n;
    let wasOn: boolean | undefined;
    // How far the kernel's account is ahead: it grows with each switch that is not told. It is read
    // while the guest runs, so that some are ahead by the next switch as well.
    const ahead: bigint[] = [];
    for await (const { task, previous, missed, by } of guest.trapSwitches({ pids: [churn.pid] })) {
      expect({ missed, by }).toEqual({ missed: 0, by: 'trapped' });
      const isOn = task.pid === churn.pid;
      expect(isOn ? task.pid : previous!.pid).toBe(churn.pid);
      expect(isOn).not.toBe(wasOn);
      wasOn = isOn;
      if (!isOn) away++;
      if (ahead.push(switchesOf(churn) - away) === 400) break;
    }
    const least = (values: bigint[]) => values.reduce((a, b) => (a < b ? a : b));
    expect(least(ahead.slice(-100))).toBe(least(ahead.slice(0, 100)));
    await expectFree();
  });

  it('tell of up to four threads, and end when those have exited', async () => {
    const child = async () => {
      for (;;) {
        const found = guest.tasks().find(({ comm }) => comm === 'churn-fork' || comm === 'exe');
        if (found !== undefined) return found.pid;
      }
    };
    const stream = guest.trapSwitches({ pids: [churn.pid, await child()] });
    const pids = new Set<number>();
    try {
      for (let taken = 0; taken < 60; taken++) {
        const { value } = await stream.next();
        if (value !== undefined) pids.add(value.task.pid);
      }
    } catch (error) {
      // It may have exited before it was looked up.
      expect(error).toMatchObject({ code: 'VMI_NO_TASK' });
    }
    await stream.return();
    await expectFree();
    expect(() => guest.trapSwitches({ pids: [] })).toThrow(RangeError);
    expect(() => guest.trapSwitches({ pids: [1, 2, 3, 4, 5] })).toThrow(RangeError);
  });

  it('let the guest go on while nobody reads, and miss none', async () => {
    const jiffies = () => guest.kernel.memory.readU64(guest.kernel.symbols.find('jiffies_64')!);
    await using stream = guest.trapSwitches({ pids: [churn.pid] });
    const { value: first } = await stream.next();
    let wasOn = first!.task.pid === churn.pid;
    const before = { time: jiffies(), switches: switchesOf(churn) };
    await sleep(1_000);
    const after = { time: jiffies(), switches: switchesOf(churn) };
    expect(after.time).toBeGreaterThan(before.time + 10n);
    expect(after.switches).toBeGreaterThan(before.switches + 10n);
    const waiting = stream.waiting;
    expect(waiting).toBeGreaterThan(20);
    for (let taken = 0; taken < waiting + 50; taken++) {
      const { value } = await stream.next();
      const isOn = value!.task.pid === churn.pid;
      expect(isOn).not.toBe(wasOn);
      wasOn = isOn;
    }
    await stream.return();
    await expectFree();
  });

  it('end and let the guest go when their reader stays away', async () => {
    await using stream = guest.trapSwitches({ pids: [churn.pid], queue: 5 });
    await stream.next();
    await untilFree();
    const { stops } = stream;
    for (let taken = 0; taken < 5; taken++) expect((await stream.next()).done).toBe(false);
    await expect(stream.next()).rejects.toMatchObject({ code: 'VMI_BUSY' });
    expect(await stream.next()).toEqual({ done: true, value: undefined });
    expect(stream.stops).toBe(stops);
    expect(() => guest.trapSwitches({ pids: [1], queue: 0 })).toThrow(RangeError);
  });

  it('are refused while another stub is on, which stays', async () => {
    const path = `${lab.directory}/another-stub`;
    const human = (line: string) =>
      lab.qmp('human-monitor-command', { 'command-line': line }) as Promise<string>;
    await human(`gdbserver unix:${path},server=on,wait=off`);
    const stream = guest.trapSwitches({ pids: [churn.pid] });
    await expect(stream.next()).rejects.toMatchObject({ code: 'VMI_BUSY' });
    const devices = (await lab.qmp('query-chardev')) as { filename: string }[];
    expect(devices.some(({ filename }) => filename.includes(path))).toBe(true);
    await human('gdbserver none');
    rmSync(path, { force: true });
    await expectFree();
  });

  it('are refused while the guest is stopped, which stays so', async () => {
    await using _ = await guest.pause();
    const stream = guest.trapSwitches({ pids: [churn.pid] });
    await expect(stream.next()).rejects.toMatchObject({ code: 'VMI_BUSY' });
    expect(await lab.qmp('query-status')).toMatchObject({ running: false });
  });
});

describe('pauseWhen', () => {
  it('stops the guest when the task is on a CPU', async () => {
    const { pause, cpu, task, registers } = await guest.pauseWhen({ pid: churn.pid });
    expect(await lab.qmp('query-status')).toMatchObject({ running: false });
    expect({ cpu, pid: task.pid }).toEqual({ cpu: 0, pid: churn.pid });
    expect(guest.cr3Base(registers.cr3!)).toBe(guest.pidToCr3(churn.pid));
    expect(guest.cpus()[0]!.task.pid).toBe(churn.pid);
    const [held] = await guest.registers();
    expect(held!.cr3).toBe(registers.cr3);
    await pause.resume();
    await expectFree();
  });

  it('is a program in examples/ that stops the guest when a process runs', async () => {
    const { stdout } = await promisify(execFile)(process.execPath, [
      EXAMPLE,
      `qemu:${lab.pid}`,
      String(churn.pid),
      '2',
    ]);
    const turns = stdout.trimEnd().split(/\n(?=\d)/);
    expect(turns).toHaveLength(2);
    const cr3 = `0x${guest.pidToCr3(churn.pid)!.toString(16)}`;
    for (const [index, turn] of turns.entries()) {
      const [title, space, code] = turn.split('\n');
      expect(title).toBe(`${index + 1}: ${churn.pid} churn on CPU 0`);
      expect(space).toBe(`   cr3 ${cr3}, as pidToCr3 says; of churn`);
      expect(code).toMatch(/^ {3}rip 0x[0-9a-f]+, \S+/);
    }
    await expectFree();
  });

  it('can be given up, and leaves nothing behind', async () => {
    const abort = new AbortController();
    const sleeper = guest.tasks().find(({ comm }) => comm === 'filler')!;
    setTimeout(() => abort.abort(), 300);
    await expect(guest.pauseWhen({ pid: sleeper.pid, signal: abort.signal })).rejects.toMatchObject(
      { code: 'VMI_ABORTED' },
    );
    await expectFree();
  });
});

describe('after every ending the guest runs, and no watchpoint is left', () => {
  /** Starts a child and waits until it has seen switches. */
  async function start(ending: string): Promise<{ child: ChildProcess; output(): string }> {
    const child = spawn(process.execPath, [CHILD, `qemu:${lab.pid}`, String(churn.pid), ending], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let text = '';
    child.stdout!.on('data', (chunk) => {
      text += chunk;
    });
    const ended = once(child, 'exit');
    while (!text.includes('watching') && child.exitCode === null) {
      await Promise.race([sleep(20), ended]);
    }
    return { child, output: () => text };
  }

  async function end(child: ChildProcess): Promise<void> {
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  }

  it.each(['break', 'throw', 'return', 'close', 'abort', 'exit', 'uncaught'])(
    '%s',
    async (ending) => {
      const { child } = await start(ending);
      await end(child);
      expect(child.signalCode).toBeNull();
      expect(child.exitCode).toBe(ending === 'uncaught' ? 1 : 0);
      await untilFree();
    },
  );

  it.each([
    ['forever', 'SIGINT'],
    ['forever', 'SIGTERM'],
    ['forever', 'SIGKILL'],
    ['idle', 'SIGKILL'],
    ['held', 'SIGKILL'],
    ['forever', 'SIGHUP'],
  ] as const)('%s, until %s', async (ending, signal) => {
    const before = new Set(stubFolders());
    const { child } = await start(ending);
    const folders = stubFolders().filter((name) => !before.has(name));
    child.kill(signal);
    await end(child);
    expect(child.signalCode).toBe(signal);
    await untilFree();
    const remaining = () => stubFolders().filter((name) => folders.includes(name));
    for (let tries = 0; tries < 100 && remaining().length > 0; tries++) await sleep(100);
    expect(remaining()).toEqual([]);
  });

  it('a process that is stopped, and one whose reader never comes back, while those last', async () => {
    const { child, output } = await start('stopped');
    child.kill('SIGSTOP');
    await untilFree();
    child.kill('SIGCONT');
    await end(child);
    expect(output()).toContain('VMI_CLOSED');
    await untilFree();
    const { child: busy } = await start('busy');
    await untilFree();
    expect(busy.exitCode).toBeNull();
    await end(busy);
    await untilFree();
  });

  it('a stub that somebody else takes away', async () => {
    const { child, output } = await start('lost');
    await lab.qmp('human-monitor-command', { 'command-line': 'gdbserver none' });
    await end(child);
    expect(output()).toContain('VMI_CLOSED');
    await untilFree();
  });
});
