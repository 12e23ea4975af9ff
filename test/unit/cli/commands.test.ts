import { describe, expect, it } from 'vitest';
import { BROKEN, DATA, type FakeGuest, fakeTask, TASKS, vmi } from './fake-guest.js';

const TARGET = 'qemu:4242';
const json = (text: string) =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));

describe('vmi ps', () => {
  it('prints a table', async () => {
    const { code, stdout, stderr, guest } = await vmi(['ps', TARGET]);
    expect(stdout).toBe(
      [
        'PID  TGID  PPID   UID  S        CR3  SOURCE  COMM',
        '  1     1     0     0  S  0x2c10000  mm      init',
        '  2     2     0     0  S          -  none    [kthreadd]',
        '  7     7     1  1000  R  0x3000000  mm      bad\\x1b[31m\\nname',
        '  9     9     1     0  Z          -  exited  zombie',
        '',
      ].join('\n'),
    );
    expect({ code, stderr, closed: guest.closed }).toEqual({ code: 0, stderr: '', closed: 1 });
  });

  it('has a column for the user half under isolation', async () => {
    const { stdout } = await vmi(['ps', TARGET], (guest) => {
      guest.tasksNow.splice(
        0,
        4,
        fakeTask({ pid: 1, comm: 'init', cr3: '0x2c10000', userCr3: '0x2c11000', cr3Source: 'mm' }),
      );
    });
    expect(stdout).toBe(
      'PID  TGID  PPID  UID  S        CR3    USERCR3  SOURCE  COMM\n  1     1     1    0  S  0x2c10000  0x2c11000  mm      init\n',
    );
  });

  it('prints one object a line, with the fields of a task', async () => {
    const { stdout } = await vmi(['ps', TARGET, '--json', '--threads']);
    const rows = json(stdout);
    expect(rows.map(({ pid, tgid, cr3 }) => [pid, tgid, cr3])).toEqual([
      [1, 1, '0x2c10000'],
      [2, 2, null],
      [7, 7, '0x3000000'],
      [9, 9, null],
      [8, 7, '0x3000000'],
    ]);
    expect(Object.keys(rows[0])).toEqual(
      expect.arrayContaining([
        'pid',
        'tgid',
        'ppid',
        'comm',
        'task',
        'mm',
        'activeMm',
        'pgd',
        'cr3',
        'cr3Source',
        'kthread',
        'startTime',
        'nsPids',
      ]),
    );
  });

  it('says which tasks are damaged, and exits with 4', async () => {
    const { code, stdout, stderr } = await vmi(['ps', TARGET], (guest) =>
      guest.tasksNow.push(BROKEN),
    );
    expect(code).toBe(4);
    expect(stdout).toContain(' 13    13     1     0  S          -  corrupt  broken\n');
    expect(stderr).toBe(`vmi: ${BROKEN.toJSON().error}\n`);
  });
});

describe('vmi ps --cross', () => {
  it('exits with 0 and prints nothing but a remark when all views agree', async () => {
    expect(await vmi(['ps', TARGET, '--cross'])).toMatchObject({
      code: 0,
      stdout: '',
      stderr: 'vmi: 4 tasks and threads: every view has all of them\n',
    });
    expect(await vmi(['ps', TARGET, '--cross', '-q'])).toMatchObject({
      code: 0,
      stdout: '',
      stderr: '',
    });
  });

  const hidden = (guest: FakeGuest) => {
    guest.cross = [
      { task: TASKS[0]!, views: ['list', 'threads', 'pids'], missing: [] },
      { task: TASKS[2]!, views: ['pids', 'cpu'], missing: ['list', 'threads'] },
    ];
  };

  it('prints the tasks that a view lacks, and exits with 1', async () => {
    const { code, stdout, stderr } = await vmi(['ps', TARGET, '--cross'], hidden);
    expect(code).toBe(1);
    expect(stdout).toBe(
      [
        'PID  TGID  PPID   UID  S        CR3  SOURCE  MISSING       FOUND     COMM',
        '  7     7     1  1000  R  0x3000000  mm      list,threads  pids,cpu  bad\\x1b[31m\\nname',
        '',
      ].join('\n'),
    );
    expect(stderr).toBe('vmi: 2 tasks and threads, 1 of them missing from a view\n');
  });

  it('prints every task with its views as JSON', async () => {
    const { code, stdout } = await vmi(['ps', TARGET, '--cross', '--json'], hidden);
    expect(code).toBe(1);
    expect(json(stdout).map(({ pid, views, missing }) => ({ pid, views, missing }))).toEqual([
      { pid: 1, views: ['list', 'threads', 'pids'], missing: [] },
      { pid: 7, views: ['pids', 'cpu'], missing: ['list', 'threads'] },
    ]);
  });

  it('has threads in any case', async () => {
    expect(await vmi(['ps', TARGET, '--cross', '--threads'])).toMatchObject({
      code: 2,
      stderr: "vmi: --cross and --threads do not go together; see 'vmi ps --help'\n",
    });
  });
});

describe('vmi cr3', () => {
  it('prints the value alone for one PID', async () => {
    expect(await vmi(['cr3', TARGET, '1'])).toMatchObject({
      code: 0,
      stdout: '0x2c10000\n',
      stderr: '',
    });
  });

  it('answers none for a kernel thread off the CPU, and says why', async () => {
    const why =
      'vmi: task 2 (kthreadd) is a kernel thread off the CPU: it has no address space, and will run on whatever is loaded when it wakes\n';
    expect(await vmi(['cr3', TARGET, '2'])).toMatchObject({
      code: 0,
      stdout: 'none\n',
      stderr: why,
    });
    expect(await vmi(['cr3', TARGET, '2', '-q'])).toMatchObject({
      code: 0,
      stdout: 'none\n',
      stderr: '',
    });
  });

  it('prints PID, CR3 and source for several', async () => {
    expect(await vmi(['cr3', TARGET, '1', '9', '2', '--quiet'])).toMatchObject({
      code: 0,
      stdout: '1  0x2c10000  mm\n9  none       exited\n2  none       none\n',
      stderr: '',
    });
  });

  it('exits with 1 when a task does not exist, and answers for the others', async () => {
    expect(await vmi(['cr3', TARGET, '1', '99'])).toMatchObject({
      code: 1,
      stdout: '1  0x2c10000  mm\n',
      stderr: 'vmi: no task with PID 99; tasks() lists what there is\n',
    });
    expect(await vmi(['cr3', TARGET, '99'])).toMatchObject({ code: 1, stdout: '' });
  });

  it('exits with 4 for a damaged task', async () => {
    const ran = await vmi(['cr3', TARGET, '99', '13'], (guest) => guest.tasksNow.push(BROKEN));
    expect(ran).toMatchObject({ code: 4, stdout: '' });
    expect(ran.stderr).toContain('names an address space');
  });

  it('prints the task as JSON', async () => {
    const { stdout } = await vmi(['cr3', TARGET, '1', '2', '--json', '-q']);
    expect(json(stdout)).toMatchObject([
      { pid: 1, cr3: '0x2c10000', cr3Source: 'mm' },
      { pid: 2, cr3: null, cr3Source: 'none' },
    ]);
  });
});

describe('vmi who', () => {
  it('prints every task of an address space, whatever the other bits', async () => {
    const { code, stdout } = await vmi(['who', TARGET, '0x8000000003000005']);
    expect(code).toBe(0);
    expect(stdout.split('\n').map((line) => line.trim().split(/\s+/)[0])).toEqual([
      'PID',
      '7',
      '8',
      '',
    ]);
  });

  it('exits with 1 when there is none', async () => {
    expect(await vmi(['who', TARGET, '0x5005', '0x2c10000'])).toMatchObject({
      code: 1,
      stdout: expect.stringContaining('init'),
      stderr: 'vmi: no task runs on 0x5005 (page table at 0x5000)\n',
    });
    expect((await vmi(['who', TARGET, '0x1a10000'])).stderr).toBe(
      "vmi: no task runs on 0x1a10000: it is the kernel's own page table, which a CPU without a task has loaded\n",
    );
  });

  it('says which tasks may belong there too', async () => {
    const bent = (guest: FakeGuest) => {
      guest.corrupt = [fakeTask({ pid: 66, comm: 'bent' })];
    };
    const { code, stderr } = await vmi(['who', TARGET, '0x2c10000', '-q'], bent);
    expect(code).toBe(0);
    expect(stderr).toBe(
      'vmi: 1 task names an address space that cannot be read, and may run on 0x2c10000 too: PID 66\n',
    );
  });

  it('names the value it was asked for in JSON', async () => {
    const { stdout } = await vmi(['who', TARGET, '0x3000fff', '--json']);
    expect(json(stdout)).toMatchObject([
      { value: '0x3000fff', pid: 7, cr3: '0x3000000' },
      { value: '0x3000fff', pid: 8, tgid: 7, cr3: '0x3000000' },
    ]);
  });
});

describe('vmi cpus', () => {
  it('prints what each runs', async () => {
    expect((await vmi(['cpus', TARGET])).stdout).toBe(
      'CPU        CR3  PID  TGID  COMM\n  0  0x2c10000    1     1  init\n  1          -    0     0  [swapper/1]\n',
    );
    expect(json((await vmi(['cpus', TARGET, '--json'])).stdout)).toMatchObject([
      { cpu: 0, cr3: '0x2c10000', pid: 1, comm: 'init' },
      { cpu: 1, cr3: null, pid: 0, comm: 'swapper/1' },
    ]);
  });
});

describe('vmi sym', () => {
  it('looks up both ways', async () => {
    const { code, stdout } = await vmi([
      'sym',
      TARGET,
      'init_task',
      '0xffffffff81e0a590',
      'ffffffff81e0a580',
    ]);
    expect(code).toBe(0);
    expect(stdout).toBe(
      '0xffffffff81e0a580  init_task\n0xffffffff81e0a590  init_task+0x10\n0xffffffff81e0a580  init_task\n',
    );
  });

  it('exits with 1 for what is not there', async () => {
    expect(await vmi(['sym', TARGET, 'nothing', '0x1000', 'init_task'])).toMatchObject({
      code: 1,
      stdout: '0xffffffff81e0a580  init_task\n',
      stderr: "vmi: no symbol 'nothing' in kallsyms\nvmi: no symbol at or below 0x1000\n",
    });
  });

  it('prints JSON', async () => {
    const { stdout } = await vmi(['sym', TARGET, '0xffffffff81e0a590', '--json']);
    expect(json(stdout)).toEqual([
      {
        query: '0xffffffff81e0a590',
        address: '0xffffffff81e0a590',
        symbol: 'init_task',
        offset: 16,
      },
    ]);
  });
});

describe('vmi read', () => {
  const at = `0x${DATA.toString(16)}`;

  it('dumps', async () => {
    expect((await vmi(['read', TARGET, at, '20'])).stdout).toBe(
      '0xffff888000001000  41 42 43 44 45 46 47 48  49 4a 4b 4c 4d 4e 4f 50  |ABCDEFGHIJKLMNOP|\n' +
        '0xffff888000001010  41 42 43 44                                       |ABCD|\n',
    );
  });

  it('writes raw bytes', async () => {
    expect((await vmi(['read', TARGET, '0', '3', '--physical', '--raw'])).stdout).toBe(
      '\xff\xff\xff',
    );
  });

  it('prints JSON', async () => {
    const { stdout } = await vmi(['read', TARGET, at, '0x4', '--json']);
    expect(json(stdout)).toEqual([{ address: at, length: 4, bytes: '41424344' }]);
  });

  it('prints what is there before memory ends, and exits with 4', async () => {
    const ran = await vmi(['read', TARGET, '0xffff888000001ffe', '8']);
    expect(ran).toMatchObject({
      code: 4,
      stdout: '0xffff888000001ffe  41 42                                             |AB|\n',
      stderr:
        'vmi: cannot read 8 bytes at 0xffff888000002000 (virtual, cr3 0x1a10000): page not present at pt (2 bytes were read before it)\n',
    });
  });

  it('takes a symbol, and hex digits that are none', async () => {
    expect((await vmi(['read', TARGET, 'nothing', '8'])).code).toBe(1);
    expect((await vmi(['read', TARGET, 'init_task+x', '8'])).code).toBe(2);
    expect((await vmi(['read', TARGET, 'init_task+0x10', '8'])).code).toBe(4);
  });
});

describe('vmi translate', () => {
  it('shows every level with its flags', async () => {
    const { code, stdout } = await vmi(['translate', TARGET, 'init_task']);
    expect(code).toBe(0);
    expect(stdout).toBe(
      [
        'LEVEL     AT                  ENTRY               FLAGS',
        'virtual   0xffffffff81e0a580',
        'cr3       0x1a10000',
        'pml4      0x1a10ff8           0x1a15067           PRESENT|RW|USER|ACCESSED',
        'pdpt      0x1a15ff0           0x1a16063           PRESENT|RW|ACCESSED',
        'pd        0x1a16078           0x80000000020001e3  PRESENT|RW|ACCESSED|DIRTY|PSE|GLOBAL|NX',
        'physical  0x200a580           2 MiB page',
        '',
      ].join('\n'),
    );
  });

  it('exits with 1 where nothing is mapped', async () => {
    const { code, stdout, stderr } = await vmi(['translate', TARGET, '0x1000']);
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: 'vmi: 0x1000 is not mapped (cr3 0x1a10000): page not present at pml4\n',
    });
    expect(stdout).toContain('pml4      0x1a10ff8   0x0    not present\n');
    expect((await vmi(['translate', TARGET, '0x8000000000000000'])).stderr).toBe(
      'vmi: 0x8000000000000000 is not mapped: no address of 48 bits looks like that (it is not canonical)\n',
    );
  });

  it('prints JSON', async () => {
    const [walk] = json((await vmi(['translate', TARGET, 'init_task', '--json'])).stdout);
    expect(walk).toMatchObject({
      address: '0xffffffff81e0a580',
      root: '0x1a10000',
      physical: '0x200a580',
      pageSize: 2097152,
    });
    expect(walk.steps[2].flags).toEqual([
      'PRESENT',
      'RW',
      'ACCESSED',
      'DIRTY',
      'PSE',
      'GLOBAL',
      'NX',
    ]);
  });
});

describe('vmi annotate', () => {
  const annotate = (input: readonly string[], ...options: string[]) =>
    vmi(['annotate', TARGET, ...options], () => {}, input);

  it('names every CR3 value, and leaves all else as it is', async () => {
    const { code, stdout, stderr } = await annotate([
      'vcpu 0 cr3=0000000002c10005 rip=ffffffff81000000\n',
      'CR3 2c10000, then 0x1a10000; 2c10000 alone\t0x77770000\nlast 0x80000000',
      '02c10000',
    ]);
    expect(stdout).toBe(
      [
        'vcpu 0 cr3=0000000002c10005 [1 init] rip=ffffffff81000000',
        'CR3 2c10000 [1 init], then 0x1a10000 [kernel]; 2c10000 alone\t0x77770000',
        'last 0x8000000002c10000 [1 init]',
        '',
      ].join('\n'),
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  });

  it('lets no byte of a name or of the text reach the terminal as a command', async () => {
    const { stdout } = await annotate(['\x1b[2Jcr3 0x3000000\n']);
    expect(stdout).toBe('\\x1b[2Jcr3 0x3000000 [7 bad\\x1b[31m\\nname]\n');
  });

  it('marks what is not certain, and who is gone', async () => {
    const { stdout } = await vmi(
      ['annotate', TARGET],
      (guest) => guest.tasksNow.splice(0, 4, fakeTask({ pid: 9, comm: 'gone', cr3: '0x5000000' })),
      ['0x5000000\n'],
    );
    expect(stdout).toBe('0x5000000 [9 gone, gone?]\n');
  });

  it('prints one object a line', async () => {
    const { stdout } = await annotate(['a 0x2c10000\n', 'none\n'], '--json');
    const rows = json(stdout);
    expect(rows.map(({ line, cr3s }) => [line, cr3s.length])).toEqual([
      ['a 0x2c10000', 1],
      ['none', 0],
    ]);
    expect(rows[0].cr3s[0]).toMatchObject({
      value: '0x2c10000',
      cr3: '0x2c10000',
      kernel: false,
      certain: true,
      owners: [{ pid: 1, comm: 'init', gone: false }],
    });
  });
});
