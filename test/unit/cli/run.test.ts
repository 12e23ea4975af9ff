import { describe, expect, it } from 'vitest';
import { COMMANDS } from '../../../lib/cli/commands.js';
import { EXIT } from '../../../lib/cli/exit-code.js';
import { run } from '../../../lib/cli/run.js';
import { VmiError } from '../../../lib/errors.js';
import { vmi } from './fake-guest.js';

const TARGET = 'qemu:4242';

describe('usage', () => {
  it.each([
    [['pss'], "vmi: unknown command 'pss'; did you mean ps; see 'vmi --help'\n"],
    [['--jsn'], "vmi: unknown option '--jsn'; see 'vmi --help'\n"],
    [['--version', 'x'], "vmi: unexpected argument 'x'; see 'vmi --help'\n"],
    [['-V', '--json'], "vmi: unexpected argument '--json'; see 'vmi --help'\n"],
    [['--help', '--jsn'], "vmi: unknown option '--jsn'; see 'vmi --help'\n"],
    [['help', 'pss'], "vmi: unknown command 'pss'; did you mean ps; see 'vmi --help'\n"],
    [['help', 'ps', 'x'], "vmi: unexpected argument 'x'; see 'vmi --help'\n"],
    [
      ['run', TARGET, '/nonexistent.mjs'],
      "vmi: there is no script /nonexistent.mjs; see 'vmi run --help'\n",
    ],
    [['list', 'x'], "vmi: unexpected argument 'x'; see 'vmi list --help'\n"],
    [
      ['list', '--targets', '--json'],
      "vmi: --targets and --json do not go together; see 'vmi list --help'\n",
    ],
    [
      ['read', TARGET, '0', '8', '--pid', '1', '--pid', '2'],
      "vmi: option '--pid' was given twice; see 'vmi read --help'\n",
    ],
    [
      ['watch', TARGET, '--trap', '--pid', '1', '--rate', '5'],
      "vmi: --trap and --rate do not go together; see 'vmi watch --help'\n",
    ],
    [
      ['watch', TARGET, '--tasks', '--cpu', '1'],
      "vmi: --tasks and --cpu do not go together; see 'vmi watch --help'\n",
    ],
    [
      ['watch', TARGET, '--cpu', '-1'],
      "vmi: Expected --cpu as the number of a CPU but received '-1'; see 'vmi watch --help'\n",
    ],
    [
      ['trace', TARGET, '-o', 'x', '--html', '--format', 'csv'],
      "vmi: --html and --format do not go together; see 'vmi trace --help'\n",
    ],
    [
      ['cr3'],
      "vmi: missing TARGET (qemu:PID, libvirt:NAME, qmp:SOCKET, process:PID, image:PATH, replay:FILE, xen:NAME, kvm:NAME or libvmi:PATH; or the name or PID of a guest on this host); see 'vmi cr3 --help'\n",
    ],
    [
      ['cr3', TARGET],
      "vmi: missing PID (PID or TID in the initial PID namespace; - for those on standard input); see 'vmi cr3 --help'\n",
    ],
    [
      ['cr3', TARGET, '-5'],
      "vmi: Expected PID as an integer between 1 and 2147483647 but received '-5'; see 'vmi cr3 --help'\n",
    ],
    [
      ['cr3', TARGET, 'init'],
      "vmi: Expected PID as an integer between 1 and 2147483647 but received 'init'; see 'vmi cr3 --help'\n",
    ],
    [
      ['cr3', TARGET, '1.5'],
      "vmi: Expected PID as an integer between 1 and 2147483647 but received '1.5'; see 'vmi cr3 --help'\n",
    ],
    [
      ['cr3', TARGET, '2147483648'],
      "vmi: Expected PID as an integer between 1 and 2147483647 but received '2147483648'; see 'vmi cr3 --help'\n",
    ],
    [['ps', TARGET, 'x'], "vmi: unexpected argument 'x'; see 'vmi ps --help'\n"],
    [
      ['ps', TARGET, '--thread'],
      "vmi: unknown option '--thread'; did you mean --threads?; see 'vmi ps --help'\n",
    ],
    [['ps', TARGET, '-x'], "vmi: unknown option '-x'; see 'vmi ps --help'\n"],
    [['ps', TARGET, '--json=1'], "vmi: option '--json' takes no value; see 'vmi ps --help'\n"],
    [
      ['ps', 'imge:/x'],
      "vmi: Expected target as qemu:PID, libvirt:NAME, qmp:SOCKET, process:PID, image:PATH, replay:FILE, xen:NAME, kvm:NAME or libvmi:PATH but received 'imge:/x'; did you mean image?; see 'vmi ps --help'\n",
    ],
    [
      ['ps', 'qemu:-1'],
      "vmi: Expected qemu:PID with the process id of a QEMU but received 'qemu:-1'; 'vmi list' shows what runs here; see 'vmi ps --help'\n",
    ],
    [
      ['who', TARGET, '-1'],
      "vmi: Expected CR3 like 0xffff888000000000 or 4096 but received '-1'; see 'vmi who --help'\n",
    ],
    [
      ['who', TARGET, '0x1ffffffffffffffff'],
      "vmi: Expected CR3 between 0 and 2^64 - 1 but received 0x1ffffffffffffffff; see 'vmi who --help'\n",
    ],
    [
      ['read', TARGET, '0', '0'],
      "vmi: Expected LENGTH as an integer between 1 and 2147483647 but received '0'; see 'vmi read --help'\n",
    ],
    [
      ['read', TARGET, '0', '-1'],
      "vmi: Expected LENGTH as an integer between 1 and 2147483647 but received '-1'; see 'vmi read --help'\n",
    ],
    [
      ['read', TARGET, '0', '8', '--pid', '1', '--cr3', '2'],
      "vmi: --pid and --cr3 do not go together; see 'vmi read --help'\n",
    ],
    [
      ['read', TARGET, '0', '8', '--raw', '--json'],
      "vmi: --raw and --json do not go together; see 'vmi read --help'\n",
    ],
    [
      ['read', TARGET, '0', '8', '--physical', '--pid', '1'],
      "vmi: --physical and --pid do not go together; see 'vmi read --help'\n",
    ],
    [
      ['read', TARGET, 'init_task', '8', '--physical'],
      "vmi: Expected ADDRESS like 0xffff888000000000 or 4096 but received 'init_task'; see 'vmi read --help'\n",
    ],
    [
      ['translate', TARGET, '0', '--pid', '-3'],
      "vmi: Expected --pid as an integer between 1 and 2147483647 but received '-3'; see 'vmi translate --help'\n",
    ],
    [
      ['translate', TARGET, '0', '--pid'],
      "vmi: option '--pid PID' needs its value; see 'vmi translate --help'\n",
    ],
  ])('%j', async (args, stderr) => {
    const ran = await vmi(args);
    expect(ran).toMatchObject({ code: 2, stdout: '', stderr });
    expect(ran.attached).toBeUndefined();
  });

  it('shows the help on standard error when called with nothing', async () => {
    const ran = await vmi([]);
    expect(ran.code).toBe(2);
    expect(ran.stdout).toBe('');
    expect(ran.stderr).toContain('usage: vmi COMMAND');
  });
});

describe('help', () => {
  it('names every command and exit code', async () => {
    const { code, stdout } = await vmi(['--help']);
    expect(code).toBe(0);
    for (const { name, summary } of COMMANDS) {
      expect(stdout).toMatch(new RegExp(`^  ${name}\\b.* ${summary}$`, 'm'));
    }
    for (const code of Object.values(EXIT))
      expect(stdout).toMatch(new RegExp(`^ +${code}  \\w`, 'm'));
  });

  it.each(COMMANDS.map(({ name }) => name))('%s --help shows each of its options', async (name) => {
    const { code, stdout, attached } = await vmi([name, '--help']);
    const command = COMMANDS.find((one) => one.name === name)!;
    expect(code).toBe(0);
    expect(attached).toBeUndefined();
    for (const option of Object.keys(command.options)) expect(stdout).toContain(`--${option}`);
    expect((await vmi(['help', name])).stdout).toBe(stdout);
  });

  it('prints the version', async () => {
    const printed = { code: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) };
    expect(await vmi(['--version'])).toMatchObject(printed);
    expect(await vmi(['-V'])).toMatchObject(printed);
  });
});

describe('exit codes', () => {
  it('3 when attaching fails, whatever the code', async () => {
    const ran = await vmi(['ps', 'qemu:1']);
    expect(ran).toMatchObject({
      code: 3,
      stdout: '',
      stderr: 'vmi: there is no process qemu:1 on this host\n',
    });
  });

  it.each([
    ['VMI_CLOSED', 3],
    ['VMI_FAULT', 4],
    ['VMI_CORRUPT', 4],
    ['VMI_NO_TASK', 1],
    ['VMI_UNSUPPORTED', 1],
    ['VMI_ABORTED', 130],
  ] as const)('%s after attaching: %i', async (errorCode, code) => {
    const ran = await vmi(['ps', TARGET], (guest) => {
      guest.failure = new VmiError(errorCode, 'it went wrong\u001b[2J');
    });
    expect(ran).toMatchObject({ code, stdout: '', stderr: 'vmi: it went wrong\\x1b[2J\n' });
    expect(ran.guest.closed).toBe(1);
  });

  it('70 and a stack for a bug', async () => {
    const ran = await vmi(['ps', TARGET], (guest) => {
      guest.failure = new TypeError("Cannot read properties of undefined (reading 'x')");
    });
    expect(ran.code).toBe(70);
    expect(ran.stderr).toMatch(/^vmi: this is a bug in vmi: TypeError: Cannot read/);
    expect(ran.guest.closed).toBe(1);
  });

  it('aborts the attach on an interrupt', async () => {
    let interrupt = () => {};
    let forgotten = 0;
    const errors: string[] = [];
    const code = await run(['ps', TARGET], {
      streams: {
        stdout: { write() {} },
        stderr: { write: (chunk) => errors.push(String(chunk)) },
        colours: false,
      },
      env: {},
      find: () => Promise.reject(new Error('not asked')),
      attach: (_target, { signal }) =>
        new Promise((_resolve, reject) => {
          signal!.addEventListener('abort', () =>
            reject(new VmiError('VMI_ABORTED', 'attaching was aborted')),
          );
          interrupt();
        }),
      onInterrupt: (call) => {
        interrupt = call;
        return () => {
          forgotten++;
        };
      },
    });
    expect({ code, errors, forgotten }).toEqual({
      code: 130,
      errors: ['vmi: attaching was aborted\n'],
      forgotten: 1,
    });
  });

  it('gives the attach its options', async () => {
    const { attached } = await vmi(['ps', TARGET, '--no-cache', '-q']);
    expect(attached).toMatchObject({
      target: { kind: 'qemu', pid: 4242 },
      options: { cache: false },
    });
    const files = ['--profile', 'System.map', '--profile', 'libvmi.conf#vm'];
    expect((await vmi(['ps', TARGET, ...files])).attached?.options).toEqual({
      profile: ['System.map', 'libvmi.conf#vm'],
      signal: expect.any(AbortSignal),
    });
  });
});
