import { spawnSync } from 'node:child_process';
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  attach,
  CR3_SOURCES,
  type Guest,
  type TaskColumns,
  type TaskJson,
  UNREADABLE,
} from '../../lib/index.js';
import { compareTasks, expectedCr3 } from '../lab/compare.mjs';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';
import type { Truth } from '../lab/truth.mjs';

const VMI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

/** Runs the built command and returns its standard output's JSON lines. */
function vmi(...args: string[]): {
  status: number | null;
  rows: Record<string, unknown>[];
  stderr: string;
} {
  const { status, stdout, stderr } = spawnSync(process.execPath, [VMI, ...args], {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  return {
    status,
    stderr,
    rows: stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Record<string, unknown>),
  };
}

const CELLS = [
  { suite: 'bookworm', backend: 'anonymous' },
  { suite: 'bookworm', backend: 'file' },
  { suite: 'trixie', backend: 'anonymous' },
  { suite: 'trixie', backend: 'memfd' },
] as const;

describe.each(CELLS)('Debian $suite, $backend RAM', ({ suite, backend }) => {
  let lab: LabGuest;
  let guest: Guest;
  let truth: Truth;
  const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-test-'));

  beforeAll(async () => {
    lab = await bootGuest({ suite, flavour: 'cloud', backend, memory: 512, cpus: 2 });
    guest = await attach(`qemu:${lab.pid}`);
    truth = await lab.truth({ freeze: 'halt' });
  });

  afterAll(async () => {
    await guest?.close();
    await lab?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const threads = () =>
    truth.tasks.filter((task) => task.kind === 'process' || task.kind === 'thread');

  it('lists every task and thread as the oracle does', () => {
    const tasks = guest.tasks({ threads: true }).map((task) => task.toJSON());
    expect(compareTasks(truth, tasks)).toEqual([]);
    const processes = guest.tasks().map((task) => task.toJSON());
    expect(compareTasks(truth, processes, { threads: false })).toEqual([]);
    // The workload has what is rare; a listing without it would prove little.
    const sources = new Set(tasks.map((task) => task.cr3Source));
    expect([...sources].sort()).toEqual(expect.arrayContaining(['exited', 'mm', 'none', 'thread']));
    expect(tasks.some((task) => task.nsPids.length > 2)).toBe(true);
  });

  it.each([false, true])(
    "gives the same as columns, which are the caller's (threads: %s)",
    (threads) => {
      // The first listing tells how much room the others need.
      guest.taskColumns({ threads });
      const kept = guest.taskColumns({ threads });
      const tasks = guest.tasks({ threads });
      const row = (columns: TaskColumns, i: number) => ({
        pid: columns.pid[i],
        tgid: columns.tgid[i],
        ppid: columns.ppid[i],
        uid: columns.uid[i],
        flags: columns.flags[i],
        startTime: columns.startTime[i],
        task: columns.task[i],
        mm: columns.mm[i],
        activeMm: columns.activeMm[i],
        cr3: columns.cr3[i],
        cr3Source: CR3_SOURCES[columns.cr3Source[i]!],
      });
      const expected = tasks.map((task) => ({
        pid: task.pid,
        tgid: task.tgid,
        ppid: task.ppid ?? UNREADABLE,
        uid: task.uid ?? UNREADABLE,
        flags: task.flags,
        startTime: task.startTime,
        task: task.address,
        mm: task.mm ?? 0n,
        activeMm: task.activeMm ?? 0n,
        cr3: task.cr3 ?? 0n,
        cr3Source: task.cr3Source,
      }));
      const rows = (columns: TaskColumns) =>
        Array.from({ length: columns.count }, (_, i) => row(columns, i));
      expect(rows(kept)).toEqual(expected);
      // The next listing starts from the last one, and neither touches what is in other hands.
      const changed = guest.taskColumns({ threads });
      for (const column of Object.values(changed)) {
        if (ArrayBuffer.isView(column)) new Uint8Array(column.buffer).fill(0xff);
      }
      expect(rows(kept)).toEqual(expected);
      expect(rows(guest.taskColumns({ threads }))).toEqual(expected);
    },
  );

  it('prints the same with vmi ps --threads --json', () => {
    const { status, rows, stderr } = vmi('ps', `qemu:${lab.pid}`, '--threads', '--json');
    expect(stderr).toBe('');
    expect(status).toBe(0);
    expect(compareTasks(truth, rows as unknown as TaskJson[])).toEqual([]);
  });

  it('finds every task and thread by PID, with the same answer', () => {
    const listed = new Map(guest.tasks({ threads: true }).map((task) => [task.pid, task.toJSON()]));
    for (const task of threads()) {
      expect(guest.task(task.pid).toJSON(), `PID ${task.pid}`).toEqual(listed.get(task.pid));
      expect(guest.pidToCr3(task.pid), `PID ${task.pid}`).toBe(expectedCr3(truth, task).cr3);
    }
  });

  it('answers vmi cr3 for all of them', () => {
    const pids = threads().map((task) => String(task.pid));
    const { status, rows } = vmi('cr3', `qemu:${lab.pid}`, '--json', ...pids);
    expect(status).toBe(0);
    const expected = threads().map((task) => {
      const { cr3, source } = expectedCr3(truth, task);
      return {
        pid: task.pid,
        cr3: cr3 === null ? null : `0x${cr3.toString(16)}`,
        cr3Source: source,
      };
    });
    expect(rows.map(({ pid, cr3, cr3Source }) => ({ pid, cr3, cr3Source }))).toEqual(expected);
  });

  it('finds the way back from every CR3, in any form that hardware holds', () => {
    const sharers = new Map<bigint, number[]>();
    for (const task of truth.tasks) {
      // An idle task counts where its CPU has the address space loaded.
      const { cr3 } = expectedCr3(truth, task);
      if (cr3 === null || task.kind === 'hidden') continue;
      sharers.set(cr3, [...(sharers.get(cr3) ?? []), task.pid]);
    }
    const sorted = (pids: number[]) => [...pids].sort((a, b) => a - b);
    for (const [cr3, pids] of sharers) {
      const forms = [cr3, cr3 | 0x5n, cr3 | (1n << 63n), cr3 | (1n << 62n) | (1n << 61n) | 0xfffn];
      if (truth.facts.pti) forms.push(cr3 | 0x1000n | 0x805n);
      for (const form of forms) {
        expect(
          sorted(guest.cr3ToTasks(form).map((task) => task.pid)),
          `0x${form.toString(16)}`,
        ).toEqual(sorted(pids));
      }
    }
    const values = [...sharers.keys()].map((cr3) => `0x${cr3.toString(16)}`);
    const { status, rows } = vmi('who', `qemu:${lab.pid}`, '--json', ...values);
    expect(status).toBe(0);
    const found = new Map<string, number[]>();
    for (const row of rows) {
      const cr3 = String(row.cr3);
      found.set(cr3, [...(found.get(cr3) ?? []), Number(row.pid)]);
    }
    for (const [cr3, pids] of sharers) {
      expect(sorted(found.get(`0x${cr3.toString(16)}`) ?? [])).toEqual(sorted(pids));
    }
  });

  it('says what every CPU runs, as the registers do', async () => {
    const registers = await guest.registers();
    for (const { cpu, task, cr3 } of guest.cpus()) {
      const told = truth.cpus.find((candidate) => candidate.cpu === cpu)!;
      expect(task.address).toBe(told.task);
      expect(task.pid).toBe(told.pid);
      expect(cr3).toBe(told.loadedPgd);
      expect(guest.cr3Base(told.cr3)).toBe(cr3);
      expect(guest.cr3Base(registers.find((row) => row.vcpu === cpu)!.cr3)).toBe(cr3);
    }
  });

  it('knows the kernel as the guest does', async () => {
    const { kernel } = guest;
    expect(kernel.release).toBe(truth.facts.release);
    expect(kernel.levels).toBe(truth.facts.levels);
    expect(kernel.pti).toBe(truth.facts.pti);
    expect(kernel.pageOffset).toBe(truth.facts.pageOffset);
    expect(kernel.cr3).toBe(truth.facts.initTopPgtPhysical);
    expect(guest.symbol('init_task')).toBe(truth.facts.initTask);
    expect(guest.symbol('_stext')).toBe(truth.facts.stext);
    for (const [path, bytes] of truth.offsets) {
      const [struct = '', member = ''] = path.split(/\.(.*)/);
      expect(kernel.types.offset(struct, member), path).toBe(bytes);
    }
  });

  it('has every symbol that the guest has, at the same address', async () => {
    await lab.thaw();
    // Lines of modules end in their name; per-CPU symbols and duplicates are told apart by address.
    const told = (await lab.kallsyms())
      .split('\n')
      .filter((line) => line !== '' && !line.includes('['));
    const ours = [...guest.kernel.symbols.entries()].map(
      ({ address, type, name }) => `${address.toString(16).padStart(16, '0')} ${type} ${name}`,
    );
    expect(told.length).toBeGreaterThan(50_000);
    expect(ours.sort()).toEqual(told.sort());
    truth = await lab.truth({ freeze: 'halt' });
  });

  it('sees a task that is taken off the list', async () => {
    await lab.thaw();
    expect(guest.crossView().filter((row) => row.missing.length > 0)).toEqual([]);
    const victim = guest.tasks().find((task) => task.leader && task.mm !== null && task.pid > 1)!;
    await lab.command(`hide ${victim.pid}`);
    const hidden = guest.crossView().filter((row) => row.missing.length > 0);
    expect(hidden.map(({ task, missing }) => [task.pid, missing])).toEqual([
      [victim.pid, ['list']],
    ]);
    expect(guest.tasks().some((task) => task.pid === victim.pid)).toBe(false);
    expect(guest.pidToCr3(victim.pid)).toBe(victim.cr3);
    await lab.command('unhide');
    truth = await lab.truth({ freeze: 'halt' });
  });

  it('stops and resumes the guest', async () => {
    await lab.thaw();
    const running = async () => ((await lab.qmp('query-status')) as { running: boolean }).running;
    const pause = await guest.pause();
    expect(await running()).toBe(false);
    await pause.resume();
    await pause.resume();
    expect(await running()).toBe(true);
    truth = await lab.truth({ freeze: 'halt' });
  });

  it('reads the same through an ELF core of the guest', async () => {
    const core = join(folder, 'guest.elf');
    await lab.stop();
    await lab.dumpElf(core);
    const { status, rows, stderr } = vmi('ps', `image:${core}`, '--threads', '--json');
    expect(stderr).toBe('');
    expect(status).toBe(0);
    expect(compareTasks(truth, rows as unknown as TaskJson[])).toEqual([]);
    await lab.cont();
  });

  // The same bytes whatever backs RAM; unpacking them takes its time.
  it.runIf(backend === 'anonymous')('reads the same through a LiME dump and a kdump', async () => {
    await lab.stop();
    // The same RAM as LiME writes it: a header of 32 bytes before each range, the last byte's
    // address in it.
    const lime = join(folder, 'guest.lime');
    const raw = join(folder, 'guest.raw');
    writeFileSync(lime, '');
    for (const { start, length } of guest.memory.ranges) {
      await lab.dumpRange(raw, start, Number(length));
      const header = Buffer.alloc(32);
      header.writeUInt32LE(0x4c694d45, 0);
      header.writeUInt32LE(1, 4);
      header.writeBigUInt64LE(start, 8);
      header.writeBigUInt64LE(start + length - 1n, 16);
      appendFileSync(lime, header);
      appendFileSync(lime, readFileSync(raw));
    }
    const kdump = join(folder, 'guest.kdump');
    await lab.qmp('dump-guest-memory', {
      paging: false,
      protocol: `file:${kdump}`,
      format: 'kdump-zlib',
    });
    for (const path of [lime, kdump]) {
      const image = await attach(`image:${path}`);
      const tasks = image.tasks({ threads: true }).map((task) => task.toJSON());
      expect(compareTasks(truth, tasks), path).toEqual([]);
      await image.close();
    }
    await lab.cont();
  });
});
