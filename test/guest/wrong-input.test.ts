import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { attach, FaultError, type Guest, VmiError } from '../../lib/index.js';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';

const VMI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const vmi = (args: string[], options: { env?: NodeJS.ProcessEnv; uid?: number } = {}) =>
  spawnSync(process.execPath, [VMI, ...args], { encoding: 'utf8', ...options });

/** The error that a call ends in. */
async function failure(call: () => unknown): Promise<Error & { code?: string }> {
  try {
    await call();
  } catch (error) {
    return error as Error;
  }
  throw new Error('nothing was thrown');
}

describe('wrong input, as a new user would try it', () => {
  let lab: LabGuest;
  let guest: Guest;
  const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-test-'));

  // biome-ignore lint/suspicious/noExplicitAny: as a program without types calls it
  const any = () => guest as any;
  const search = async (...args: unknown[]) => {
    for await (const hit of any().search(...args)) return hit;
  };

  beforeAll(async () => {
    lab = await bootGuest({ suite: 'bookworm', flavour: 'cloud', memory: 512 });
    guest = await attach(`qemu:${lab.pid}`);
  });
  afterAll(async () => {
    await guest?.close();
    await lab?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it('no such process', async () => {
    const error = await failure(() => attach('qemu:2147483646'));
    expect(error.code).toBe('VMI_ATTACH');
    expect(error.message).toMatch(/there is no process 2147483646.*vmi list/);
    expect(vmi(['ps', 'qemu:2147483646']).status).toBe(3);
  });

  it('a process that is no QEMU', async () => {
    const error = await failure(() => attach(`qemu:${process.pid}`));
    expect(error.code).toBe('VMI_ATTACH');
    expect(error.message).toMatch(/no QEMU/);
  });

  it('no right to trace it', ({ skip }) => {
    if (process.getuid?.() !== 0) skip('needs root to become another user');
    const { status, stderr } = vmi(['ps', `qemu:${lab.pid}`], {
      uid: 65534,
      env: { ...process.env, HOME: folder, XDG_CACHE_HOME: folder },
    });
    expect(stderr).toMatch(/no right|may not/);
    expect(stderr).toMatch(/root|CAP_SYS_PTRACE/);
    expect(status).toBe(3);
  });

  it('a QMP socket nobody listens on', async () => {
    const missing = await failure(() => attach(`qmp:${folder}/none`));
    expect(missing.code).toBe('VMI_ATTACH');
    expect(missing.message).toMatch(/no such socket/);
    const path = join(folder, 'dead');
    const server = createServer().listen(path);
    await new Promise((resolve) => server.once('listening', resolve));
    const child = spawn('sleep', ['0']);
    await new Promise((resolve) => child.once('exit', resolve));
    // A bound socket without a listener: what a QEMU that was killed leaves behind.
    spawnSync('python3', [
      '-c',
      `import socket; socket.socket(socket.AF_UNIX).bind(${JSON.stringify(`${path}2`)})`,
    ]);
    server.close();
    const dead = await failure(() => attach(`qmp:${path}2`));
    expect(dead.code).toBe('VMI_ATTACH');
    expect(dead.message).toMatch(/nobody listens/);
  });

  it('a QMP socket that another client holds', async () => {
    const holder = connect(lab.qmpPath!);
    await once(holder, 'data');
    const error = await failure(() => attach(`qmp:${lab.qmpPath}`));
    holder.destroy();
    expect(error.code).toBe('VMI_ATTACH');
    expect(error.message).toMatch(/another client holds it/);
  });

  it('a truncated image, and a file that is no image', async () => {
    const core = join(folder, 'core');
    await lab.dumpElf(core);
    truncateSync(core, 300);
    const truncated = await failure(() => attach(`image:${core}`));
    expect(truncated.code).toBe('VMI_ATTACH');
    expect(truncated.message).toMatch(/truncated/);
    const text = join(folder, 'text');
    writeFileSync(text, 'no image\n');
    const small = await failure(() => attach(`image:${text}`));
    expect(small.code).toBe('VMI_ATTACH');
    expect(small.message).toMatch(/no memory image/);
    truncateSync(text, 64 << 20);
    const empty = await failure(() => attach(`image:${text}`));
    expect(empty.code).toBe('VMI_ATTACH');
    expect(empty.message).toMatch(/no running Linux kernel/);
    const elf = await failure(() => attach(`image:${process.execPath}`));
    expect(elf.code).toBe('VMI_ATTACH');
    expect(elf.message).toMatch(/no core/);
  });

  it('PIDs that name no task', async () => {
    const zero = await failure(() => guest.pidToCr3(0));
    expect(zero.code).toBe('VMI_NO_TASK');
    expect(zero.message).toMatch(/idle task/);
    expect(await failure(() => guest.pidToCr3(-1))).toBeInstanceOf(RangeError);
    expect(await failure(() => guest.pidToCr3(1.5))).toBeInstanceOf(RangeError);
    expect(await failure(() => guest.pidToCr3('1' as unknown as number))).toBeInstanceOf(TypeError);
    const none = await failure(() => guest.pidToCr3(4_000_000));
    expect(none.code).toBe('VMI_NO_TASK');
    expect((await failure(() => guest.pidToCr3(2 ** 31 - 1))).code).toBe('VMI_NO_TASK');
    const target = `qemu:${lab.pid}`;
    expect(vmi(['cr3', target, '4000000']).status).toBe(1);
    expect(vmi(['cr3', target, '0']).status).toBe(1);
    expect(vmi(['cr3', target, '-5']).status).toBe(2);
    expect(vmi(['cr3', target, 'init']).status).toBe(2);
    expect(vmi(['cr3', target]).status).toBe(2);
    expect(vmi(['cr3']).status).toBe(2);
    expect(vmi(['no-such-command']).status).toBe(2);
  });

  it("a thread's id", () => {
    const thread = guest.tasks({ threads: true }).find((task) => !task.leader)!;
    expect(guest.task(thread.pid).tgid).toBe(thread.tgid);
    expect(guest.pidToCr3(thread.pid)).toBe(thread.cr3);
  });

  it('odd addresses, and the last one', async () => {
    const banner = guest.symbol('linux_banner');
    expect(guest.read(banner + 1n, 5).toString()).toBe('inux ');
    for (const address of [2n ** 64n - 1n, 0n, 0x8000_0000_0000_0000n, 0xffff_ffff_ffff_f001n]) {
      const error = await failure(() => guest.read(address, 16));
      expect(error).toBeInstanceOf(FaultError);
      expect(error.code).toBe('VMI_FAULT');
      expect(error.message).toMatch(/cannot read 16 bytes at 0x/);
    }
    expect(await failure(() => guest.read(2n ** 64n, 1))).toBeInstanceOf(RangeError);
    expect(await failure(() => guest.read(-1n, 1))).toBeInstanceOf(RangeError);
    expect(await failure(() => guest.read(2 ** 53, 1))).toBeInstanceOf(RangeError);
    expect((await failure(() => guest.readPhysical(2n ** 63n, 1))).code).toBe('VMI_FAULT');
    expect(guest.walk(2n ** 64n - 1n).physical).toBeUndefined();
  });

  it('symbols and types that are not there', async () => {
    const symbol = await failure(() => guest.symbol('init_tusk'));
    expect(symbol.code).toBe('VMI_SYMBOL');
    expect(symbol.message).toMatch(/init_task/);
    expect((await failure(() => guest.type('task_strukt'))).code).toBe('VMI_TYPE');
  });

  it.each<[string, () => unknown, RegExp]>([
    ["tasks({ threads: 'x' })", () => any().tasks({ threads: 'x' }), /threads as a boolean/],
    ['crossView(5)', () => any().crossView(5), /crossView\(\) without arguments/],
    ['cpus(5)', () => any().cpus(5), /cpus\(\) without arguments/],
    ['pause(5)', () => any().pause(5), /pause\(\) without arguments/],
    ['search', () => search('x', { pids: 1 }), /did you mean pid/],
    ['search', () => search(5), /pattern as bytes, a string or a bigint but received 5/],
    ['search', () => search(undefined), /received undefined/],
    ['whatIs', () => any().whatIs(0x400000n, { pids: 1 }), /did you mean pid/],
    ['trapSwitches', () => any().trapSwitches({}), /pids as an array but received undefined/],
    ['pauseWhen', () => any().pauseWhen(), /options as an object but received undefined/],
    ['object', () => any().object(undefined, 0n), /type as a string/],
    ['variable', () => any().variable(5), /name as a string but received 5/],
    ['perCpu', () => any().perCpu(undefined, 0), /name as a string/],
    ['$member', () => any().task(1).object.$member(), /path as a string/],
    ['$has', () => any().task(1).object.$has(), /path as a string/],
    ['attach', () => attach(`qemu:${lab.pid}`, { profile: {} as never }), /Expected profile as/],
    ['attach', () => attach(`qemu:${lab.pid}`, { profile: [5] as never }), /Expected profile as/],
  ])('%s with an argument that it would not read', async (_name, call, message) => {
    const error = await failure(call);
    expect(error).toBeInstanceOf(TypeError);
    expect(error.message).toMatch(message);
  });

  it('a script that awaits what never comes', () => {
    const ended = vmi(['run', `qemu:${lab.pid}`, '-e', 'await new Promise(() => {})']);
    expect(ended.stderr).toBe(
      'vmi: ended before it was done: what the script awaits never comes\n',
    );
    expect(ended.status).toBe(1);
  });

  it('libvmi missing, and libvmi too old', () => {
    const missing = vmi(['ps', 'libvmi:/dev/null'], {
      env: { ...process.env, LIBVMI_LIBRARY: `${folder}/libvmi.so.0` },
    });
    expect(missing.stderr).toMatch(/libvmi/);
    expect(missing.status).toBe(3);
    const library = join(folder, 'old.so');
    const compiled = spawnSync('cc', ['-shared', '-o', library, '-x', 'c', '-'], {
      input: 'int vmi_destroy(void *v) { return 0; }\n',
    });
    expect(compiled.status).toBe(0);
    const old = vmi(['ps', 'libvmi:/dev/null'], {
      env: { ...process.env, LIBVMI_LIBRARY: library },
    });
    expect(old.stderr).toMatch(/too old|lacks|missing/);
    expect(old.status).toBe(3);
  });

  it('use after close', async () => {
    const closed = await attach(`qemu:${lab.pid}`, { cache: true }).catch(
      (error: unknown) => error as VmiError,
    );
    // The monitor is held by the first guest; the map is worked out from the process instead.
    if (closed instanceof VmiError) throw closed;
    await closed.close();
    await closed.close();
    expect((await failure(() => closed.tasks())).code).toBe('VMI_CLOSED');
    expect((await failure(() => closed.pidToCr3(1))).code).toBe('VMI_CLOSED');
    expect((await failure(() => closed.read(0n, 1))).code).toBe('VMI_CLOSED');
  });
});

it('a guest that is killed while it is paused has ended, for its monitor as well', async () => {
  const lab = await bootGuest({ suite: 'bookworm', flavour: 'cloud', memory: 512 });
  try {
    const guest = await attach(`qemu:${lab.pid}`);
    const pause = await guest.pause();
    lab.kill();
    await vi.waitFor(() => expect(() => guest.tasks()).toThrow(/exited/));
    for (const call of [() => guest.registers(), () => guest.pause(), () => guest.tasks()]) {
      const error = await failure(call);
      expect(error.code).toBe('VMI_CLOSED');
      expect(error.message).toMatch(/QEMU process \d+ has exited/);
    }
    await pause.resume();
    await guest.close();
  } finally {
    await lab.close();
  }
});

describe.each(['anonymous', 'file'] as const)(
  'a guest that exits in the middle of a walk (%s RAM)',
  (backend) => {
    it('ends in VMI_CLOSED, never in a wrong answer', async () => {
      const lab = await bootGuest({ suite: 'bookworm', flavour: 'cloud', memory: 512, backend });
      const guest = await attach(`qemu:${lab.pid}`);
      try {
        const count = guest.tasks({ threads: true }).length;
        setTimeout(() => lab.kill(), 50);
        const end = Date.now() + 20_000;
        let error: unknown;
        while (error === undefined && Date.now() < end) {
          try {
            // Whatever comes back before the end is whole.
            expect(guest.tasks({ threads: true }).length).toBeGreaterThan(count / 2);
          } catch (thrown) {
            error = thrown;
          }
          await new Promise((resolve) => setImmediate(resolve));
        }
        expect(error).toBeInstanceOf(VmiError);
        expect((error as VmiError).code).toBe('VMI_CLOSED');
        expect((error as VmiError).message).toMatch(/exited/);
      } finally {
        await guest.close();
        await lab.close();
      }
    });
  },
);
