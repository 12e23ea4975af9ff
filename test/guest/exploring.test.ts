import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { attach } from 'node-libvmi';
import { environ, files } from 'node-libvmi/helpers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';
import type { Truth } from '../lab/truth.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const vmiPath = join(root, 'dist/cli/main.js');
const page = readFileSync(join(root, 'docs/exploring.md'), 'utf8');
const blocks = [...page.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].map(
  ([, language = '', text = '']) => ({ language, text }),
);

/** A line of documented output as a pattern: numbers and addresses are another guest's. */
function pattern(line: string): RegExp {
  const parts = line.trim().split(/(0x[0-9a-f]+|\s+)/);
  const source = parts.map((part, i) => {
    if (i % 2 === 0) return part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
    return part.trim() === '' ? '\\s+' : '0x[0-9a-f]+';
  });
  return new RegExp(`^\\s*${source.join('')}\\s*$`);
}

function node(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  return { status, stdout, stderr };
}

describe('exploring a running guest', () => {
  let lab: LabGuest;
  let truth: Truth;
  let target: string;
  // Inside the checkout, where the package's own name resolves.
  const folder = mkdtempSync(join(root, 'build', 'exploring-'));

  beforeAll(async () => {
    lab = await bootGuest({ suite: 'bookworm', backend: 'file', memory: 256, cpus: 1, tasks: 5 });
    truth = await lab.truth();
    target = `qemu:${lab.pid}`;
  });
  afterAll(async () => {
    await lab?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it('prints what the code of docs/exploring.md says it prints', () => {
    const code = blocks.filter(({ language }) => language === 'js');
    expect(code.length).toBe(3);
    for (const { text } of code) {
      const file = join(folder, 'block.mjs');
      // Node 20 has no `await using`.
      const plain = text.replaceAll('await using', 'const').replaceAll('qemu:4242', target);
      writeFileSync(file, `${plain}\nawait guest.close();`);
      const { status, stdout, stderr } = node(file);
      expect(stderr).toBe('');
      expect(status).toBe(0);
      const promised = [...text.matchAll(/console\.log\(.*\);\s*\/\/ (.*)$/gm)];
      expect(promised.length).toBeGreaterThan(3);
      expect(stdout.trim().split('\n')).toEqual(promised.map(([, line]) => line));
    }
  });

  it('answers the transcripts of docs/exploring.md', () => {
    const all = blocks.filter(({ language }) => language === 'console');
    expect(all.length).toBeGreaterThan(4);
    for (const { text } of all) {
      const [command = '', ...lines] = text.trimEnd().split('\n');
      const words = command.replace(/^\$ vmi /, '').replaceAll('qemu:4242', target);
      const { status, stdout } = node(vmiPath, ...words.split(' '));
      expect(status, stdout).toBe(0);
      for (const line of lines) {
        const found = stdout.split('\n').some((one) => pattern(line).test(one));
        expect(found, `${line}\n${stdout}`).toBe(true);
      }
    }
  });

  it('runs the commands of docs/exploring.md', () => {
    const lines = blocks
      .filter(({ language }) => language === 'sh')
      .flatMap(({ text }) => text.trimEnd().split('\n'));
    expect(lines.length).toBeGreaterThan(1);
    for (const line of lines) {
      const words = line.replace(/^vmi /, '').replaceAll('qemu:4242', target).split(' ');
      const done = spawnSync(process.execPath, [vmiPath, ...words], { cwd: folder });
      expect(done.status, `${line}\n${done.stderr}`).toBe(0);
    }
    const kinds = new Set(blocks.map(({ language }) => language));
    expect([...kinds].sort()).toEqual(['console', 'js', 'sh']);
  });

  it('explains every task to the answer that the oracle has', async () => {
    const guest = await attach(target);
    try {
      let count = 0;
      for (const { pid, cr3Source } of guest.tasks({ threads: true })) {
        // What runs for a moment on a CPU is not the same twice.
        if (cr3Source === 'active_mm' || cr3Source === 'loaded_mm') continue;
        const { cr3, source, error, steps } = guest.explain(pid);
        expect({ pid, source, error }).toEqual({ pid, source: cr3Source, error: undefined });
        const expected = truth.task(pid)?.cr3 ?? 0n;
        if (source === 'mm') expect(cr3).toBe(expected);
        else if (source === 'none') expect(cr3).toBeNull();
        expect(steps.length).toBeGreaterThan(7);
        count++;
      }
      expect(count).toBeGreaterThan(60);
      // The lines it gives do the same.
      const lines = guest.explain(1).steps.map(({ code }) => code);
      const script = `import { idr } from 'node-libvmi/helpers';
import { attach } from 'node-libvmi';
const guest = await attach('${target}');
${lines.slice(0, -1).join(';\n')};
console.log(${lines.at(-1)});
await guest.close();`;
      const file = join(folder, 'explained.mjs');
      writeFileSync(file, script);
      expect(node(file)).toEqual({ status: 0, stdout: `${guest.pidToCr3(1)}n\n`, stderr: '' });
      expect(guest.explain(54_321)).toMatchObject({
        cr3: undefined,
        error: { code: 'VMI_NO_TASK' },
      });
    } finally {
      await guest.close();
    }
  });

  it('sizes and prints every type that the kernel has', async () => {
    const guest = await attach(target);
    try {
      let count = 0;
      for (const name of new Set(guest.kernel.types.names())) {
        const object = guest.object(name, guest.symbol('init_task'));
        expect(object.$size).toBe(guest.objects.sizeof(name));
        const lines: string[] = object.$format();
        expect(lines.length).toBeLessThan(1100);
        expect(lines.find((line) => line.includes('cannot be shown'))).toBeUndefined();
        count++;
      }
      expect(count).toBeGreaterThan(5000);
    } finally {
      await guest.close();
    }
  });

  it('has the offsets and sizes that pahole has', async ({ skip }) => {
    if (spawnSync('pahole', ['--version']).status !== 0) skip('pahole is not installed');
    const guest = await attach(target);
    try {
      const file = join(folder, 'btf');
      const start = guest.symbol('__start_BTF');
      writeFileSync(file, guest.read(start, Number(guest.symbol('__stop_BTF') - start)));
      const { stdout } = spawnSync('pahole', ['-F', 'btf', file], {
        encoding: 'utf8',
        maxBuffer: 1 << 28,
      });
      const all = [...stdout.matchAll(/^struct (\w+) \{\n([\s\S]*?)^\}/gm)];
      const times = new Map<string, number>();
      for (const [, name = ''] of all) times.set(name, (times.get(name) ?? 0) + 1);
      const wrong: string[] = [];
      let count = 0;
      for (const [, name = '', body = ''] of all) {
        // Of several structures of one name nobody says which is meant.
        if (times.get(name)! > 1) continue;
        count++;
        const type = guest.type(name);
        const member = /^\t\S.*?[\s*](\w+)(?:\[\d*\])*;\s+\/\*\s+(\d+)\s+(\d+) \*\//gm;
        for (const [, key = '', offset, size] of body.matchAll(member)) {
          const found = type.findMember(key);
          if (found?.offset !== Number(offset) || found.size !== Number(size))
            wrong.push(`${name}.${key}`);
        }
      }
      expect(wrong).toEqual([]);
      expect(count).toBeGreaterThan(500);
    } finally {
      await guest.close();
    }
  });

  it('runs the examples of a memory dumped, a hidden task, two moments', async () => {
    const example = (name: string, ...args: string[]) =>
      node(join(root, 'examples', name), target, ...args);
    const file = join(folder, 'memory');
    const dumped = example('dump-process.mjs', '1', file);
    expect(dumped.stderr).toBe('');
    expect(dumped.stdout).toMatch(/^0x[0-9a-f]+ r-xp at \d+: \d+ of \d+ bytes/m);
    expect(readFileSync(file).subarray(0, 4).toString('latin1')).toBe('\x7fELF');

    expect(example('hidden-tasks.mjs').stdout).toBe('nothing is hidden\n');
    const { pid } = truth.tasks.find(({ comm }) => comm.toString() === 'filler')!;
    await lab.command(`hide ${pid}`);
    expect(example('hidden-tasks.mjs').stdout).toContain(`${pid} filler is not in `);
    await lab.command('unhide');

    const compared = example('compare-moments.mjs', '2000');
    expect(compared.stderr).toBe('');
    expect(compared.stdout).toMatch(/was switched to \d+ times/);
  });

  it('finds text in RAM and in a process, and says what is there', async () => {
    const guest = await attach(target);
    try {
      await lab.shell('(exec env LAB_SOUGHT=needle-in-a-guest sleep 100002 &); sleep 1');
      const found = guest
        .tasks()
        .find(
          ({ object }) =>
            object.mm?.env_end > object.mm?.env_start &&
            environ(guest.objects, object)?.includes('LAB_SOUGHT=needle-in-a-guest'),
        );
      expect(found?.comm).toBe('sleep');
      const { pid, object } = found!;
      const inside = [];
      for await (const hit of guest.search('LAB_SOUGHT=needle', { pid })) inside.push(hit);
      const [{ address, physical } = { address: 0n, physical: 0n }] = inside;
      expect(address >= object.mm.env_start && address < object.mm.env_end).toBe(true);
      expect(guest.readString(address, 64, { pid })).toBe('LAB_SOUGHT=needle-in-a-guest');
      const line = `0x${physical.toString(16)}  0x${address.toString(16)}\n`;
      const printed = node(vmiPath, 'search', target, 'LAB_SOUGHT=needle', '--pid', String(pid));
      expect(printed).toEqual({ status: 0, stdout: line, stderr: '' });
      const asked = node(
        vmiPath,
        'what',
        target,
        `0x${address.toString(16)}`,
        '--pid',
        String(pid),
      );
      expect(asked.stdout).toMatch(/^user {2}.* rw-p \[stack\], present\n$/);
      expect(node(vmiPath, 'what', target, '0x10').status).toBe(1);
      expect(node(vmiPath, 'search', target, 'zz', '--hex').status).toBe(2);
      expect(guest.whatIs(address, { pid })[0]?.text).toMatch(/ rw-p \[stack\], present$/);
      let looked = 0n;
      const all = [];
      const progress = (done: bigint) => {
        looked = done;
      };
      for await (const hit of guest.search('LAB_SOUGHT=needle', { progress }))
        all.push(hit.physical);
      expect(all).toContain(physical);
      expect(looked).toBe(guest.memory.size);

      const kinds = (place: bigint) =>
        guest.whatIs(place).map(({ kind, text }) => `${kind}: ${text}`);
      const where = object.$member('comm').address;
      expect(kinds(where)).toEqual([
        expect.stringMatching(
          new RegExp(`^task: task_struct of ${pid} \\(sleep\\) .* \\(comm\\)$`),
        ),
        expect.stringMatching(/^slab: task_struct object at /),
        expect.stringMatching(/^direct map: /),
      ]);
      expect(guest.whatIs(where)[1]?.text).toContain(`at 0x${object.$address.toString(16)} `);
      expect(kinds(object.stack.value + 8n)[0]).toBe(`stack: stack of ${pid} (sleep) + 0x8`);
      expect(kinds(guest.symbol('schedule') + 5n)[0]).toBe('symbol: schedule+0x5');
      const rq = guest.perCpu('runqueues', 0).$address;
      expect(kinds(rq)[0]).toBe('per-cpu: cpu0:runqueues');
      const file = [...files(object)][0]!.object;
      expect(kinds(file.$address)[0]).toContain(
        `slab: filp object at 0x${file.$address.toString(16)}`,
      );
      expect(kinds(0x1000n)).toEqual(['not mapped: not mapped']);
    } finally {
      await guest.close();
    }
  });

  it('writes types that a strict compiler takes, and that find a wrong member', () => {
    const { status, stderr } = node(vmiPath, 'types', target, '-o', join(folder, 'guest.d.ts'));
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    writeFileSync(
      join(folder, 'use.ts'),
      `import { attach } from 'node-libvmi';
const guest = await attach('qemu:1');
const task = guest.object('struct task_struct', 1n);
const next: bigint | undefined = task.mm?.pgd?.pgd;
// @ts-expect-error task_struct has no such member
task.nosuch;
const comm: string = task.children.$containerOf('struct task_struct', 'sibling').comm;
console.log(next, comm, guest.object('anything', 1n).goes);
`,
    );
    writeFileSync(
      join(folder, 'tsconfig.json'),
      JSON.stringify({
        compilerOptions: {
          strict: true,
          noEmit: true,
          target: 'ES2023',
          lib: ['ES2023', 'ESNext.Disposable'],
          module: 'NodeNext',
          moduleResolution: 'NodeNext',
          types: ['node'],
          paths: { 'node-libvmi': [join(root, 'dist/index.d.ts')] },
        },
        include: ['*.ts'],
      }),
    );
    writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
    const checked = node(join(root, 'node_modules/typescript/bin/tsc'), '-p', folder);
    expect(checked).toEqual({ status: 0, stdout: '', stderr: '' });
  });

  it('runs scripts, and says what they threw', () => {
    const file = join(folder, 'script.mjs');
    writeFileSync(
      file,
      'console.log(process.argv.slice(2), task(1).object.comm); await 0; oops();',
    );
    const { status, stdout, stderr } = node(vmiPath, 'run', target, file, 'a', '-1');
    expect(stdout).toBe("[ 'a', '-1' ] init\n");
    expect(stderr).toMatch(/^vmi: ReferenceError: oops is not defined\n {4}at file:.*script\.mjs/);
    expect(status).toBe(1);
    const missing = node(vmiPath, 'run', target, '-e', 'task(54321)');
    expect(missing.status).toBe(1);
    expect(missing.stderr).toMatch(/^vmi: there is no task with PID 54321/);
  });
});
