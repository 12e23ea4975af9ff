import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attach, type Guest, libvmiKernel, type TaskJson } from '../../lib/index.js';
import { Libvmi } from '../../lib/libvmi/index.js';
import { libvmiReport } from '../../lib/libvmi/report.js';
import { compareTasks, expectedCr3, expectedSharers } from '../lab/compare.mjs';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';
import { libvirtMissing, URI } from '../lab/libvirt.mjs';
import { run } from '../lab/run.mjs';
import type { Truth } from '../lab/truth.mjs';

const VMI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const CHILD = fileURLToPath(new URL('../lifecycle/child.mjs', import.meta.url));

const missing = await libvirtMissing();
const reason = missing === '' ? '' : ` – skipped: ${missing}`;
if (missing !== '') console.warn(`libvirt tests${reason}`);
const report = libvmiReport();
const kvm =
  report.usable && report.drivers.some(({ name, present }) => name === 'kvm' && present === true);
if (!kvm) console.warn(`kvm: tests – skipped: ${report.error ?? 'this libvmi has no KVM driver'}`);

/** Runs the built command; its standard output's JSON lines. */
function vmi(args: string[], env: NodeJS.ProcessEnv = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [VMI, ...args], {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    env: { ...process.env, ...env },
  });
  const lines = stdout.split('\n').filter((line) => line.startsWith('{'));
  return {
    status,
    stderr,
    stdout,
    rows: lines.map((line) => JSON.parse(line) as Record<string, unknown>),
  };
}

const state = async (name: string) =>
  (await run('virsh', ['-q', '-c', URI, 'domstate', '--domain', name])).trim();
const inOrder = (pids: readonly number[]) => [...pids].sort((a, b) => a - b);

/**
 * A listing through KVM's driver takes half a second, and twenty times that on a host that is busy.
 */
const SLOW = 400_000;

/** Few tasks: through libvmi's KVM driver a page of memory takes a millisecond or two. */
const CELLS = [
  { suite: 'bookworm', backend: 'anonymous', memory: 256, name: '10' },
  { suite: 'trixie', backend: 'memfd', memory: 4096, name: "-x web:1, my 'vm'" },
] as const;

describe.skipIf(missing !== '').each(CELLS)(
  `a libvirt domain named $name, Debian $suite, $backend RAM${reason}`,
  { timeout: SLOW },
  ({ suite, backend, memory, name }) => {
    let lab: LabGuest;
    let truth: Truth;
    const guests: Record<string, Guest> = {};
    const sources = kvm ? ['libvirt', 'kvm'] : ['libvirt'];

    beforeAll(async () => {
      lab = await bootGuest({
        libvirt: name,
        suite,
        flavour: 'cloud',
        backend,
        memory,
        cpus: 2,
        tasks: 5,
      });
      truth = await lab.truth({ freeze: 'halt' });
      await lab.stop();
      for (const source of sources) {
        guests[source] = await attach(`${source}:${name}`);
        // What the first one found of this kernel saves the slow one a minute.
        await guests[source].kernel.remember();
      }
    });
    afterAll(async () => {
      for (const guest of Object.values(guests)) await guest.close();
      await lab?.close();
    });

    const threads = () => truth.tasks.filter(({ kind }) => kind === 'process' || kind === 'thread');

    it('has the memory map that QEMU tells', () => {
      const { memory: ram, capabilities } = guests.libvirt!;
      expect(capabilities).toMatchObject({
        registers: true,
        pause: true,
        map: backend === 'memfd',
      });
      // q35 keeps 2 GiB below the hole. QEMU hw/i386/pc_q35.c.
      const low = memory > 2048 ? 2048n << 20n : BigInt(memory) << 20n;
      expect(ram.contains(0x10_0000n, low - 0x10_0000n)).toBe(true);
      expect(ram.contains(low)).toBe(false);
      if (memory > 2048) expect(ram.end).toBe((4096n << 20n) + (BigInt(memory) << 20n) - low);
      if (!kvm) return;
      const other = guests.kvm!.memory;
      expect(other.end).toBe(ram.end);
      expect(other.contains(0x10_0000n, low - 0x10_0000n)).toBe(true);
      expect(other.contains(low)).toBe(false);
      expect(other.contains(0xa_0000n)).toBe(false);
    });

    describe.each(sources)('through %s:', (source) => {
      it('lists every task and thread as the oracle does', () => {
        const tasks = guests[source]!.tasks({ threads: true }).map((task) => task.toJSON());
        expect(compareTasks(truth, tasks)).toEqual([]);
        expect(tasks.length).toBe(threads().length);
      });

      it('finds every task by PID, and the way back from every CR3', () => {
        const guest = guests[source]!;
        for (const task of threads()) {
          expect(guest.pidToCr3(task.pid), `PID ${task.pid}`).toBe(expectedCr3(truth, task).cr3);
        }
        // With KVM's libvmi every look back is a listing.
        const sharers = [...expectedSharers(truth)].slice(0, source === 'kvm' ? 8 : undefined);
        expect(sharers.length).toBeGreaterThan(4);
        for (const [cr3, pids] of sharers) {
          const found = guest.cr3ToTasks(cr3 | (1n << 63n) | 5n).map(({ pid }) => pid);
          expect(inOrder(found), `0x${cr3.toString(16)}`).toEqual(inOrder(pids));
        }
      });

      it('says what every CPU runs, as the registers do', async () => {
        const guest = guests[source]!;
        const registers = await guest.registers();
        expect(registers.map(({ vcpu }) => vcpu)).toEqual([0, 1]);
        const cpus = guest.cpus();
        expect(cpus.length).toBe(truth.cpus.length);
        for (const { cpu, task, cr3 } of cpus) {
          const told = truth.cpus.find((candidate) => candidate.cpu === cpu)!;
          expect(task.address).toBe(told.task);
          expect(cr3).toBe(told.loadedPgd);
          expect(guest.cr3Base(registers[cpu]!.cr3)).toBe(cr3);
        }
      });

      it('answers vmi ps, vmi cr3 and vmi who', () => {
        const target = `${source}:${name}`;
        const listed = vmi(['ps', target, '--threads', '--json']);
        expect(listed.stderr).toBe('');
        expect(compareTasks(truth, listed.rows as unknown as TaskJson[])).toEqual([]);
        const found = vmi(['cr3', target, '--json', ...threads().map(({ pid }) => String(pid))]);
        expect(found.status).toBe(0);
        expect(found.rows.map(({ pid, cr3, cr3Source }) => [pid, cr3, cr3Source])).toEqual(
          threads().map((task) => {
            const { cr3, source } = expectedCr3(truth, task);
            return [task.pid, cr3 === null ? null : `0x${cr3.toString(16)}`, source];
          }),
        );
        const [cr3, pids] = [...expectedSharers(truth)].sort(
          ([, a], [, b]) => b.length - a.length,
        )[0]!;
        expect(pids.length).toBeGreaterThan(1);
        const who = vmi(['who', target, '--json', `0x${cr3.toString(16)}`]);
        expect(inOrder(who.rows.map(({ pid }) => Number(pid)))).toEqual(inOrder(pids));
      });
    });

    it.skipIf(!kvm)('is the same through both', () => {
      const of = (source: string) =>
        guests[source]!.tasks({ threads: true }).map((task) => task.toJSON());
      expect(of('kvm')).toEqual(of('libvirt'));
    });

    it.skipIf(!kvm)(
      "answers libvmi's own calls, once libvmi is told the kernel that was found",
      async () => {
        const { kernel } = guests.libvirt!;
        await using libvmi = await Libvmi.init({ mode: 'kvm', name });
        expect(await libvmi.initOs({ kernel: libvmiKernel(kernel) })).toBe('linux');
        const init = kernel.symbols.address('init_task');
        expect(await libvmi.translateKsym2v('init_task')).toBe(init);
        expect(await libvmi.translateKv2p(init)).toBe(kernel.memory.translate(init));
        expect(await libvmi.getVcpureg('CR3', 1)).toBe((await guests.libvirt!.registers())[1]!.cr3);
        const processes = threads().filter(({ pid, tgid, mm }) => pid === tgid && mm !== 0n);
        expect(processes.length).toBeGreaterThan(4);
        for (const { pid, cr3 } of processes.slice(0, 8))
          expect(await libvmi.pidToDtb(pid)).toBe(cr3);
      },
    );

    it('is told by vmi list', () => {
      const row = vmi(['list', '--json']).rows.find(({ pid }) => pid === lab.pid)!;
      expect(row).toMatchObject({
        name,
        readable: true,
        targets: [`qemu:${lab.pid}`, `libvirt:${name}`],
      });
    });

    it('can be attached with no libvirt at all', async () => {
      const guest = await attach(`qemu:${lab.pid}`);
      const tasks = guest.tasks({ threads: true }).map((task) => task.toJSON());
      expect(compareTasks(truth, tasks)).toEqual([]);
      await guest.close();
    });
  },
);

describe.skipIf(missing !== '')(`a libvirt domain that lives${reason}`, { timeout: SLOW }, () => {
  const name = 'node-libvmi 1';
  let lab: LabGuest;

  beforeAll(async () => {
    lab = await bootGuest({
      libvirt: name,
      suite: 'bookworm',
      flavour: 'cloud',
      memory: 256,
      tasks: 5,
    });
  });
  afterAll(async () => {
    await lab?.close();
  });

  /**
   * Whether the guest runs, soon: the guard of a pause takes a moment to see that a process died.
   */
  async function runsAgain(): Promise<boolean> {
    for (let tries = 0; tries < 100; tries++) {
      if ((await state(name)) === 'running') return true;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return false;
  }

  const sources = kvm ? ['libvirt', 'kvm'] : ['libvirt'];

  it.each(sources)('is suspended and resumed through %s, as libvirt sees it', async (source) => {
    const guest = await attach(`${source}:${name}`);
    const pause = await guest.pause();
    expect(await state(name)).toBe('paused');
    await pause.resume();
    expect(await state(name)).toBe('running');
    await guest.close();
  });

  it.each(sources)('stays suspended when somebody else did that (%s)', async (source) => {
    await lab.stop();
    const guest = await attach(`${source}:${name}`);
    await (await guest.pause()).resume();
    await guest.close();
    expect(await state(name)).toBe('paused');
    await lab.cont();
  });

  const ends = sources.flatMap((source) =>
    ['return', 'SIGTERM', 'SIGKILL'].map((end) => [source, end]),
  );
  it.each(ends)(
    'runs on when a process that paused it through %s ends by %s',
    async (source, end) => {
      const { stdout, stderr } = spawnSync(
        process.execPath,
        [CHILD, `${source}:${name}`, 'steps', 'pause', end!],
        {
          encoding: 'utf8',
          timeout: 60_000,
        },
      );
      expect({ stderr, said: stdout.trim().split('\n').at(-1) }).toEqual({
        stderr: '',
        said: 'pause',
      });
      expect(await runsAgain()).toBe(true);
    },
  );

  it('has its switches trapped, and runs on with no stub', async () => {
    await lab.command('churn on');
    try {
      await using guest = await attach(`libvirt:${name}`);
      const { pid } = guest.tasks().find(({ comm }) => comm === 'churn')!;
      let taken = 0;
      for await (const { task, previous, missed } of guest.trapSwitches({ pids: [pid] })) {
        expect([task.pid, previous?.pid]).toContain(pid);
        expect(missed).toBe(0);
        if (++taken === 20) break;
      }
      const devices = (await lab.qmp('query-chardev')) as { label: string }[];
      expect(devices.map(({ label }) => label)).not.toContain('gdb');
      expect(await runsAgain()).toBe(true);
    } finally {
      await lab.command('churn off');
    }
  });

  it('sees what changed since the last look', async () => {
    for (const source of sources) {
      await using guest = await attach(`${source}:${name}`);
      // Threads of the kernel come and go by themselves.
      const processes = () => guest.tasks().filter((task) => task.mm !== null).length;
      const before = processes();
      await lab.command('tasks 3');
      expect(processes()).toBe(before + 3);
    }
  });

  it('is named by its UUID as well', async () => {
    const uuid = (await run('virsh', ['-q', '-c', URI, 'domuuid', '--domain', name])).trim();
    await using guest = await attach({ kind: 'libvirt', name: uuid, uri: URI });
    expect(guest.task(1).pid).toBe(1);
  });

  it('is not written through libvmi, which would write to our own standard input', async ({
    skip,
  }) => {
    if (!kvm) skip('this libvmi has no KVM driver');
    const libvmi = await Libvmi.init({ mode: 'kvm', name });
    await expect(libvmi.write8Pa(0x1000n, 1)).rejects.toMatchObject({ code: 'VMI_UNSUPPORTED' });
    await libvmi.destroy();
  });

  describe('and what goes wrong', () => {
    const fails = (target: string, env: NodeJS.ProcessEnv = {}) => {
      const { status, stderr } = vmi(['ps', target], env);
      expect(status).toBe(3);
      return stderr;
    };

    it('a name that is nearly right', () => {
      expect(fails('libvirt:node-libvmi 2')).toMatch(
        /has no domain of this name; did you mean node-libvmi 1\?/,
      );
    });

    it('a number, which virsh would take for an id', async () => {
      const id = (await run('virsh', ['-q', '-c', URI, 'domid', '--domain', name])).trim();
      expect(id).toMatch(/^\d+$/);
      expect(fails(`libvirt:${id}`)).toMatch(/has no domain of this name/);
    });

    it('no virsh', () => {
      expect(fails(`libvirt:${name}`, { PATH: '/nonexistent' })).toMatch(
        /virsh is not installed: sudo apt-get/,
      );
    });

    it('no libvirtd', () => {
      const uri = 'qemu+unix:///system?socket=/nonexistent';
      expect(fails(`libvirt:${name}`, { LIBVIRT_DEFAULT_URI: uri })).toMatch(
        /no libvirtd answers there/,
      );
    });

    it("another host's libvirt, which no memory can be read through", () => {
      const uri = 'qemu+ssh://root@example.org/system';
      expect(fails(`libvirt:${name}`, { LIBVIRT_DEFAULT_URI: uri })).toMatch(
        /leads to another host/,
      );
    });

    it('no right to use libvirt', ({ skip }) => {
      if (process.getuid?.() !== 0) skip('needs root to become another user');
      const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-test-'));
      const { status, stderr } = spawnSync(process.execPath, [VMI, 'ps', `libvirt:${name}`], {
        encoding: 'utf8',
        uid: 65534,
        gid: 65534,
        cwd: '/',
        env: { ...process.env, HOME: folder, XDG_CACHE_HOME: folder },
      });
      rmSync(folder, { recursive: true });
      expect(stderr).toMatch(/no right/);
      expect(status).toBe(3);
    });

    it('a domain that is not running', async () => {
      const off = 'node-libvmi off';
      const xml = `<domain type='qemu'><name>${off}</name><memory unit='MiB'>64</memory><os><type arch='x86_64'>hvm</type></os></domain>`;
      const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-test-'));
      writeFileSync(join(folder, 'domain.xml'), xml);
      await run('virsh', ['-q', '-c', URI, 'define', '--file', join(folder, 'domain.xml')]);
      rmSync(folder, { recursive: true });
      try {
        expect(fails(`libvirt:${off}`)).toMatch(/not running \(shut off\)/);
      } finally {
        await run('virsh', ['-q', '-c', URI, 'undefine', '--domain', off]);
      }
    });

    it('an abort', async () => {
      const signal = AbortSignal.abort();
      await expect(attach(`libvirt:${name}`, { signal })).rejects.toMatchObject({
        code: 'VMI_ABORTED',
      });
      const controller = new AbortController();
      const attaching = attach(`libvirt:${name}`, { signal: controller.signal });
      controller.abort();
      await expect(attaching).rejects.toMatchObject({ code: 'VMI_ABORTED' });
    });

    // The last one: it ends the guest.
    it('a domain that ends while it is attached', async () => {
      const guests = [await attach(`libvirt:${name}`)];
      if (kvm) guests.push(await attach(`kvm:${name}`));
      await lab.close();
      for (const guest of guests) {
        for (const call of [
          () => guest.tasks(),
          () => guest.readPhysical(0x10_0000n, 8),
          () => guest.registers(),
          () => guest.pause(),
        ]) {
          await expect((async () => call())(), `${guest.target}, ${call}`).rejects.toMatchObject({
            code: 'VMI_CLOSED',
          });
        }
        await guest.close();
      }
    });
  });
});
