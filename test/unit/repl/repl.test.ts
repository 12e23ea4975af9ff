import { PassThrough, Writable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { FaultError, VmiError } from '../../../lib/errors.js';
import type { Guest } from '../../../lib/guest/guest.js';
import { Struct } from '../../../lib/kernel/types/struct.js';
import { completeArgument } from '../../../lib/repl/complete.js';
import { historyFile } from '../../../lib/repl/history.js';
import { banner, startRepl } from '../../../lib/repl/repl.js';
import { Writer } from '../../../lib/repl/writer.js';
import { styles } from '../../../lib/text/printable.js';
import { structText } from '../../../lib/text/struct.js';
import { DATA, FakeGuest, fakeTask } from '../cli/fake-guest.js';

/** Runs lines as if they were piped in. */
async function piped(lines: string, guest = new FakeGuest()): Promise<string> {
  const input = new PassThrough();
  let text = '';
  const output = new Writable({
    write(chunk, _encoding, done) {
      text += chunk;
      done();
    },
  });
  input.end(lines);
  await startRepl(guest as unknown as Guest, { input, output, env: {} });
  return text;
}

describe('lines that are piped in', () => {
  it('are run, with the guest loaded', async () => {
    expect(
      await piped(
        "cr3(1)\nhex(cr3(1))\nsym('init_task')\nsym(0xffffffff81e0a590n)\ncr3(2)\nguest.target\n",
      ),
    ).toBe("0x2c10000n\n'0x2c10000'\n0xffffffff81e0a580n\n'init_task+0x10'\nnull\n'qemu:4242'\n");
  });

  it('print tasks and CPUs as tables', async () => {
    expect(await piped('who(0x3000fffn)\n')).toBe(
      [
        'PID  TGID  PPID   UID  S        CR3  SOURCE  COMM',
        '  7     7     1  1000  R  0x3000000  mm      bad\\x1b[31m\\nname',
        '  8     7     1     0  S  0x3000000  mm      worker',
        '',
      ].join('\n'),
    );
    expect(await piped('cpus()\n')).toContain('CPU        CR3  PID  TGID  COMM\n');
    expect(await piped('ps({ threads: true }).filter((t) => t.pid > 7).length\n')).toBe('2\n');
  });

  it('print memory as a dump with its addresses, and walks level by level', async () => {
    expect(await piped(`read(0x${DATA.toString(16)}n, 4)\n`)).toBe(
      '0xffff888000001000  41 42 43 44                                       |ABCD|\n',
    );
    expect(await piped("walk('init_task')\n")).toContain(
      'pd        0x1a16078           0x80000000020001e3  PRESENT',
    );
  });

  it('show a VmiError as one line', async () => {
    expect(await piped('task(99)\n1 + 1\n')).toBe(
      'Uncaught VMI_NO_TASK: no task with PID 99; tasks() lists what there is\n2\n',
    );
  });

  it('show a wrong argument as one line, and a bug with its stack', async () => {
    expect(await piped('sym(-1)\n')).toBe(
      'Uncaught:\nRangeError: Expected address as a bigint or a safe integer of 0 or more but received -1; write large addresses as bigint (0xffff888000000000n)\n',
    );
    expect(await piped('null.x\n')).toMatch(/^Uncaught TypeError: Cannot read .*\n/);
  });

  it('may declare a name again', async () => {
    expect(await piped('const a = 1\nconst a = 2\nlet { b } = { b: a }\nlet b = a + 1\nb\n')).toBe(
      '3\n',
    );
  });

  it('may be commands, whose failures are one line', async () => {
    expect(await piped('.hexdump nosuch\n1 + 1\n')).toMatch(/^VMI_SYMBOL: .*nosuch.*\n2\n$/);
    expect(await piped('5n\n.pipe cat | tr x X\n')).toBe('0x5n\n0X5n\n');
    expect(await piped('.what\n')).toMatch(/Expected place like .*\n$/);
  });

  it('may await: the next line waits too', async () => {
    const slow = 'const value = await new Promise((done) => setTimeout(done, 50, 16n))';
    expect(await piped(`${slow}\nvalue\nawait Promise.reject(new Error('no'))\n1n`)).toMatch(
      /^0x10n\nUncaught Error: no\n[\s\S]*0x1n\n$/,
    );
  });

  it('may be several to a statement, and end it all', async () => {
    expect(await piped('if (true) {\n  2n\n}\n.exit\n3n\n')).toBe('0x2n\n');
  });

  it('may be none', async () => {
    expect(await piped('')).toBe('');
  });

  it('can ask for help', async () => {
    const text = await piped('.help\n');
    expect(text).toContain('cr3(1) ');
    expect(text).toContain('.exit');
  });

  it('get the helpers back after .clear', async () => {
    expect(await piped('var cr3 = 5\n.clear\ncr3(1)\n')).toMatch(/0x2c10000n\n$/);
  });
});

describe('Writer', () => {
  const { write } = new Writer(false);

  it('prints bigints in hex at any depth', () => {
    expect(write(4096n)).toBe('0x1000n');
    expect(write(-1n)).toBe('-0x1n');
    expect(write({ cr3: 0x2c10000n, list: [1n, 2], text: '5n' })).toBe(
      "{ cr3: 0x2c10000n, list: [ 0x1n, 2 ], text: '5n' }",
    );
    expect(write(BigUint64Array.of(255n))).toBe('BigUint64Array(1) [ 0xffn ]');
    expect(write(new Map([[1n, 16n]]))).toBe('Map(1) { 0x1n => 0x10n }');
  });

  it('colours on demand', () => {
    expect(new Writer(true).write(16n)).toBe('\u001b[33m0x10n\u001b[39m');
    expect(new Writer(true).write('text')).toBe("\u001b[32m'text'\u001b[39m");
  });

  it('lets nothing of the guest act on the terminal', () => {
    expect(write(new VmiError('VMI_SYMBOL', 'no \u001b[2J'))).toBe('VMI_SYMBOL: no \\x1b[2J');
    expect(write('\u001b[2J\u009b2J')).not.toMatch(/[\u001b\u009b]/);
  });

  it('shows faults with their address', () => {
    const fault = new FaultError({
      address: 0x10n,
      space: 'physical',
      cr3: undefined,
      requested: 8,
      transferred: 0,
      level: 0,
    });
    expect(write(fault)).toBe(
      'VMI_FAULT: cannot read 8 bytes at 0x10 (physical): the address is not in guest RAM',
    );
  });

  it('shows an array of anything else as an array', () => {
    expect(write([])).toBe('[]');
    expect(write([fakeTask({ pid: 1, comm: 'a' }), 1])).toContain("Task 1 'a'");
  });

  it('cuts long buffers', () => {
    expect(write(Buffer.alloc(5000)).split('\n').at(-1)).toBe('… and 904 bytes more');
    expect(write(Buffer.alloc(0))).toBe('(no bytes)');
  });
});

describe('structText', () => {
  it('shows members with offsets, those of unnamed structures inside', () => {
    const int = (name: string, size = 4) =>
      ({ kind: 'int', name, size, signed: true, encoding: 'int' }) as const;
    const inner = new Struct('', 'union', 8, () => [
      { name: 'pid', offset: 0, bitOffset: 0, size: 4, type: int('pid_t') },
      { name: 'bits', offset: 4, bitOffset: 32, bitSize: 3, size: 4, type: int('unsigned int') },
    ]);
    const outer = new Struct('thing', 'struct', 24, () => [
      { name: 'comm', offset: 0, bitOffset: 0, size: 16, type: int('char[16]', 16) },
      {
        name: '',
        offset: 16,
        bitOffset: 128,
        size: 8,
        type: { kind: 'union', name: '', size: 8, struct: inner },
      },
    ]);
    expect(structText(outer, styles(false))).toEqual([
      'struct thing { // 24 bytes',
      '+0       char comm[16]',
      '+16      union {',
      '+16        pid_t pid',
      '+20        unsigned int bits : 3',
      '         }',
      '}',
    ]);
  });
});

describe('completion', () => {
  const guest = new FakeGuest() as unknown as Guest;

  it.each([
    ["sym('init_", ['init_mm', 'init_task'], 'init_'],
    ['hex(sym("init_t', ['init_task'], 'init_t'],
    ["type('task", ['task_struct'], 'task'],
    ['task(', ['1', '2', '7', '9'], ''],
    ['hex(cr3(7', ['7'], '7'],
  ])('%s', (line, names, prefix) => {
    expect(completeArgument(line, guest)).toEqual([names, prefix]);
  });

  it.each(['guest.', "sym('a')", 'task(1).', 'who('])("leaves %s to Node's own", (line) => {
    expect(completeArgument(line, guest)).toBeUndefined();
  });
});

describe('history', () => {
  it.each([
    [{ NODE_LIBVMI_HISTORY: '/x/h' }, '/x/h'],
    [{ NODE_LIBVMI_HISTORY: '' }, undefined],
    [{ XDG_STATE_HOME: '/state' }, '/state/node-libvmi/repl_history'],
  ])('%j', (env, file) => {
    expect(historyFile(env)).toBe(file);
  });

  it('is in the home folder by default', () => {
    expect(historyFile({})).toMatch(/\/\.local\/state\/node-libvmi\/repl_history$/);
  });
});

describe('banner', () => {
  it('says what is loaded and what to try', () => {
    expect(banner(new FakeGuest() as unknown as Guest)).toBe(
      [
        'qemu:4242: process 4242',
        'Linux 6.1.0-fake, found by registers and the cache in 4 ms, 4 processes',
        'Try ps(), cr3(1), who(cr3(1)); .help shows more by example.',
      ].join('\n'),
    );
  });
});
