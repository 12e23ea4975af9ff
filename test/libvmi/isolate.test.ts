import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest';
import { CrashError, type VmiError } from '../../lib/errors.js';
import { Libvmi } from '../../lib/libvmi/libvmi.js';
import { openLibvmi } from '../../lib/memory/libvmi/libvmi.js';
import type { LibvmiTarget } from '../../lib/target.js';
import { hostsOf, openFiles, runs } from './support/hosts.js';
import { count, type Fault, StandIn } from './support/stand-in.js';
import { type Attempt, attempting, useMemory } from './support/use-memory.js';

const ADDON = fileURLToPath(new URL('../../build/Release/vmi_addon.node', import.meta.url));
const standIn = new StandIn();
const target = (options: Partial<LibvmiTarget> = {}): LibvmiTarget => ({
  driver: 'kvm',
  name: standIn.ram,
  library: standIn.library,
  map: false,
  // A domain of libvirt's would be asked whether it is suspended.
  guard: false,
  isolate: true,
  ...options,
});
const sleep = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function waitFor(condition: () => boolean, milliseconds = 6_000): Promise<void> {
  for (const end = Date.now() + milliseconds; Date.now() < end && !condition(); ) await sleep(20);
  expect(condition()).toBe(true);
}

beforeEach(() => standIn.order());
afterEach(() => {
  standIn.calls();
  expect(hostsOf(process.pid)).toEqual([]);
});
afterAll(() => standIn.remove());

/**
 * Attaches, does everything, and then everything again with nothing in its way; what went wrong,
 * and which call was hit.
 */
async function hitOne(fault: Fault, driver: 'kvm' | 'file', call: number, deadline: number) {
  standIn.order(fault, call, 60_000);
  const first: unknown[] = [];
  const second: unknown[] = [];
  // A new process counts its calls anew, and is to go unharmed.
  const attempt: Attempt = async (action) => {
    const result = await attempting(first)(action);
    if (first.length > 0) standIn.order();
    return result;
  };
  const memory = await attempt(() =>
    openLibvmi(target({ driver, deadline, attachDeadline: deadline })),
  );
  if (memory !== undefined) {
    await useMemory(memory, attempt);
    const calls = standIn.calls();
    if (first.length > 0 || calls.length < call) await useMemory(memory, attempting(second));
    await attempt(() => memory.close());
    return { first, second, calls: [...calls, ...standIn.calls()] };
  }
  return { first, second, calls: standIn.calls() };
}

// The deadline, milliseconds; the kernel takes its time to end a process that crashed.
test.each<[Fault, 'kvm' | 'file', VmiError['code'], number]>([
  ['crash', 'kvm', 'VMI_CRASHED', 5_000],
  ['crash', 'file', 'VMI_CRASHED', 5_000],
  ['block', 'kvm', 'VMI_BUSY', 250],
  ['loop', 'file', 'VMI_BUSY', 250],
])(
  'a call that is told to %s (%s) is an error at every position, and what follows starts anew',
  async (fault, driver, code, deadline) => {
    const files = openFiles('self').size;
    standIn.order();
    const whole = await hitOne('fail', driver, 100_000, 5_000);
    expect([...whole.first, ...whole.second]).toEqual([]);
    const end = whole.calls.lastIndexOf('vmi_destroy') - whole.calls.indexOf('vmi_init');
    // The second time around is no other than the first.
    for (let call = 1, tries = 0; call <= (end + 1) / 2; call++) {
      const { first, second, calls } = await hitOne(fault, driver, call, deadline);
      // None where a busy host let the deadline pass before that call was reached.
      const hit = calls[call - 1]?.replace(/^vmi_.*cache_flush$/, 'vmi_*cache_flush') ?? 'none';
      const where = `${fault}@${call} (${hit})`;
      const named = /vmi_[*\w]+/.exec((first[0] as Error | undefined)?.message ?? '')?.[0];
      // With KVM's driver a look at the guest comes first, within the call it is for.
      const names = /flush|read_pa/.test(hit)
        ? [hit, 'vmi_*cache_flush', 'vmi_get_vcpureg']
        : [hit];
      // A host that is busy enough keeps another call from its deadline as well.
      const busy = code === 'VMI_BUSY' && (second.length > 0 || !names.includes(named ?? ''));
      if (busy && ++tries < 10) {
        call--;
        continue;
      }
      expect(names, where).toContain(named);
      for (const error of first) expect(error, where).toMatchObject({ code });
      expect(second, where).toEqual([]);
      if (code !== 'VMI_CRASHED') continue;
      expect(first[0], where).toBeInstanceOf(CrashError);
      expect(first[0], where).toMatchObject({ signal: 'SIGSEGV', exitCode: undefined });
      expect((first[0] as CrashError).stderr, where).toContain(
        `${calls[call - 1]} was told to crash`,
      );
    }
    expect(hostsOf(process.pid)).toEqual([]);
    expect(openFiles('self').size).toBe(files);
  },
  240_000,
);

test("a crash in vmi_destroy is nobody's business any more", async () => {
  const memory = await openLibvmi(target());
  const calls = standIn.calls().length;
  await memory.close();
  standIn.order('crash', calls + 1);
  await (await openLibvmi(target())).close();
});

test('the operation after a crash is as if nothing had been', async () => {
  const memory = await openLibvmi(target());
  memory.begin();
  expect(memory.readU64(0x1238)).toBe(0x1238n);
  const [host] = hostsOf(process.pid);
  process.kill(host!, 'SIGKILL');
  await waitFor(() => !runs(host!));
  const crash = (() => {
    try {
      return memory.readU64(0x1238);
    } catch (error) {
      return error;
    }
  })();
  expect(crash).toBeInstanceOf(CrashError);
  expect(crash).toMatchObject({
    code: 'VMI_CRASHED',
    signal: 'SIGKILL',
    message: expect.stringMatching(
      /the process of libvmi was ended by SIGKILL in vmi_read_pa; the next operation starts a new one/,
    ),
  });
  // The same operation goes on failing, without a process for each read.
  expect(() => memory.readU64(0x1238)).toThrow(CrashError);
  expect(hostsOf(process.pid)).toEqual([]);
  memory.begin();
  expect(memory.readU64(0x1238)).toBe(0x1238n);
  expect(hostsOf(process.pid)).not.toEqual([host]);
  await memory.close();
});

test('a guest that is paused when libvmi crashes is resumed at the end', async () => {
  const memory = await openLibvmi(target());
  await memory.pause();
  const [host] = hostsOf(process.pid);
  process.kill(host!, 'SIGKILL');
  await waitFor(() => !runs(host!));
  standIn.calls();
  await memory.close();
  expect(standIn.calls()).toEqual(['vmi_init', 'vmi_resume_vm', 'vmi_destroy']);
});

test("libvmi's process has nothing of this one's", async () => {
  const ignored = () => {};
  process.on('SIGUSR2', ignored);
  const memory = await openLibvmi(target());
  const [host] = hostsOf(process.pid);
  const status = readFileSync(`/proc/${host}/status`, 'utf8');
  const mask = (name: string) => {
    const text = new RegExp(`^${name}:\t([0-9a-f]+)$`, 'm').exec(status)![1]!;
    // Signals 32 and 33 are the C library's own.
    return BigInt(`0x${text}`) & ~0x1_8000_0000n;
  };
  const bits = (...signals: NodeJS.Signals[]) =>
    signals.reduce((sum, name) => sum | (1n << BigInt(constants.signals[name] - 1)), 0n);
  // It waits for those that end it, and lets the guest go; nobody may read what it prints.
  expect(mask('SigBlk')).toBe(bits('SIGHUP', 'SIGINT', 'SIGTERM'));
  expect(mask('SigIgn')).toBe(bits('SIGPIPE'));
  expect(mask('SigCgt')).toBe(0n);
  // The memory that both have, and what the library itself has opened: the RAM, and its log.
  const files = openFiles(host!);
  expect([...files.keys()].sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6]);
  expect([files.get(4), files.get(5), files.get(6)]).toEqual([
    expect.stringContaining('memfd:libvmi'),
    standIn.ram,
    expect.stringContaining('/log'),
  ]);
  expect(files.get(0)).toBe('/dev/null');
  // A terminal's interrupt is not for it.
  expect(Number(readFileSync(`/proc/${host}/stat`, 'utf8').split(' ')[5])).toBe(host);
  await memory.close();
  process.off('SIGUSR2', ignored);
});

test('what libvmi prints without end makes nobody wait', async () => {
  process.env.STANDIN_CHATTER = '1';
  try {
    const memory = await openLibvmi(target());
    memory.begin();
    // More than a pipe holds, and nobody reads it while nothing goes wrong.
    for (let i = 0; i < 4_000; i++) expect(memory.readU64(0x1238)).toBe(0x1238n);
    process.kill(hostsOf(process.pid)[0]!, 'SIGKILL');
    expect(() => {
      for (let i = 0; i < 1_000; i++) memory.readU64(0x1238);
    }).toThrow(CrashError);
    memory.begin();
    const error = (() => {
      process.kill(hostsOf(process.pid)[0]!, 'SIGKILL');
      try {
        for (let i = 0; i < 1_000; i++) memory.readU64(0x1238);
        return undefined;
      } catch (error) {
        return error as CrashError;
      }
    })();
    expect(error?.stderr).toContain('stand-in: vmi_init');
    expect(error?.stderr.length).toBeLessThan(8_192);
    await memory.close();
  } finally {
    delete process.env.STANDIN_CHATTER;
  }
});

test('a call by name: its crash, and its results', async () => {
  standIn.order('crash', 5);
  await using libvmi = await Libvmi.init({
    mode: 'kvm',
    name: standIn.ram,
    library: standIn.library,
    isolate: true,
  });
  const error = await libvmi.readPa(0x1000, 16).catch((error) => error);
  expect(error).toBeInstanceOf(CrashError);
  expect(error.message).toBe(
    `kvm:${standIn.ram}: the process of libvmi was ended by SIGSEGV in vmi_read_pa; the next operation starts a new one; libvmi said: stand-in: vmi_read_pa was told to crash`,
  );
  standIn.order();
  expect((await libvmi.readPa(0x1000, 16)).readBigUInt64LE(8)).toBe(0x1008n);
  // Larger than what both processes share, and than a socket takes at once.
  const bytes = await libvmi.readPa(0, 1 << 20);
  expect(bytes.equals(readFileSync(standIn.ram))).toBe(true);
  expect(libvmi.getName()).toBe(standIn.ram);
  expect(libvmi.has('vmi_get_tsc_info')).toBe(false);
  await expect(libvmi.getTscInfo()).rejects.toMatchObject({ code: 'VMI_UNSUPPORTED' });
});

test('a library that is not there, or is too old', async () => {
  const open = (library: string) => openLibvmi(target({ library }));
  await expect(open('/nowhere/libvmi.so')).rejects.toMatchObject({
    code: 'VMI_LIBRARY_MISSING',
    message: expect.stringMatching(/tried \/nowhere\/libvmi\.so .* Install libvmi/),
  });
  await expect(open(standIn.tooOld)).rejects.toMatchObject({ code: 'VMI_LIBRARY_MISSING' });
});

test('without its program', () => {
  const addon = join(standIn.folder, 'alone.node');
  copyFileSync(ADDON, addon);
  const { stdout } = spawnSync(
    process.execPath,
    [
      '-e',
      `const { Libvmi } = require(process.argv[1]);
       try { new Libvmi({ driver: 'kvm', name: 'x', deadline: 100, direct: false, isolate: true }); }
       catch (error) { console.log(error.code, error.message); }`,
      addon,
    ],
    { encoding: 'utf8' },
  );
  expect(stdout).toMatch(
    /^VMI_UNSUPPORTED cannot run .*\/libvmi_host \(No such file.*\); build it with 'npx node-libvmi-build'\n$/,
  );
});

/** Starts a script that prints the number of its libvmi process, and then does what it is told. */
async function start(script: string, fault?: Fault, call?: number) {
  const child = spawn(
    process.execPath,
    [
      '-e',
      `const { Libvmi } = require(${JSON.stringify(ADDON)}); const { Worker } = require('node:worker_threads');
       (async () => {
         const libvmi = new Libvmi({ driver: 'kvm', name: ${JSON.stringify(standIn.ram)},
           library: ${JSON.stringify(standIn.library)}, deadline: 60000, direct: false, isolate: true });
         await libvmi.attach(1000).done;
         const memory = libvmi.memory(BigUint64Array.of(0n, 1048576n, 0n));
         ${script}
       })()`,
    ],
    {
      env: { ...process.env, ...standIn.environment(fault, call, 600_000) },
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  const [line] = await once(child.stdout.setEncoding('utf8'), 'data');
  expect(line).toBe('ready\n');
  const hosts = hostsOf(child.pid!);
  expect(hosts.length).toBe(1);
  const exit = once(child, 'exit');
  return { child, host: hosts[0]!, exit };
}

describe('nothing is left running', () => {
  test('after SIGKILL, and the guest that was paused goes on', async () => {
    const { child, host, exit } = await start(
      "await libvmi.call('vmi_pause_vm', [], 1000, false).done; console.log('ready'); setInterval(() => {}, 1000);",
    );
    child.kill('SIGKILL');
    await exit;
    await waitFor(() => !runs(host));
    expect(standIn.calls().slice(-2)).toEqual(['vmi_resume_vm', 'vmi_destroy']);
  });

  test('after SIGKILL in the middle of a call that never returns', async () => {
    const { child, host, exit } = await start(
      "console.log('ready'); await new Promise((resolve) => setTimeout(resolve, 300)); memory.readU64(8n);",
      'loop',
      2,
    );
    const seen: string[] = [];
    await waitFor(() => {
      seen.push(...standIn.calls());
      return seen.includes('vmi_read_pa');
    });
    child.kill('SIGKILL');
    await exit;
    expect(runs(host)).toBe(true);
    await waitFor(() => !runs(host));
  });

  test.each(['process.exit(0)', '', "process.kill(process.pid, 'SIGTERM')"])(
    'after %s',
    async (end) => {
      const { host, exit } = await start(
        `await libvmi.call('vmi_pause_vm', [], 1000, false).done; console.log('ready');
         await new Promise((resolve) => setTimeout(resolve, 300)); ${end}`,
      );
      await exit;
      await waitFor(() => !runs(host));
      const calls = standIn.calls();
      expect(calls.slice(-2)).toEqual(['vmi_resume_vm', 'vmi_destroy']);
      expect(count(calls, 'vmi_destroy')).toBe(1);
    },
  );

  test('after a worker was terminated in mid-read', async () => {
    const text = `(async () => { const { Libvmi } = require(${JSON.stringify(ADDON)});
      const libvmi = new Libvmi({ driver: 'kvm', name: ${JSON.stringify(standIn.ram)},
        library: ${JSON.stringify(standIn.library)}, deadline: 1000, direct: false, isolate: true });
      await libvmi.attach(1000).done;
      const memory = libvmi.memory(BigUint64Array.of(0n, 1048576n, 0n));
      require('node:worker_threads').parentPort.postMessage('reads');
      for (;;) memory.readU64(8n); })()`;
    const { child, host, exit } = await start(
      `await libvmi.close().done;
       const worker = new Worker(${JSON.stringify(text)}, { eval: true });
       await new Promise((resolve) => worker.once('message', resolve));
       console.log('ready'); await new Promise((resolve) => setTimeout(resolve, 300));
       await worker.terminate(); process.stdout.write('terminated\\n'); setTimeout(() => {}, 1e6);`,
    );
    await once(child.stdout, 'data');
    await waitFor(() => !runs(host));
    child.kill('SIGKILL');
    await exit;
  });
});
