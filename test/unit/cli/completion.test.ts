import { execFile, execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { COMMANDS } from '../../../lib/cli/commands.js';
import { vmi } from './fake-guest.js';

const run = promisify(execFile);
const SHELLS = ['bash', 'zsh', 'fish'] as const;

/** What stands for `vmi list --targets`; the second name is one that must not be expanded. */
const TARGETS = ['qemu:4242', 'libvirt:a $(touch pwned)', 'libvirt:web'];

let folder: string;
const scriptOf = (shell: string) => join(folder, `vmi.${shell}`);

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'node-libvmi-completion-'));
  for (const shell of SHELLS)
    writeFileSync(scriptOf(shell), (await vmi(['completion', shell])).stdout);
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Why a shell's script cannot be tried; `undefined`: it is there. */
function missing(shell: string): string | undefined {
  try {
    execFileSync(shell, ['--version'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return `${shell} is not installed`;
  }
}

/** What bash offers behind a line, whose words are cut as readline cuts them. */
async function bash(line: string, breaks = ' :='): Promise<string[]> {
  const cuts = breaks.includes(':') ? /[:=]+|[^\s:=]+/g : /\S+/g;
  const words: string[] = line.match(cuts) ?? [];
  // Behind a cut at a colon or an equals sign, an empty word begins.
  if (/\s$/.test(line) || (breaks.includes(':') && /[:=]$/.test(line))) words.push('');
  const script = `
    source "$1"; shift
    vmi() { printf '%s\\n' ${TARGETS.map((target) => `'${target}'`).join(' ')}; }
    COMP_LINE=$1 COMP_POINT=\${#1} COMP_WORDBREAKS=$2; shift 2
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    _vmi vmi
    printf '%s\\n' "\${COMPREPLY[@]}"`;
  const args = ['--norc', '-c', script, 'bash', scriptOf('bash'), line, breaks, ...words];
  const { stdout, stderr } = await run('bash', args, { cwd: folder });
  expect(stderr).toBe('');
  return stdout.split('\n').filter((word) => word !== '');
}

const FORMATS = ['libvmi-conf', 'system-map', 'isf', 'json', 'vmcoreinfo', 'btf'];

describe('bash', () => {
  it.each([
    ['vmi prof', ['profile']],
    ['vmi ', ['help', ...COMMANDS.map(({ name }) => name)]],
    ['vmi --v', ['--version']],
    ['vmi help wat', ['watch']],
    ['vmi --help wat', ['watch']],
    ['vmi ps --thr', ['--threads']],
    ['vmi ps --thr --js', ['--json']],
    ['vmi ps qemu:1 --cr', ['--cross']],
    ['vmi doctor --', ['--fix', '--json', '--quiet', '--help']],
    ['vmi profile x --format ', FORMATS],
    ['vmi profile x --format=', FORMATS],
    ['vmi profile x --format=s', ['system-map']],
    ['vmi profile x --format=isf --na', ['--name']],
    ['vmi top x --sort s', ['switches']],
    ['vmi completion ', ['bash', 'zsh', 'fish']],
    ['vmi ps q', ['qemu:4242']],
    // What stands before the colon is on the line already.
    ['vmi ps qemu:', ['4242']],
    ['vmi ps libvirt:w', ['web']],
    ['vmi ps --json qemu:4', ['4242']],
    ['vmi read --pid 1 qemu:4', ['4242']],
    ['vmi read qemu:4242 ', []],
    ['vmi read x 0 8 --pid ', []],
    ['vmi record x -o vmi.f', ['vmi.fish']],
    ['vmi record x --output=vmi.f', ['vmi.fish']],
    ['vmi record x -o y -- wat', ['watch']],
    ['vmi record x -o y -- ps , expl', ['explain']],
    ['vmi ps x --profile vmi.z', ['vmi.zsh']],
    ['vmi nosuch --', []],
  ])('%s', async (line, offered) => {
    expect(await bash(line)).toEqual(offered);
  });

  it('offers whole words where colons do not cut', async () => {
    expect(await bash('vmi ps qemu:4', ' ')).toEqual(['qemu:4242']);
    expect(await bash('vmi profile x --format=i', ' ')).toEqual(['--format=isf']);
  });

  it('never expands the name of a guest', async () => {
    expect(await bash('vmi ps libvirt:a')).toEqual(['a\\ \\$\\(touch\\ pwned\\)']);
    expect(existsSync(join(folder, 'pwned'))).toBe(false);
  });
});

describe('fish', () => {
  it.for<[line: string, offered: string[]]>([
    ['vmi prof', ['profile']],
    ['vmi help wat', ['watch']],
    ['vmi ps x --thr', ['--threads']],
    ['vmi profile x --format ', [...FORMATS].sort()],
    ['vmi profile x --format=s', ['--format=system-map']],
    ['vmi ps qemu:', ['qemu:4242']],
    ['vmi read --pid 1 qemu:', ['qemu:4242']],
    ['vmi read qemu:1 q', []],
    ['vmi record x -o y -- ps , expl', ['explain']],
  ])('%s', async ([line, offered], { skip }) => {
    const why = missing('fish');
    if (why !== undefined) return skip(why);
    const script = `source $argv[1]
      function vmi; printf '%s\\n' ${TARGETS.map((target) => `'${target}'`).join(' ')}; end
      complete -C $argv[2]`;
    const args = ['--no-config', '-c', script, scriptOf('fish'), line];
    const { stdout, stderr } = await run('fish', args, { cwd: folder });
    expect(stderr).toBe('');
    const words = stdout.split('\n').map((row) => row.split('\t', 1)[0]!);
    expect(words.filter((word) => word !== '')).toEqual(offered);
  });
});

describe('every shell', () => {
  it.for(SHELLS)('%s takes the script as it is', async (shell, { skip }) => {
    const why = missing(shell);
    if (why !== undefined) return skip(why);
    const { stderr } = await run(shell, ['-n', scriptOf(shell)]);
    expect(stderr).toBe('');
  });

  it.each(SHELLS)('%s is told of every command and option', async (shell) => {
    const { stdout } = await vmi(['completion', shell]);
    for (const { name, options } of COMMANDS) {
      expect(stdout).toContain(name);
      for (const option of Object.keys(options))
        expect(stdout).toContain(shell === 'fish' ? `-l ${option}` : `--${option}`);
    }
  });

  it('but one that has no script is refused', async () => {
    expect(await vmi(['completion', 'csh'])).toMatchObject({
      code: 2,
      stderr:
        "vmi: Expected SHELL as one of bash, zsh, fish but received 'csh'; see 'vmi completion --help'\n",
    });
  });
});
