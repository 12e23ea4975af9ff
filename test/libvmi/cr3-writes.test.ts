import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest';
import { addon } from '../../lib/addon.js';
import { CrashError } from '../../lib/errors.js';
import type { Cr3Write } from '../../lib/libvmi/cr3-writes.js';
import { Libvmi } from '../../lib/libvmi/libvmi.js';
import { openLibvmi } from '../../lib/memory/libvmi/libvmi.js';
import { hostsOf, runs } from './support/hosts.js';
import { NO_LIBVMI } from './support/real.js';
import { count, type Fault, StandIn } from './support/stand-in.js';

const ADDON = fileURLToPath(new URL('../../build/Release/vmi_addon.node', import.meta.url));
const standIn = new StandIn();
const open = (library = standIn.library) =>
  openLibvmi({ driver: 'kvm', name: standIn.ram, library, guard: false, deadline: 5_000 });

/** How many writes to CR3 there will be, and how many at each vmi_events_listen. */
function writes(total: number, batch: number): void {
  process.env.STANDIN_EVENTS = `${total},${batch}`;
}

/** Write `k` of the stand-in. */
const expected = (k: number): Cr3Write => ({
  vcpu: k % 2,
  value: 0x1000n * BigInt(k + 1),
  previous: 0x1000n * BigInt(k),
});

async function waitFor(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 300 && !condition(); i++)
    await new Promise((resolve) => setTimeout(resolve, 20));
  expect(condition()).toBe(true);
}

beforeEach(() => standIn.order());
afterEach(async () => {
  delete process.env.STANDIN_EVENTS;
  delete process.env.STANDIN_EVENTS_VERSION;
  await waitFor(() => hostsOf(process.pid).length === 0);
  standIn.calls();
});
afterAll(() => standIn.remove());

/** The last thing that is done to a guest: it is drained while it stands, and goes on. */
const GOODBYE = [
  'vmi_pause_vm',
  'vmi_events_listen',
  'vmi_clear_event',
  'vmi_events_listen',
  'vmi_resume_vm',
  'vmi_destroy',
];

describe.each(['7', '8', '9'])('with version %s of vmi_event_t', (version) => {
  test('every write comes, in order, and leaving the loop lets the guest go', async () => {
    process.env.STANDIN_EVENTS_VERSION = version;
    writes(10, 3);
    const memory = await open();
    expect(memory.capabilities.events).toBe(true);
    standIn.calls();
    const seen: Cr3Write[] = [];
    const stream = memory.cr3Writes();
    expect(standIn.calls()).toEqual([]);
    for await (const write of stream) {
      seen.push(write);
      // What else is asked of the guest meanwhile is answered.
      expect(memory.readU64(0x1238)).toBe(0x1238n);
      if (seen.length === 10) break;
    }
    expect(seen).toEqual(Array.from({ length: 10 }, (_, k) => expected(k)));
    expect(stream.dropped).toBe(0);
    const calls = standIn.calls().filter((call) => call !== 'vmi_read_pa');
    expect(calls.slice(0, 3)).toEqual(['vmi_init', 'vmi_register_event', 'vmi_events_listen']);
    expect(calls.slice(-6)).toEqual(GOODBYE);
    expect(await stream.next()).toEqual({ done: true, value: undefined });
    await memory.close();
  });
});

test('a slow reader gets the latest, and is told how many it missed', async () => {
  const [total, batch, queue] = [1_000, 50, 100];
  writes(total, batch);
  const memory = await open();
  const stream = memory.cr3Writes({ queue });
  // Which write comes first depends on how soon this process is run again.
  const first = (await stream.next()).value!;
  expect(first).toEqual(expected(Number(first.previous >> 12n)));
  // A call to listen after the last one that brought any: whatever will be dropped has been.
  const calls: string[] = [];
  await waitFor(() => {
    calls.push(...standIn.calls());
    return count(calls, 'vmi_events_listen') > total / batch;
  });
  const rest: Cr3Write[] = [];
  let [last, lost] = [first, stream.droppedByThen];
  for await (const write of stream) {
    rest.push(write);
    // What comes without that more was lost by then follows what came before.
    if (stream.droppedByThen === lost) expect(write.previous).toBe(last.value);
    [last, lost] = [write, stream.droppedByThen];
    if (write.value === expected(total - 1).value) break;
  }
  expect(lost).toBe(stream.dropped);
  // The first batch was taken whole, then the queue held the last hundred; or this process was not
  // run before all were there, and the first of the hundred is the first of all.
  expect([first, ...rest].slice(-queue)).toEqual(
    Array.from({ length: queue }, (_, k) => expected(total - queue + k)),
  );
  expect(rest.length).toBeLessThan(2 * queue);
  expect(stream.dropped).toBe(total - 1 - rest.length);
  await memory.close();
});

test('a stream that is closed while it waits ends', async () => {
  writes(0, 0);
  const memory = await open();
  const stream = memory.cr3Writes();
  const waiting = stream.next();
  const calls: string[] = [];
  await waitFor(() => {
    calls.push(...standIn.calls());
    return count(calls, 'vmi_events_listen') > 1;
  });
  await stream.return();
  expect(await waiting).toEqual({ done: true, value: undefined });
  expect(standIn.calls().slice(-6)).toEqual(GOODBYE);
  await stream.return();
  await memory.close();
});

test('a signal ends it', async () => {
  const memory = await open();
  const controller = new AbortController();
  const stream = memory.cr3Writes({ signal: controller.signal });
  const waiting = stream.next();
  waiting.catch(() => {});
  const calls: string[] = [];
  await waitFor(() => {
    calls.push(...standIn.calls());
    return calls.includes('vmi_events_listen');
  });
  controller.abort(new Error('enough'));
  await expect(waiting).rejects.toMatchObject({ code: 'VMI_ABORTED', cause: new Error('enough') });
  expect(standIn.calls().at(-1)).toBe('vmi_destroy');
  expect(await stream.next()).toEqual({ done: true, value: undefined });
  await memory.close();
});

describe('refused with the reason', () => {
  test('by a library without events', async () => {
    const memory = await open(standIn.noEvents);
    expect(memory.capabilities.events).toBe(false);
    expect(() => memory.cr3Writes()).toThrow(
      expect.objectContaining({
        code: 'VMI_UNSUPPORTED',
        message: expect.stringContaining('reports no writes to CR3'),
      }),
    );
    await memory.close();
  });

  test.each(['4', '6', '10'])('with an unknown version of vmi_event_t: %s', async (version) => {
    process.env.STANDIN_EVENTS_VERSION = version;
    const memory = await open();
    await expect(memory.cr3Writes().next()).rejects.toMatchObject({
      code: 'VMI_UNSUPPORTED',
      message: expect.stringContaining(
        `has version ${version} of the events interface; 7 (libvmi 0.14), 8 and 9`,
      ),
    });
    // Nothing was registered.
    expect(standIn.calls()).not.toContain('vmi_register_event');
    await memory.close();
  });

  test('by a driver that has none', async () => {
    const libvmi = await Libvmi.init({ mode: 'file', name: standIn.ram, library: standIn.library });
    await expect(libvmi.cr3Writes().next()).rejects.toMatchObject({
      code: 'VMI_UNSUPPORTED',
      message: `libvmi:${standIn.ram}: libvmi could not set up events; libvmi said: stand-in: files have no events`,
    });
    await libvmi.destroy();
    const memory = await openLibvmi({
      driver: 'file',
      name: standIn.ram,
      library: standIn.library,
    });
    expect(memory.capabilities.events).toBe(false);
    expect(() => memory.cr3Writes()).toThrow(expect.objectContaining({ code: 'VMI_UNSUPPORTED' }));
    await memory.close();
  });

  test.skipIf(NO_LIBVMI !== undefined)('by the file driver of the real libvmi', async () => {
    const libvmi = await Libvmi.init({ mode: 'file', name: standIn.ram });
    expect(libvmi.has('vmi_events_version')).toBe(true);
    await expect(libvmi.cr3Writes().next()).rejects.toMatchObject({
      code: 'VMI_UNSUPPORTED',
      message: expect.stringContaining('The selected hypervisor has no events support!'),
    });
    await libvmi.destroy();
  });

  test.each([0, 1.5, -1, 2 ** 20 + 1, '5' as never])('a queue of %s', async (queue) => {
    const memory = await open();
    const wrong = typeof queue === 'number' ? RangeError : TypeError;
    expect(() => memory.cr3Writes({ queue })).toThrow(wrong);
    await memory.close();
  });
});

test.each<[Fault, string]>([
  ['fail', 'VMI_UNSUPPORTED'],
  ['crash', 'VMI_CRASHED'],
  ['block', 'VMI_BUSY'],
])(
  'any call of the stream that is told to %s',
  async (fault, code) => {
    writes(5, 2);
    // vmi_init, vmi_register_event, vmi_events_listen twice: what is there before the fifth write
    // has come.
    for (let call = 1; call <= 4; call++) {
      standIn.order();
      const memory = await openLibvmi({
        driver: 'kvm',
        name: standIn.ram,
        library: standIn.library,
        guard: false,
        deadline: fault === 'block' ? 1_000 : 5_000,
        attachDeadline: fault === 'block' ? 1_000 : 5_000,
      });
      standIn.order(fault, call, 60_000);
      const stream = memory.cr3Writes();
      const seen: Cr3Write[] = [];
      const error = await (async () => {
        for await (const write of stream) {
          seen.push(write);
          if (seen.length === 5) return undefined;
        }
        return undefined;
      })().catch((error) => error);
      expect(error, `${fault}@${call}`).toMatchObject({ code });
      if (fault === 'crash') expect(error).toBeInstanceOf(CrashError);
      // What came before it is handed over, but for what a process that crashes takes along.
      expect(seen, `${fault}@${call}`).toEqual(seen.map((_, k) => expected(k)));
      if (call === 4 && fault !== 'crash')
        expect(seen.length, `${fault}@${call}`).toBeGreaterThanOrEqual(2);
      expect(await stream.next()).toEqual({ done: true, value: undefined });
      // The guest itself is as good as before.
      expect(memory.readU64(0x1238)).toBe(0x1238n);
      await memory.close();
      await waitFor(() => hostsOf(process.pid).length === 0);
    }
  },
  60_000,
);

test('in this process: other calls run between two turns of listening', async () => {
  writes(100, 1);
  const { Libvmi: Native } = addon();
  const native = new Native({
    driver: 'kvm',
    name: standIn.ram,
    library: standIn.library,
    deadline: 5_000,
    direct: false,
    events: true,
  });
  await native.attach(5_000).done;
  await native.listen(1_000, 5_000).done;
  let taken = 0;
  while (taken < 100) {
    const { writes } = await native.takeWrites().done;
    taken += writes.length / 3;
    const { values } = await native.call('vmi_pid_to_dtb', [1], 5_000, false).done;
    expect(values[0]).toBe(0x1000n);
  }
  await native.unlisten(5_000).done;
  await expect(native.takeWrites().done).rejects.toMatchObject({ code: 'VMI_CLOSED' });
  await native.close().done;
  const calls = standIn.calls();
  expect(calls).not.toContain('OVERLAP');
  expect(calls.at(-1)).toBe('vmi_destroy');
});

test.each(['process.exit(0);', "process.kill(process.pid, 'SIGKILL');"])(
  'the guest is let go of after %s',
  async (end) => {
    writes(1_000_000, 1);
    const child = spawn(
      process.execPath,
      [
        '-e',
        `const { Libvmi } = require(${JSON.stringify(ADDON)});
         (async () => {
           const libvmi = new Libvmi({ driver: 'kvm', name: ${JSON.stringify(standIn.ram)},
             library: ${JSON.stringify(standIn.library)}, deadline: 5000, direct: false, isolate: true, events: true });
           await libvmi.attach(1000).done; await libvmi.listen(10, 1000).done; await libvmi.takeWrites().done;
           console.log('ready'); setTimeout(() => { ${end} }, 200);
         })()`,
      ],
      { env: { ...process.env, ...standIn.environment() }, stdio: ['ignore', 'pipe', 'inherit'] },
    );
    await once(child.stdout, 'data');
    const [host] = hostsOf(child.pid!);
    await once(child, 'exit');
    await waitFor(() => !runs(host!));
    expect(standIn.calls().slice(-6)).toEqual(GOODBYE);
  },
);
