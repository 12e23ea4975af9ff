import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openLibvmi } from '../../lib/memory/libvmi/libvmi.js';
import { guardsOf, hostsOf, runs } from './support/hosts.js';
import { StandIn } from './support/stand-in.js';

const PROGRAM = fileURLToPath(new URL('../../build/Release/libvmi_host', import.meta.url));
const ADDON = fileURLToPath(new URL('../../build/Release/vmi_addon.node', import.meta.url));
const standIn = new StandIn();
const file = join(standIn.folder, 'xen');
const DOMAIN = '7';
const NAMES = ['STANDIN_XEN', 'STANDIN_RAM', 'STANDIN_EVENTS', 'LIBVMI_XENCTRL'];
const AT = { monitor: 0, gone: 1, paused: 2, taken: 4 } as const;

/** The domain of a Xen that is played by the stand-in. */
const xen = {
  get(what: keyof typeof AT): number {
    const bytes = Buffer.alloc(8);
    const fd = openSync(file, 'r');
    readSync(fd, bytes, 0, 8, 0);
    closeSync(fd);
    return what === 'taken' ? bytes.readUInt32LE(AT.taken) : bytes[AT[what]]!;
  },
  set(what: keyof typeof AT, value: number): void {
    const fd = openSync(file, 'r+');
    writeSync(fd, Buffer.of(value), 0, 1, AT[what]);
    closeSync(fd);
  },
};

/** A file that other processes have mapped must not be replaced. */
function reset(): void {
  writeFileSync(file, Buffer.alloc(4096));
}

const open = (deadline = 5_000) =>
  openLibvmi({
    driver: 'xen',
    name: standIn.ram,
    library: standIn.library,
    guard: false,
    deadline,
  });

async function waitFor(condition: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 1_100 && !condition(); i++)
    await new Promise((resolve) => setTimeout(resolve, 20));
  expect(condition(), what).toBe(true);
}

/** Listens, and waits until the first write has come. */
async function listen(deadline?: number) {
  const memory = await open(deadline);
  const stream = memory.cr3Writes();
  await stream.next();
  const host = hostsOf(process.pid)[0]!;
  const guard = guardsOf(host)[0]!;
  expect([xen.get('monitor'), runs(host), runs(guard)]).toEqual([1, true, true]);
  /** What the stream ends with. */
  const end = async () => {
    try {
      for await (const _ of stream);
      return undefined;
    } catch (error) {
      return error as Error & { code: string };
    }
  };
  return { memory, stream, host, guard, end };
}

/** Nothing is left of listening, and the guest runs. */
async function isFree(...processes: number[]): Promise<void> {
  await waitFor(() => xen.get('monitor') === 0, 'the monitor is off');
  expect(xen.get('paused')).toBe(0);
  await waitFor(() => !processes.some(runs), 'no process is left');
}

beforeEach(() => {
  reset();
  standIn.order();
  Object.assign(process.env, {
    STANDIN_XEN: file,
    STANDIN_RAM: standIn.ram,
    STANDIN_EVENTS: '1000000000,3',
    LIBVMI_XENCTRL: standIn.library,
  });
});
afterEach(async () => {
  delete process.env.STANDIN_DESTROY_MS;
  await waitFor(() => hostsOf(process.pid).length === 0, 'no host process is left');
  standIn.calls();
});
afterAll(() => {
  for (const name of NAMES) delete process.env[name];
  standIn.remove();
});

test('leaving the loop turns the monitor off, and pauses the guest no longer than libvmi does', async () => {
  const { memory, stream, host, guard } = await listen();
  standIn.calls();
  await stream.return();
  await isFree(host, guard);
  const calls = standIn.calls();
  expect(calls).not.toContain('vmi_pause_vm');
  expect(calls.slice(calls.indexOf('vmi_clear_event'))).toEqual([
    'vmi_clear_event',
    'vmi_events_listen',
    'vmi_destroy',
  ]);
  await memory.close();
});

describe('the host process', () => {
  test.each(['SIGTERM', 'SIGINT', 'SIGHUP'])('lets go and ends by %s', async (signal) => {
    const { memory, host, guard, end } = await listen();
    process.kill(host, signal);
    expect(await end()).toMatchObject({ code: 'VMI_CRASHED', signal });
    await isFree(host, guard);
    expect(standIn.calls()).toContain('vmi_destroy');
    await memory.close();
  });

  test('ended by SIGKILL: its guard turns the monitor off', async () => {
    const { memory, host, guard, end } = await listen();
    process.kill(host, 'SIGKILL');
    expect(await end()).toMatchObject({ code: 'VMI_CRASHED', signal: 'SIGKILL' });
    expect(xen.get('monitor')).toBe(0);
    await isFree(host, guard);
    await memory.close();
  });

  test('ended by SIGKILL with its guard: the addon turns the monitor off', async () => {
    const { memory, host, guard, end } = await listen();
    process.kill(guard, 'SIGKILL');
    process.kill(host, 'SIGKILL');
    expect(await end()).toMatchObject({ code: 'VMI_CRASHED', signal: 'SIGKILL' });
    expect(xen.get('monitor')).toBe(0);
    await isFree(host, guard);
    await memory.close();
  });

  test('stopped, and on again: it ends, and leaves alone what may be another listener', async () => {
    const { memory, host, guard, end } = await listen();
    process.kill(host, 'SIGSTOP');
    await waitFor(() => xen.get('monitor') === 0, 'the monitor is off while it is stopped');
    standIn.calls();
    // Somebody else listens from now on.
    xen.set('monitor', 1);
    process.kill(host, 'SIGCONT');
    expect(await end()).toMatchObject({
      code: 'VMI_BUSY',
      message: expect.stringContaining('its process was stopped'),
    });
    expect(standIn.calls()).not.toContain('vmi_destroy');
    expect(xen.get('monitor')).toBe(1);
    xen.set('monitor', 0);
    await isFree(host, guard);
    await memory.close();
  });

  test('stopped for good', async () => {
    const { memory, host, guard, end } = await listen(2_000);
    process.kill(host, 'SIGSTOP');
    expect(await end()).toMatchObject({
      code: 'VMI_BUSY',
      message: expect.stringContaining('its process was stopped'),
    });
    await isFree(host, guard);
    await memory.close();
  });

  test('inside a call that does not return: the guest does not wait for it', async () => {
    // vmi_init, vmi_get_vmid, vmi_register_event, vmi_events_listen.
    standIn.order('block', 40, 60_000);
    const { memory, host, guard, end } = await listen();
    expect(await end()).toMatchObject({
      code: 'VMI_BUSY',
      message: expect.stringContaining('took no event for seconds'),
    });
    await isFree(host, guard);
    await memory.close();
  });

  test.each([
    ['runs', 0],
    ['stays paused when it was before', 1],
  ])('ended while libvmi has the guest paused: it %s', async (_, paused) => {
    process.env.STANDIN_DESTROY_MS = '60000';
    const { memory, stream, host, guard } = await listen();
    xen.set('paused', paused);
    standIn.calls();
    const closing = stream.return();
    const calls: string[] = [];
    await waitFor(() => {
      calls.push(...standIn.calls());
      return calls.includes('vmi_destroy');
    }, 'in vmi_destroy');
    if (paused === 0) await waitFor(() => xen.get('paused') === 1, 'paused by libvmi');
    process.kill(host, 'SIGKILL');
    await closing;
    await waitFor(() => xen.get('monitor') === 0, 'the monitor is off');
    await waitFor(() => xen.get('paused') === paused, 'as it was');
    xen.set('paused', 0);
    await isFree(host, guard);
    await memory.close();
  });
});

describe('the guard', () => {
  test('ended: there is another one, not for ever', async () => {
    const { memory, host, guard, end } = await listen();
    const seen = new Set([guard]);
    const ended = end();
    process.kill(guard, 'SIGKILL');
    for (let guards = 2; guards <= 3; guards++) {
      await waitFor(() => guardsOf(host).some((pid) => !seen.has(pid)), 'another guard');
      const next = guardsOf(host).find((pid) => !seen.has(pid))!;
      seen.add(next);
      process.kill(next, 'SIGKILL');
    }
    expect(await ended).toMatchObject({
      code: 'VMI_BUSY',
      message: expect.stringContaining('was ended again and again'),
    });
    await isFree(host, ...seen);
    await memory.close();
  });

  test('that cannot control Xen: nothing is listened to', async () => {
    const memory = await open();
    process.env.LIBVMI_XENCTRL = '/nonexistent';
    await expect(memory.cr3Writes().next()).rejects.toMatchObject({
      code: 'VMI_UNSUPPORTED',
      message: expect.stringContaining('the process that guards the guest'),
    });
    expect(xen.get('monitor')).toBe(0);
    await memory.close();
  });
});

test('a ring that is in use, or was left behind, is its own error and stays what it is', async () => {
  const memory = await open();
  xen.set('monitor', 1);
  await expect(memory.cr3Writes().next()).rejects.toMatchObject({
    code: 'VMI_EVENTS_TAKEN',
    message: expect.stringMatching(/^xen:.*domain 7 are taken.*vmi doctor --fix/),
  });
  expect(xen.get('monitor')).toBe(1);
  await memory.close();
});

test('a domain that is destroyed ends the stream, and is let go of', async () => {
  const { memory, stream, host, guard, end } = await listen();
  xen.set('gone', 1);
  // Before anybody here asks: a process that holds its memory keeps the domain.
  const calls: string[] = [];
  await waitFor(() => {
    calls.push(...standIn.calls());
    return calls.includes('vmi_destroy');
  }, 'let go of');
  expect(await end()).toMatchObject({
    code: 'VMI_CLOSED',
    message: expect.stringContaining('the guest has ended'),
  });
  expect(await stream.next()).toEqual({ done: true, value: undefined });
  await isFree(host, guard);
  await memory.close();
});

describe('this process', () => {
  /** Another one that listens. */
  async function child(): Promise<{ child: ChildProcess; host: number; guard: number }> {
    const started = spawn(
      process.execPath,
      [
        '-e',
        `const { Libvmi } = require(${JSON.stringify(ADDON)});
         (async () => {
           const libvmi = new Libvmi({ driver: 'xen', name: '', id: 7n, deadline: 2000,
             library: ${JSON.stringify(standIn.library)}, direct: false, isolate: true, events: true });
           await libvmi.attach(5000).done;
           await libvmi.listen(10, 5000).done;
           await libvmi.takeWrites().done;
           console.log('ready');
           process.stdin.once('data', async () => {
             const { writes } = await libvmi.takeWrites().done;
             console.log(JSON.stringify({ writes: writes.length / 3, dropped: libvmi.droppedWrites() }));
           });
         })()`,
      ],
      { env: { ...process.env, ...standIn.environment() }, stdio: ['pipe', 'pipe', 'inherit'] },
    );
    await once(started.stdout!, 'data');
    const host = hostsOf(started.pid!)[0]!;
    return { child: started, host, guard: guardsOf(host)[0]! };
  }

  test('ended by SIGKILL', async () => {
    const { child: listener, host, guard } = await child();
    listener.kill('SIGKILL');
    await once(listener, 'exit');
    await isFree(host, guard);
    expect(standIn.calls()).toContain('vmi_destroy');
  });

  test('ended by SIGKILL with its host process', async () => {
    const { child: listener, host, guard } = await child();
    process.kill(host, 'SIGSTOP');
    listener.kill('SIGKILL');
    process.kill(host, 'SIGKILL');
    await once(listener, 'exit');
    await isFree(host, guard);
  });

  test('stopped for longer than any deadline: the guest is drained, and listening goes on', async () => {
    const { child: listener, host, guard } = await child();
    listener.kill('SIGSTOP');
    const before = xen.get('taken');
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    expect(xen.get('taken')).toBeGreaterThan(before);
    expect([xen.get('monitor'), runs(host), runs(guard)]).toEqual([1, true, true]);
    listener.kill('SIGCONT');
    listener.stdin!.write('\n');
    const { writes, dropped } = JSON.parse(String((await once(listener.stdout!, 'data'))[0]));
    expect(writes).toBeGreaterThan(0);
    expect(dropped).toBeGreaterThan(0);
    // What was lost counts at any time, without a taker.
    listener.kill('SIGKILL');
    await once(listener, 'exit');
    await isFree(host, guard);
  });
});

test('dropped is what is lost as of now, whether anybody reads or not', async () => {
  const { memory, stream, host, guard } = await listen();
  const { dropped } = stream;
  await waitFor(() => stream.dropped > dropped, 'more are lost');
  await stream.return();
  const end = stream.dropped;
  expect(end).toBeGreaterThan(dropped);
  expect(stream.dropped).toBe(end);
  await isFree(host, guard);
  await memory.close();
});

test('the program says whether a monitor is on, and turns it off', () => {
  const run = (...args: string[]) => execFileSync(PROGRAM, args, { encoding: 'utf8' });
  expect(run('--monitor', DOMAIN)).toBe('off\n');
  xen.set('monitor', 1);
  expect(run('--monitor', DOMAIN)).toBe('on\n');
  expect(run('--release', DOMAIN)).toBe('');
  expect([xen.get('monitor'), run('--monitor', DOMAIN)]).toEqual([0, 'off\n']);
  delete process.env.STANDIN_XEN;
  expect(run('--monitor', DOMAIN)).toBe('unknown\n');
  expect(() => run('--release', DOMAIN)).toThrow();
});
