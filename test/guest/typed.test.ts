import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';

const vmi = join(fileURLToPath(new URL('../..', import.meta.url)), 'dist/cli/main.js');

/** script(1) gives a program a terminal. */
const NO_TERMINAL = spawnSync('script', ['--version']).status !== 0;
if (NO_TERMINAL) console.log('skipped: there is no script(1) here, so no terminal to type at');

/** What a researcher types at a running guest, and what the guest's own /proc says. */
describe.each(['bookworm', 'trixie'])('things that are typed at a guest of %s', (suite) => {
  let lab: LabGuest;
  let pid: number;
  /** Lines that wait to be run together, and what each must print. */
  const asked: { line: string; expected: string | RegExp }[] = [];
  const ask = (line: string, expected: string | RegExp | number | bigint) =>
    asked.push({ line, expected: expected instanceof RegExp ? expected : String(expected) });

  beforeAll(async () => {
    lab = await bootGuest({ suite, backend: 'memfd', memory: 256, cpus: 1, tasks: 5 });
    await lab.shell('ip link set lo up; (exec nc -l -p 1234 </dev/null >/dev/null 2>&1 &)');
    const start = '(cd /tmp; LAB_WORD=needle exec sleep 100003 </dev/zero >/dev/null 2>&1 &)';
    await lab.shell(`${start}; sleep 1`);
    pid = Number(await lab.shell('pidof sleep'));
    expect(pid).toBeGreaterThan(1);
  });
  afterAll(() => lab?.close());

  it('answers as /proc does', async () => {
    const proc = async (path: string) => (await lab.shell(`cat /proc/${path}`)).trimEnd();
    const link = async (path: string) => (await lab.shell(`readlink /proc/${path}`)).trimEnd();
    const count = async (what: string) => Number(await lab.shell(`${what} | wc -l`));
    // A task's mm and pgd.
    ask(`kernel.memory.translate(task(${pid}).object.mm.pgd.$address) === cr3(${pid})`, 'true');
    // Its VMAs with files.
    const maps = (await proc(`${pid}/maps`)).split('\n').filter((one) => !/vsyscall/.test(one));
    ask(`vmas(${pid}).length`, maps.length);
    ask(`vmas(${pid})[0].name`, `'${maps[0]!.split(/\s+/)[5]}'`);
    // Its open files with paths.
    const open = await lab.shell(`for f in /proc/${pid}/fd/*; do readlink $f; done`);
    const paths = open.trim().split('\n').sort().join(' ');
    ask(`files(${pid}).map(({ path }) => path).sort().join(' ')`, `'${paths}'`);
    // Command line and environment.
    ask(`cmdline(${pid}).join(' ')`, "'sleep 100003'");
    ask(`environ(${pid}).includes('LAB_WORD=needle')`, 'true');
    // Program, working directory, namespaces, cgroup.
    ask(`exe(${pid})`, `'${await link(`${pid}/exe`)}'`);
    ask(`cwd(${pid})`, "'/tmp'");
    ask(`namespaces(${pid}).mnt`, /\d+/.exec(await link(`${pid}/ns/mnt`))![0]);
    ask(`cgroup(${pid})`, "'/'");
    // Parents and children.
    ask(`parents(${pid})[0].pid`, /PPid:\s+(\d+)/.exec(await proc(`${pid}/status`))![1]!);
    ask(`children(1).some((one) => one.pid === ${pid})`, 'true');
    // Modules.
    ask(
      "modules().map(({ name, size }) => name + ' ' + size).join()",
      `'${(await proc('modules')).split(' ').slice(0, 2).join(' ')}'`,
    );
    // The log.
    ask('dmesg().length', await count('dmesg'));
    // A variable of one CPU.
    ask("perCpu('runqueues', 0).cpu", '0');
    // An address as a structure.
    ask(`object('task_struct', task(${pid}).address).comm`, "'sleep'");
    // Along a list, and from a member to what it is in.
    ask(
      "[...list(variable('init_task').tasks, 'struct task_struct', 'tasks')].length === ps().length",
      'true',
    );
    ask(
      `containerOf(task(${pid}).object.$member('tasks').address, 'task_struct', 'tasks').pid`,
      pid,
    );
    // A tree, an XArray, a maple tree.
    ask("[...idr(variable('init_pid_ns').idr)].some(({ index }) => index === 1n)", 'true');
    ask(`[...mapleTree(task(${pid}).object.mm.mm_mt)].length`, maps.length);
    // A constant, a typedef.
    ask("constant('PIDTYPE_SID')", '0x3n');
    ask("sizeof('pid_t')", '4');
    // The stack of a sleeping task.
    const top = (await proc(`${pid}/stack`)).split('\n').at(-1)!;
    ask(`String(stack(${pid}).at(-1).symbol)`, `'${/ ([\w.]+)\+/.exec(top)![1]}'`);
    // Bytes in a process and in all of RAM.
    ask(`(await search('LAB_WORD=needle', ${pid})).length > 0`, 'true');
    ask("(await search('LAB_WORD=needle')).length > 0", 'true');
    // What an address is.
    ask(
      `whatIs(task(${pid}).object.$address)[0].text`,
      new RegExp(`^'task_struct of ${pid} \\(sleep\\)`),
    );
    // Sockets and their owners.
    ask("sockets().find(({ local }) => local.endsWith(':1234')).state", "'LISTEN'");
    // An address through the page tables of a process.
    ask(`translate(task(${pid}).object.mm.start_code, { pid: ${pid} }) > 0n`, 'true');

    const input = `${asked.map(({ line }) => line).join('\n')}\n`;
    const { stdout, stderr, status } = spawnSync(
      process.execPath,
      [vmi, 'repl', `qemu:${lab.pid}`],
      { input, encoding: 'utf8' },
    );
    expect({ stderr, status }).toEqual({ stderr: '', status: 0 });
    const printed = stdout.trimEnd().split('\n');
    for (const [i, { line, expected }] of asked.entries()) {
      if (expected instanceof RegExp) expect(printed[i], line).toMatch(expected);
      else expect(`${line} → ${printed[i]}`).toBe(`${line} → ${expected}`);
    }
    expect(printed.length).toBe(asked.length);
  });

  it('takes commands, too', () => {
    const input = [
      '.explain 1',
      '.stack 2',
      '.what init_task',
      '.hexdump linux_banner 16',
      '.types list_head',
      '.search BOOT_IMAGE_that_is_nowhere',
      '.dis schedule 2',
      '.attach',
      'ps()',
      '.pipe head -1',
    ].join('\n');
    const { stdout, stderr, status } = spawnSync(
      process.execPath,
      [vmi, 'repl', `qemu:${lab.pid}`],
      { input: `${input}\n`, encoding: 'utf8' },
    );
    expect({ stderr, status }).toEqual({ stderr: '', status: 0 });
    for (const expected of [
      / 1\. init_pid_ns\n/,
      /\nkthreadd\+0x|\nschedule\+0x/,
      /\{ kind: 'symbol', text: 'init_task' \}/,
      /\|Linux version /,
      /\nlist_head\n/,
      /0xffffffff[0-9a-f]{8} schedule .*\n0xffffffff[0-9a-f]{8} schedule\+0x/,
      /\nLinux \d.*, \d+ processes\n/,
      /\n *PID .*COMM\n$/,
    ])
      expect(stdout).toMatch(expected);
  });

  it.skipIf(NO_TERMINAL)('ends what is awaited by Ctrl-C, on a terminal', async () => {
    const line = `'${process.execPath}' '${vmi}' repl qemu:${lab.pid}`;
    const child = spawn('script', ['-qfc', line, '/dev/null'], {
      env: { ...process.env, NODE_LIBVMI_HISTORY: '', TERM: 'xterm', NO_COLOR: '1' },
    });
    let shown = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      shown += text;
    });
    const until = (text: RegExp) =>
      vi.waitFor(() => expect(shown).toMatch(text), { timeout: 60_000, interval: 50 });
    const type = (keys: string) => child.stdin.write(keys);
    await until(/\n.*> /);
    type('await watch(() => "seen", 100)\r');
    await until(/\n'seen'/);
    type('\x03');
    await until(/interrupted/);
    type('for await (const one of guest.watchTasks()) console.log("event")\r');
    await new Promise((resolve) => setTimeout(resolve, 1000));
    type('\x03');
    await until(/interrupted[\s\S]*interrupted/);
    type('while (true) {}\r');
    await new Promise((resolve) => setTimeout(resolve, 1000));
    type('\x03');
    await until(/interrupted[\s\S]*interrupted[\s\S]*interrupted/);
    type('6 * 7\r');
    await until(/\n42/);
    type('\x04');
    await once(child, 'close');
    expect(child.exitCode).toBe(0);
  });
});
