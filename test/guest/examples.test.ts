import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';

const examples = fileURLToPath(new URL('../../examples', import.meta.url));

/** An example that runs; its lines come one by one. */
class Running implements Disposable {
  readonly child: ChildProcessWithoutNullStreams;
  readonly lines: AsyncIterator<string>;
  readonly ended: Promise<number | null>;
  errors = '';

  constructor(name: string, ...words: string[]) {
    this.child = spawn(process.execPath, ['--no-warnings', `${examples}/${name}`, ...words]);
    this.child.stderr.on('data', (piece) => {
      this.errors += piece;
    });
    this.ended = new Promise((resolve) => this.child.once('close', resolve));
    this.lines = createInterface(this.child.stdout)[Symbol.asyncIterator]();
  }

  async line(): Promise<string> {
    const { value, done } = await this.lines.next();
    if (done === true) throw new Error(`it ended: ${this.errors}`);
    return value;
  }

  async all(): Promise<string[]> {
    const all: string[] = [];
    for (let next = await this.lines.next(); next.done !== true; next = await this.lines.next())
      all.push(next.value);
    return all;
  }

  [Symbol.dispose]() {
    this.child.kill('SIGKILL');
  }
}

describe('the examples', () => {
  let lab: LabGuest;
  let target: string;

  beforeAll(async () => {
    lab = await bootGuest({ backend: 'file', memory: 256, cpus: 1, tasks: 5, reboot: true });
    target = `qemu:${lab.pid}`;
  });
  afterAll(() => lab?.close());

  it('pid-to-cr3 and who-has-cr3 find their way there and back', async () => {
    using there = new Running('pid-to-cr3.mjs', target, '1', '4000000');
    const [one = '', none] = await there.all();
    expect(one).toMatch(/^1 \(init\): 0x[0-9a-f]+000, source mm$/);
    expect(none).toBe('4000000: no such task');
    using back = new Running('who-has-cr3.mjs', target, /0x[0-9a-f]+/.exec(one)![0]);
    expect((await back.all()).join('\n')).toMatch(/\b1\b.*\binit\b/);
  });

  it('watch-tasks.mjs watches until it is interrupted', async () => {
    using running = new Running('watch-tasks.mjs', target);
    expect(await running.line()).toMatch(/^\d+ processes; watching$/);
    running.child.kill('SIGINT');
    expect(await running.ended, running.errors).toBe(0);
  });

  it('commonjs.cjs requires and imports', async () => {
    using running = new Running('commonjs.cjs', target);
    expect(await running.line()).toMatch(/^1 init 0x[0-9a-f]+$/);
    expect(await running.line()).toMatch(/console=/);
    expect(await running.ended, running.errors).toBe(0);
  });

  it('process-appears.mjs tells of the process it waits for', async () => {
    using running = new Running('process-appears.mjs', target, 'appears');
    expect(await running.line()).toMatch(/^waiting for appears/);
    // Begun some time later, and again until it was met.
    const [found] = await Promise.all([
      running.line(),
      lab.shell(
        'cp /bin/busybox /tmp/appears; for i in 1 2 3; do sleep 1; /tmp/appears sleep 1; done',
      ),
    ]);
    expect(found).toMatch(/^(birth|exec): PID \d+, /);
    running.child.kill('SIGINT');
    expect(await running.ended, running.errors).toBe(0);
  });

  it('name-cr3-log.mjs names what the CPUs had loaded', async () => {
    await lab.command('spin on');
    using running = new Running('name-cr3-log.mjs', target, '1');
    const lines = await running.all();
    await lab.command('spin off');
    expect(lines.length).toBeGreaterThan(3);
    expect(lines.some((line) => /\d+ cpu 0 0x[0-9a-f]+ \d+ busy-0/.test(line))).toBe(true);
    expect(running.errors).toMatch(/^\d+ values; /);
  });

  it('task-table.mjs serves several clients, also after a reset', async () => {
    using running = new Running('task-table.mjs', target);
    const url = await running.line();
    const table = async () => {
      for (;;) {
        const response = await fetch(url);
        const body = (await response.json()) as { pid: number; comm: string; task: string }[];
        if (response.status === 200) return body;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    };
    const [first, second] = await Promise.all([table(), table()]);
    expect(first.some(({ comm }) => comm === 'busy-0')).toBe(true);
    expect(second.length).toBeGreaterThan(10);
    const stream = await fetch(url.replace('/tasks', '/stream'));
    const reader = stream.body!.getReader();
    expect(new TextDecoder().decode((await reader.read()).value)).toMatch(/^\[\{"pid":1,/);
    await reader.cancel();
    // The kernel that boots has its direct map elsewhere, so nothing stays where it was.
    const init = (tasks: { pid: number; task: string }[]) =>
      tasks.find(({ pid }) => pid === 1)?.task;
    await lab.reboot();
    await expect.poll(async () => init(await table()), { timeout: 60_000 }).not.toBe(init(first));
    expect((await fetch(url.replace('/tasks', '/else'))).status).toBe(404);
  }, 240_000);
});
