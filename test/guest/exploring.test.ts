import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { attach } from 'node-libvmi';
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
    expect(code.length).toBe(2);
    for (const { text } of code) {
      const file = join(folder, 'block.mjs');
      // Node 20 has no `await using`.
      const plain = text.replaceAll('await using', 'const').replaceAll('qemu:4242', target);
      writeFileSync(file, `${plain}\nawait guest.close();`);
      const { status, stdout, stderr } = node(file);
      expect(stderr).toBe('');
      expect(status).toBe(0);
      const promised = [...text.matchAll(/console\.log\(.*\);\s*\/\/ (.*)$/gm)];
      expect(promised.length).toBeGreaterThan(4);
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
      expect(guest.explain(54_321)).toMatchObject({
        cr3: undefined,
        error: { code: 'VMI_NO_TASK' },
      });
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
