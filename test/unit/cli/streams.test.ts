import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { afterAll, beforeAll, expect, it } from 'vitest';

/** The program itself, as a process: what becomes of its output is told by the system. */
let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'node-libvmi-streams-'));
  await build({
    entryPoints: [fileURLToPath(new URL('../../../lib/cli/main.ts', import.meta.url))],
    outdir: folder,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node20.19',
  });
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Runs a line of bash in which `vmi` is the program. */
function shell(line: string) {
  const script = `vmi() { '${process.execPath}' '${folder}/main.mjs' "$@"; }; ${line}`;
  const { status, stdout, stderr } = spawnSync('bash', ['-c', script], { encoding: 'utf8' });
  return { status, stdout, stderr };
}

it('a full disk is one line, and exit code 74, which the help names', ({ skip }) => {
  if (!existsSync('/dev/full')) return skip('there is no /dev/full');
  const full = {
    status: 74,
    stdout: '',
    stderr: 'vmi: cannot write the result: ENOSPC: no space left on device, write\n',
  };
  for (const words of ['--help', 'ps --help', 'completion bash'])
    expect(shell(`vmi ${words} > /dev/full`), words).toEqual(full);
  // With nothing to write, nothing failed.
  expect(shell('vmi nosuch > /dev/full').status).toBe(2);
  expect(shell('vmi --help').stdout).toMatch(/^ +74 {2}the result cannot be written/m);
});

it('a reader that has seen enough ends it without a word', () => {
  expect(shell('set -o pipefail; vmi --help | head -1')).toEqual({
    status: 0,
    stdout: 'vmi: PID to CR3 and back, from outside a running Linux guest\n',
    stderr: '',
  });
  // The reader is gone before anything is written.
  expect(shell('{ sleep 0.2; vmi --help; echo $? >&2; } | true').stderr).toBe('0\n');
});

it('remarks that nobody can be told keep no result back', ({ skip }) => {
  if (!existsSync('/dev/full')) return skip('there is no /dev/full');
  const { status, stdout } = shell('vmi nosuch 2> /dev/full; echo $?; vmi --help 2> /dev/full');
  expect(status).toBe(0);
  expect(stdout).toMatch(/^2\nvmi: /);
});
