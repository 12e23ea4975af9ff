import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { type Fault, StandIn } from './support/stand-in.js';

const ADDON = fileURLToPath(new URL('../../build/Release/vmi_addon.node', import.meta.url));
const standIn = new StandIn();
afterEach(() => standIn.calls());
afterAll(() => standIn.remove());

/** Runs a script in a process of its own, over the seam itself. */
function run(script: string, fault?: Fault, call?: number, milliseconds?: number) {
  const prelude = `
    const { Libvmi } = require(${JSON.stringify(ADDON)});
    const { Worker } = require('node:worker_threads');
    const names = ${JSON.stringify(
      Object.entries({ ADDON, NAME: standIn.ram, LIBRARY: standIn.library })
        .map(([name, value]) => `const ${name} = ${JSON.stringify(value)};`)
        .join('\n'),
    )};
    const make = (driver = 'kvm') => new Libvmi({ driver, name: ${JSON.stringify(standIn.ram)},
      library: ${JSON.stringify(standIn.library)}, deadline: 200, direct: driver === 'file' });
    const outcome = (promise) => promise.then(() => 'fine', (error) => error.code);
    `;
  const { status, signal, stdout, stderr } = spawnSync(
    process.execPath,
    ['-e', `${prelude}(async () => {${script}})()`],
    {
      encoding: 'utf8',
      timeout: 20_000,
      env: { ...process.env, ...standIn.environment(fault, call, milliseconds) },
    },
  );
  return { status, signal, stdout: stdout.trim(), stderr: stderr.trim(), calls: standIn.calls() };
}

describe.skipIf(!existsSync(ADDON))('every prefix of a life ends the process well', () => {
  const STEPS = [
    'const libvmi = make();',
    'await libvmi.attach(1000).done;',
    'const memory = libvmi.memory(BigUint64Array.of(0n, 1048576n, 0n));',
    'memory.begin();',
    'memory.readU64(8n);',
    "await libvmi.call('vmi_pause_vm', [], 1000, false).done;",
    "const pending = libvmi.call('vmi_pid_to_dtb', [1], 1000, true);",
    'memory.close();',
    'const closing = libvmi.close();',
    'await closing.done;',
    'await libvmi.close().done;',
  ];
  test.each(STEPS.map((_, last) => last))('up to step %i', (last) => {
    for (const end of ['', 'process.exit(0);']) {
      const { status, signal, stderr, calls } = run(STEPS.slice(0, last + 1).join('\n') + end);
      expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: '' });
      const paused = calls.includes('vmi_pause_vm');
      expect(calls.includes('vmi_resume_vm')).toBe(paused);
      expect(calls.filter((call) => call === 'vmi_destroy').length).toBe(
        calls.includes('vmi_init') ? 1 : 0,
      );
      expect(calls).not.toContain('OVERLAP');
    }
  });

  test('while a call hangs', () => {
    const { status, signal, stdout } = run(
      `const libvmi = make(); await libvmi.attach(1000).done;
       const hanging = libvmi.call('vmi_pid_to_dtb', [1], 100, false);
       await new Promise((resolve) => setTimeout(resolve, 300));
       console.log(libvmi.giveUp(hanging.ticket)); console.log(await outcome(libvmi.close().done));`,
      'block',
      2,
      60_000,
    );
    expect({ status, signal }).toEqual({ status: 0, signal: null });
    expect(stdout).toMatch(/^vmi_pid_to_dtb of libvmi has not returned in \d+ ms; .*\nfine$/);
  });

  test('a worker that is terminated while it reads', () => {
    const { status, signal, stdout, calls } = run(
      `const text = "(" + (async () => {
         const { Libvmi } = require(ADDON);
         const libvmi = new Libvmi({ driver: 'file', name: NAME, library: LIBRARY, deadline: 1000, direct: false });
         await libvmi.attach(1000).done;
         const memory = libvmi.memory(BigUint64Array.of(0n, 1048576n, 0n));
         require('node:worker_threads').parentPort.postMessage('reads');
         for (;;) memory.readU64(8n);
       }).toString() + ")()";
       const worker = new Worker(names + text, { eval: true });
       await new Promise((resolve) => worker.once('message', resolve));
       await worker.terminate();
       console.log('terminated');`,
    );
    expect({ status, signal, stdout }).toEqual({ status: 0, signal: null, stdout: 'terminated' });
    expect(calls.filter((call) => call === 'vmi_destroy').length).toBe(1);
  });

  test('without a reference left', () => {
    const { status, signal, calls } = run(
      `for (let i = 0; i < 200; i++) { const libvmi = make('file'); await libvmi.attach(1000).done; libvmi.memory(BigUint64Array.of(0n, 4096n, 0n)).readU64(0n); }
       const { setFlagsFromString } = require('node:v8'); setFlagsFromString('--expose-gc');
       require('node:vm').runInNewContext('gc')(); await new Promise((resolve) => setTimeout(resolve, 500));
       require('node:vm').runInNewContext('gc')(); await new Promise((resolve) => setTimeout(resolve, 500));
       console.log('done');`,
    );
    expect({ status, signal }).toEqual({ status: 0, signal: null });
    const made = calls.filter((call) => call === 'vmi_init').length;
    expect(made).toBe(200);
    expect(calls.filter((call) => call === 'vmi_destroy').length).toBe(made);
  });
});

describe.skipIf(!existsSync(ADDON))('misuse of the seam', () => {
  test.each([
    ['Libvmi()', 'TypeError'],
    ['new Libvmi()', 'TypeError'],
    ["new Libvmi({ driver: 'hyper-v', name: 'x', deadline: 1, direct: false })", 'RangeError'],
    ["new Libvmi({ driver: 'file', name: 5, deadline: 1, direct: false })", 'TypeError'],
    ["new Libvmi({ driver: 'file', name: 'x', deadline: 0, direct: false })", 'RangeError'],
    ["new Libvmi({ driver: 'file', name: 'x', deadline: 1e30, direct: false })", 'RangeError'],
    [
      "new Libvmi({ driver: 'file', name: 'x', id: -1n, deadline: 1, direct: false })",
      'RangeError',
    ],
    ['Libvmi.prototype.attach.call({}, 1)', 'TypeError'],
    ["Libvmi.prototype.callNow.call(new Uint8Array(8), 'vmi_get_name', [])", 'TypeError'],
    ["make().callNow('vmi_read_pa', [0n])", 'RangeError'],
    ["make().callNow('vmi_read_pa', [0n, 2n ** 40n])", 'RangeError'],
    ["make().callNow('vmi_read_pa', ['0', 1])", 'TypeError'],
    ["make().callNow('vmi_pid_to_dtb', [1n])", 'TypeError'],
    ["make().callNow('vmi_pid_to_dtb', [1.5])", 'RangeError'],
    ["make().callNow('vmi_pid_to_dtb', {})", 'TypeError'],
    ["make().call('vmi_get_name', [], 1000)", 'TypeError'],
    ["make().initOs('table', [['a']], 1000)", 'TypeError'],
    ["make().initOs('other', 'x', 1000)", 'RangeError'],
    ['make().memory(new Uint8Array(24))', 'TypeError'],
    ['make().memory(BigUint64Array.of(0n, 4096n))', 'RangeError'],
    ['make().memory(BigUint64Array.of(1n, 4096n, 0n))', 'RangeError'],
    ['make().memory(BigUint64Array.of(4096n, 4096n, 0n, 0n, 4096n, 0n))', 'RangeError'],
    ['make().withdraw(-1)', 'RangeError'],
  ])('%s', (expression, expected) => {
    const { status, signal, stdout } = run(
      `try { ${expression}; } catch (error) { console.log(error.name); } process.exit(0);`,
    );
    expect({ status, signal, stdout }).toEqual({ status: 0, signal: null, stdout: expected });
  });

  test('calls before attaching, and tickets that are none', () => {
    const { status, signal, stdout } = run(
      `const libvmi = make(); const memory = libvmi.memory(BigUint64Array.of(0n, 4096n, 0n));
       try { memory.readU64(0n); } catch (error) { console.log(error.code); }
       console.log(libvmi.callNow('vmi_get_memsize', []).failed, libvmi.withdraw(7), libvmi.giveUp(7));
       libvmi.memory(BigUint64Array.of()); await libvmi.close().done;
       try { libvmi.memory(BigUint64Array.of(0n, 4096n, 0n)); } catch (error) { console.log(error.code); }`,
    );
    expect({ status, signal, stdout }).toEqual({
      status: 0,
      signal: null,
      stdout: 'VMI_ATTACH\ntrue false undefined\nVMI_CLOSED',
    });
  });
});
