import { spawn, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attach, type Guest } from '../../lib/index.js';
import { ProcessView } from '../../lib/serve/gdb/process-view.js';
import { GdbServer } from '../../lib/serve/gdb/server.js';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';
import { sleepers } from '../lab/sleepers.mjs';

const missing = spawnSync('gdb', ['--version']).error ? 'gdb is not installed' : undefined;
const vmi = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const END = 'END-OF';

/** Frames of each thread, the way gdb prints them, by TID; paths of the sysroot are the guest's. */
function stacks(text: string, sysroot: string): Map<number, string[]> {
  const found = new Map<number, string[]>();
  let frames: string[] = [];
  for (const line of text.replaceAll(sysroot, '').split('\n')) {
    // gdbserver's threads are `Thread PID.TID`, those of a process itself `LWP TID` or `process
    // PID`.
    const thread = /^Thread \d+ \((?:Thread \d+\.|LWP |process )(\d+)/.exec(line);
    if (thread !== null) {
      frames = [];
      found.set(Number(thread[1]), frames);
    } else if (/^#\d+ /.test(line)) frames.push(line.replace(/\s+/g, ' '));
  }
  return found;
}

if (missing !== undefined) console.warn(`gdb.test.ts is skipped: ${missing}`);
describe.skipIf(missing !== undefined)('gdb on processes of a running guest', () => {
  let lab: LabGuest;
  let guest: Guest;
  let debug: string;
  let pids: number[];
  const sysroot = mkdtempSync(join(tmpdir(), 'node-libvmi-sysroot-'));
  const ours = `set sysroot ${sysroot}`;

  beforeAll(async () => {
    const made = await sleepers({ inside: true });
    debug = made.debug;
    for (const [name, file] of Object.entries(made.files)) {
      if (name.startsWith('debugger/')) continue;
      mkdirSync(dirname(join(sysroot, name)), { recursive: true });
      cpSync(file, join(sysroot, name), { dereference: true });
    }
    lab = await bootGuest({ backend: 'file', cpus: 1, tasks: 5, files: made.files });
    await lab.shell(made.start);
    guest = await attach(`qemu:${lab.pid}`);
    pids = [...guest.tasks()]
      .filter(({ comm }) => /^(pie|fixed|static|static-pie|optimised|compat)$/.test(comm))
      .map(({ pid }) => pid);
  });
  afterAll(async () => {
    await guest?.close();
    await lab?.close();
    rmSync(sysroot, { recursive: true, force: true });
  });

  /** Runs gdb here with these commands. */
  async function gdb(commands: string[]): Promise<string> {
    const quiet = ['set debug-file-directory /nonexistent', 'set width 0', 'set pagination off'];
    const words = [...quiet, ours, ...commands].flatMap((command) => ['-ex', command]);
    const child = spawn('gdb', ['-nx', '-batch', ...words], { stdio: ['ignore', 'pipe', 'pipe'] });
    let text = '';
    child.stderr.setEncoding('utf8').on('data', (piece) => {
      text += piece;
    });
    for await (const piece of child.stdout.setEncoding('utf8')) text += piece;
    return text;
  }

  it('sees the stacks that gdb in the guest sees', async () => {
    expect(pids.length).toBe(21);
    const servers: GdbServer[] = [];
    const outside: string[] = [];
    const inside: string[] = [];
    for (const pid of pids) {
      const server = new GdbServer(new ProcessView(guest, pid), { log: () => {} });
      await server.listen('private');
      servers.push(server);
      const back = ['thread apply all bt', 'detach', `echo ${END} ${pid}\\n`, 'file'];
      outside.push(`target remote ${server.address}`, ...back);
      inside.push(`attach ${pid}`, ...back);
    }
    // What is outside first: the other stops each process, which is then on another way out of it.
    const seen = stacks(await gdb(outside), sysroot);
    for (const server of servers) server.close();
    const words = ['set width 0', ...inside].map((line) => `-ex '${line}'`).join(' ');
    const truth = stacks(await lab.shell(`${debug} ${words} 2>&1 </dev/null`), sysroot);
    // 20 processes, 5 of them with three more threads, and the 32-bit one.
    expect(truth.size).toBe(36);
    for (const [tid, frames] of truth) {
      expect(frames.length, String(tid)).toBeGreaterThan(3);
      expect(seen.get(tid), String(tid)).toEqual(frames);
    }
    expect(seen.size).toBe(truth.size);
  });

  it('has the registers and the auxiliary vector that the guest tells', async () => {
    const view = new ProcessView(guest, pids[0]!);
    const found = view.registers(pids[0]!);
    if (!('saved' in found)) throw new Error(found.why);
    const told = (await lab.shell(`cat /proc/${pids[0]}/syscall`)).trim().split(' ');
    const { orig_rax, rdi, rsi, rdx, r10, r8, r9, rsp, rip } = found.saved;
    expect([orig_rax, rdi, rsi, rdx, r10, r8, r9, rsp, rip]).toEqual(told.map(BigInt));
    const auxv = await lab.shell(`od -A n -v -t x1 /proc/${pids[0]}/auxv`);
    expect(Buffer.from(view.auxv()).toString('hex')).toBe(auxv.replace(/\s/g, ''));
  });

  it('is a command that gdb can start itself, and changes nothing', async () => {
    const pid = pids[0]!;
    const pipe = `| ${process.execPath} ${vmi} gdbserver qemu:${lab.pid} ${pid} -l - --pause`;
    const text = await gdb([
      `target remote ${pipe}`,
      'print/x marks[0]',
      'info sharedlibrary',
      'print *(int *)8',
      'monitor why 8',
      'set var marks[0] = 1',
      'continue',
      'print/x marks[0]',
    ]);
    expect(text).toMatch(/\$1 = 0x1122334455667788/);
    expect(text).toMatch(/Yes .*liboutside\.so/);
    expect(text).toMatch(/0x8 is not in memory: the process has nothing there/);
    expect(text).toMatch(/\$2 = 0x1122334455667788/);
    // The guest runs on, and so does the process.
    expect(await lab.shell(`cat /proc/${pid}/stat`)).toMatch(/\) S /);
  });

  it('has no registers for what runs, and no process for a thread of the kernel', async () => {
    await lab.command('spin on');
    const spinner = [...guest.tasks()].find(({ comm }) => comm === 'busy-0')!;
    const view = new ProcessView(guest, spinner.pid);
    const looks = Array.from({ length: 50 }, () => view.registers(spinner.pid));
    await lab.command('spin off');
    const runs = looks.filter((look) => 'why' in look && /runs|ran/.test(look.why));
    expect(runs.length).toBeGreaterThan(0);
    expect(() => new ProcessView(guest, 2)).toThrow(/no user memory/);
    expect(() => new ProcessView(guest, 4_000_000)).toThrow(/no task/i);
  });
});
