import { attach, type Guest, type StructObject } from 'node-libvmi';
import {
  cgroup,
  children,
  cmdline,
  commandLine,
  cwd,
  dmesg,
  environ,
  exe,
  files,
  interrupts,
  modules,
  mounts,
  namespaces,
  pageState,
  parents,
  processes,
  root,
  rss,
  runQueues,
  sockets,
  threads,
  vmas,
} from 'node-libvmi/helpers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';

/** What a process's folder in /proc says, by the name of the file. */
type Proc = ReadonlyMap<string, readonly string[]>;

/** Prints the files of every process's folder: `=== PID`, then `-- NAME` before each. */
const EVERY_PROCESS = `for p in /proc/[0-9]*; do echo "=== \${p#/proc/}";
for f in status maps stack; do echo "-- $f"; cat $p/$f; done;
for f in cmdline environ; do echo "-- $f"; xxd -p $p/$f; done;
echo "-- fd"; for f in $p/fd/*; do echo "\${f##*/} $(readlink $f)"; done;
for f in exe cwd root; do echo "-- $f"; readlink $p/$f; done;
echo "-- ns"; for f in $p/ns/*; do readlink $f; done; done 2>/dev/null`.replaceAll('\n', ' ');
const EVERY_STACK = `for p in /proc/[0-9]*/task/*; do echo "=== \${p##*/}"; echo "-- stack"; cat $p/stack; done 2>/dev/null`;
/** A shell that runs the above looks different from outside: it waits for orders then. */
const INIT = 1;

function parse(text: string): Map<number, Proc> {
  const all = new Map<number, Proc>();
  for (const part of text.split('=== ').slice(1)) {
    const [pid, ...sections] = part.split('-- ');
    const files = sections.map((section): [string, string[]] => {
      const [name, ...lines] = section.trimEnd().split('\n');
      return [name!, lines];
    });
    all.set(Number(pid), new Map(files));
  }
  return all;
}

const fromHex = (lines: readonly string[] | undefined) =>
  Buffer.from((lines ?? []).join(''), 'hex').toString('latin1');
const joined = (strings: readonly string[] | null) =>
  (strings ?? []).map((text) => `${text}\0`).join('');
const hexOf = (value: bigint) => value.toString(16).padStart(8, '0');

describe.each(['bullseye', 'bookworm', 'trixie', 'sid'])('a running guest of %s', (suite) => {
  let lab: LabGuest;
  let guest: Guest;
  let proc: Map<number, Proc>;

  beforeAll(async () => {
    lab = await bootGuest({ suite, backend: 'memfd', memory: 256, cpus: 1, tasks: 10 });
    await lab.shell(
      'mkdir -p /tmp/m; mount -t tmpfs none /tmp/m; ip link set lo up; ' +
        '(exec nc -l -p 1234 </dev/null >/dev/null 2>&1 &); ' +
        '(cd /tmp/m; FOO=bar exec sleep 100000 <&- >/tmp/m/out 2>&1 &); ' +
        '(cd /tmp/m; echo x > gone; exec sleep 100001 <gone >/dev/null 2>&1 &); sleep 1; rm /tmp/m/gone',
    );
    proc = parse(await lab.shell(EVERY_PROCESS));
    guest = await attach(`qemu:${lab.pid}`);
  });
  afterAll(async () => {
    await guest?.close();
    await lab?.close();
  });

  /** The same processes here and in /proc. */
  function* both(): Generator<{ pid: number; task: StructObject; truth: Proc }> {
    for (const task of processes(guest.objects)) {
      const truth = proc.get(task.pid);
      if (truth !== undefined) yield { pid: task.pid, task, truth };
    }
  }
  const compared = (check: (pid: number, task: StructObject, truth: Proc) => void) => {
    let count = 0;
    for (const { pid, task, truth } of both()) {
      check(pid, task, truth);
      count++;
    }
    expect(count).toBeGreaterThan(40);
  };

  it('has the arguments, environment, program and directories of every process', () => {
    compared((pid, task, truth) => {
      expect([pid, joined(cmdline(guest.objects, task))]).toEqual([
        pid,
        fromHex(truth.get('cmdline')),
      ]);
      expect([pid, joined(environ(guest.objects, task))]).toEqual([
        pid,
        fromHex(truth.get('environ')),
      ]);
      for (const [name, of] of Object.entries({ exe, cwd, root })) {
        expect([pid, name, of(task) ?? undefined]).toEqual([pid, name, truth.get(name)?.[0]]);
      }
    });
  });

  it('has every part of every address space, with its file', () => {
    compared((pid, task, truth) => {
      const found = task.mm === null ? [] : [...vmas(task.mm)];
      const lines = found.map(
        (vma) =>
          `${hexOf(vma.start)}-${hexOf(vma.end)} ${vma.flags} ${hexOf(vma.offset)} ${vma.name}`,
      );
      const expected = (truth.get('maps') ?? [])
        .filter((line) => !line.endsWith('[vsyscall]'))
        .map((line) => line.replace(/^(\S+ \S+ \S+) \S+ \d+\s*/, '$1 '));
      expect([pid, ...lines]).toEqual([pid, ...expected]);
    });
  });

  it('has every open file of every process but the shell', () => {
    compared((pid, task, truth) => {
      if (pid === INIT) return;
      const found = [...files(task)].map(({ fd, path }) => `${fd} ${path}`).sort();
      const expected = (truth.get('fd') ?? []).filter((line) => !line.startsWith('*')).sort();
      expect([pid, ...found]).toEqual([pid, ...expected]);
    });
    const all = [...both()].flatMap(({ task }) => [...files(task)].map(({ path }) => path));
    expect(all).toContain('/tmp/m/gone (deleted)');
  });

  it('has the namespaces, cgroup and family of every process', () => {
    compared((pid, task, truth) => {
      const links = truth.get('ns') ?? [];
      for (const [name, number] of Object.entries(namespaces(task))) {
        if (number === null) continue;
        expect([pid, links.includes(`${name}:[${number}]`)]).toEqual([pid, true]);
      }
      const parent = parents(task)[0];
      const ppid = truth.get('status')?.find((line) => line.startsWith('PPid:'));
      expect([pid, `PPid:\t${parent?.tgid}`]).toEqual([pid, ppid]);
      expect([...children(parent!)].map((child) => child.pid)).toContain(pid);
      expect(cgroup(task)).toBe('/');
      const count = truth.get('status')?.find((line) => line.startsWith('Threads:'));
      expect(`Threads:\t${[...threads(task)].length}`).toBe(count);
    });
  });

  it('counts the pages of every address space', () => {
    compared((_pid, task, truth) => {
      const line = truth.get('status')?.find((text) => text.startsWith('VmRSS:'));
      if (task.mm === null || line === undefined) return;
      const { file, anonymous, shared } = rss(guest.objects, task.mm);
      // Each CPU and task keeps up to 64 pages to itself before they are counted.
      const pages = Number(/\d+/.exec(line)![0]) / 4;
      expect(Math.abs(Number(file + anonymous + shared) - pages)).toBeLessThan(65);
    });
  });

  it('says where a page of user memory is', () => {
    const task = guest.task(INIT).object;
    const [text] = [...vmas(task.mm)];
    expect(pageState(guest.objects, task.mm, text!.start)).toBe('present');
    expect(pageState(guest.objects, task.mm, 0x1000n)).toBe('unmapped');
    const states = [...vmas(task.mm)].flatMap(({ start, end }) =>
      Array.from({ length: Number((end - start) >> 12n) }, (_, page) =>
        pageState(guest.objects, task.mm, start + BigInt(page) * 4096n),
      ),
    );
    expect(states).toContain('untouched');
    expect(states).not.toContain('unmapped');
  });

  it('has the modules, mounts, command line, log and sockets of the guest', async () => {
    const { objects } = guest;
    const lines = [...modules(objects)].map(({ name, size, base }) => [name, size, base]);
    const expected = (await lab.shell('cat /proc/modules')).trim().split('\n');
    expect(lines).toEqual(
      expected.map((line) => {
        const [name, size, , , , base] = line.split(' ');
        return [name, Number(size), BigInt(base!)];
      }),
    );
    expect(commandLine(objects)).toBe((await lab.shell('cat /proc/cmdline')).trim());

    const init = guest.task(1).object;
    const mounted = [...mounts(init)].map(
      (mount) => `${mount.id} ${mount.parentId} ${mount.root} ${mount.path} ${mount.type}`,
    );
    for (const line of (await lab.shell('cat /proc/self/mountinfo')).trim().split('\n')) {
      const match = /^(\d+ \d+) \S+ (\S+ \S+) .* - (\S+) /.exec(line)!;
      expect(mounted).toContain(`${match[1]} ${match[2]} ${match[3]}`);
    }

    const log = [...dmesg(objects)].flatMap(({ time, text }) =>
      text
        .split('\n')
        .map((line) => `[${(Number(time / 1000n) / 1e6).toFixed(6).padStart(12)}] ${line}`),
    );
    const printed = (await lab.shell('dmesg')).trimEnd().replaceAll('\\', '\\\\');
    expect(log).toEqual(printed.split('\n'));

    expect([...sockets(objects)].filter(({ family }) => family === 'inet6')).toMatchObject([
      { protocol: 'TCPv6', state: 'LISTEN', local: '[::]:1234' },
    ]);
    // The serial port's go on while they are printed.
    const taken = (lines: string[]) => lines.filter((line) => !line.includes('ttyS'));
    const counted = [...interrupts(objects)].map(
      ({ irq, counts, actions }) => `${irq}: ${counts.join(' ')} ${actions.join(', ')}`,
    );
    const told = (await lab.shell('cat /proc/interrupts')).split('\n').flatMap((line) => {
      const match = /^ *(\d+): +(\d+) +\S+ +\S+ +(\S.*)$/.exec(line);
      return match === null ? [] : [`${match[1]}: ${match[2]} ${match[3]}`];
    });
    expect(told.length).toBeGreaterThan(3);
    expect(taken(counted)).toEqual(taken(told));

    expect(runQueues(objects)).toMatchObject([{ cpu: 0 }]);
  });

  it('has all registers of a vCPU, and with them the stack of a task that runs', async () => {
    await lab.command('spin on');
    const pause = await guest.pause();
    try {
      const [row] = await guest.registers();
      // What every kernel sets up at boot, wherever its CPU is now.
      expect(row).toMatchObject({ vcpu: 0, efer: expect.any(BigInt), rsp: expect.any(BigInt) });
      expect((row!.efer & 0x500n) === 0x500n && (row!.cr0 & 0x80000001n) === 0x80000001n).toBe(
        true,
      );
      expect(guest.symbolAt(row!.idtBase!)?.name ?? 'cpu entry area').toBeTypeOf('string');
      const inKernel = (row!.cs! & 3n) === 0n;
      if (inKernel) expect(row!.gsBase).toBe(guest.kernel.perCpuOffset(0));
      const [cpu] = guest.cpus();
      if (cpu!.task.pid === 0 || cpu!.switching) return;
      const { pid } = cpu!.task;
      expect(() => cpu!.task.stack()).toThrow(/await guest\.stack\(pid\)/);
      expect(await guest.registersOf(pid)).toEqual(row);
      const stack = await guest.stack(pid);
      expect([stack.vcpu, stack.incomplete]).toEqual([0, undefined]);
      expect(stack.length > 0).toBe(inKernel);
      if (inKernel) expect(stack[0]!.address).toBe(row!.rip);
      await expect(guest.registersOf(2)).rejects.toMatchObject({ code: 'VMI_UNSUPPORTED' });
    } finally {
      await pause.resume();
      await lab.command('spin off');
    }
  });

  it('has the stack of every task that did not run meanwhile', async () => {
    // Who ran in between has another stack by now: its count of switches tells.
    const switches = () =>
      new Map(
        guest
          .tasks({ threads: true })
          .map(({ pid, object }) => [pid, object.nvcsw + object.nivcsw]),
      );
    const first = switches();
    const truths = parse(await lab.shell(EVERY_STACK));
    const start = guest.symbol('__sched_text_start');
    const end = guest.symbol('__sched_text_end');
    const found = new Map<number, { lines: string[]; incomplete: string | undefined }>();
    for (const task of guest.tasks({ threads: true })) {
      if (task.state === 'Z') {
        expect(() => task.stack()).toThrow(expect.objectContaining({ code: 'VMI_UNSUPPORTED' }));
        continue;
      }
      if (guest.cpus().some((cpu) => cpu.task.pid === task.pid)) continue;
      const stack = task.stack();
      // /proc leaves out the scheduler's own functions: kernel/stacktrace.c, in_sched_functions.
      const lines = stack
        .filter(({ address }) => address < start || address >= end)
        .map(({ symbol, offset }) => `${symbol}+0x${offset.toString(16)}`);
      found.set(task.pid, { lines, incomplete: stack.incomplete });
    }
    const last = switches();
    let count = 0;
    for (const [pid, stack] of found) {
      const truth = truths.get(pid)?.get('stack');
      if (truth === undefined || first.get(pid) !== last.get(pid)) continue;
      const expected = truth.map((line) => line.replace(/^\[<0>\] (\S+)\/0x[0-9a-f]+/, '$1'));
      expect([pid, stack.incomplete, ...stack.lines]).toEqual([pid, undefined, ...expected]);
      count++;
    }
    expect(count).toBeGreaterThan(60);
  });
});
