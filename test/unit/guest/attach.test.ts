import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  attach,
  diagnose,
  type Guest,
  Kernel,
  libvmiKernel,
  type MemoryOptions,
  openMemory,
  openSource,
  PhysicalMemory,
  parseTarget,
  Recorder,
  VirtualMemory,
  writeProfile,
} from '../../../lib/index.js';
import { buildGuest, registersOf } from '../kernel/support/build-guest.js';

const built = buildGuest({ tasks: true });
const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-attach-'));
const file = join(folder, 'ram');
writeFileSync(file, built.ram);
afterAll(() => rmSync(folder, { recursive: true }));

const read = (address: bigint, into: Uint8Array) =>
  built.ram.copy(into, 0, Number(address), Number(address) + into.length);
const ranges = [{ start: 0, length: built.ram.length }];
const registers = async () => [registersOf(built.root)];
/** Any value, as a caller without types has it. */
const untyped = (value: unknown) => value as never;

describe('attach({ memory })', () => {
  const half = built.ram.length / 2;
  const ways: [name: string, options: MemoryOptions][] = [
    ['a function', { ranges, read }],
    ['a function and registers', { ranges, read, registers }],
    ['a buffer', { segments: [{ physical: 0, buffer: built.ram }] }],
    ['a file', { segments: [{ physical: 0, file }], registers }],
    [
      'parts of a file, in any order',
      {
        segments: [
          { physical: half, file, offset: BigInt(half) },
          { physical: 0n, file, length: half },
        ],
      },
    ],
  ];

  it.each(ways)('%s', async (_name, options) => {
    const memory = openMemory({ ...options, description: 'made here' });
    await using guest = await attach({ memory }, { cache: false });
    expect(guest.target).toBe('memory:made here');
    expect(guest.memory).toBe(memory);
    expect(guest.kernel.release).toBe('6.1.0-test-amd64');
    expect(guest.kernel.root).toBe(built.root);
    expect(guest.capabilities.registers).toBe(options.registers !== undefined);
    const banner = guest.symbol('linux_banner');
    expect(guest.readString(banner)).toContain('Linux version 6.1.0-test');
    expect(guest.translate(banner)).toBe(BigInt(built.at('linux_banner')));
    const rows = guest.tasks().map(({ pid, comm, kthread, cr3 }) => [pid, comm, kthread, cr3]);
    expect(rows).toEqual([
      [1, 'init', false, built.root],
      [2, 'kthreadd', true, null],
    ]);
    expect(guest.pidToCr3(1)).toBe(built.root);
    expect(guest.task(2).comm).toBe('kthreadd');
    expect(() => guest.task(3)).toThrow('there is no task with PID 3');
  });

  it('closes what it was given, also when attaching fails', async () => {
    let closed = 0;
    const close = () => {
      closed++;
    };
    const guest = await attach({ memory: openMemory({ ranges, read, close }) }, { cache: false });
    await guest.close();
    await guest.close();
    expect(closed).toBe(1);
    const empty = openMemory({
      ranges: [{ start: 0, length: 32 << 20 }],
      read: (_address, into) => into.fill(0).length,
      close,
    });
    await expect(attach({ memory: empty }, { cache: false })).rejects.toMatchObject({
      code: 'VMI_ATTACH',
      message: expect.stringContaining('32 MiB read by a function'),
    });
    expect(closed).toBe(2);
  });

  it('pauses, and resumes when it is closed', async () => {
    const calls: string[] = [];
    const memory = openMemory({
      ranges,
      read,
      pause: async () => void calls.push('pause'),
      resume: async () => void calls.push('resume'),
    });
    const guest = await attach({ memory }, { cache: false });
    await guest.pause();
    await guest.close();
    expect(calls).toEqual(['pause', 'resume']);
  });

  it('what the function throws is what the caller gets', async () => {
    let works = true;
    const memory = openMemory({
      ranges,
      read: (address, into) => {
        if (works) return read(address, into);
        throw new Error('the cable is out');
      },
    });
    await using guest = await attach({ memory }, { cache: false });
    works = false;
    expect(() => guest.readPhysical(0x5000, 8)).toThrow('the cable is out');
    works = true;
    expect(guest.readPhysical(built.at('linux_banner'), 5).toString()).toBe('Linux');
  });

  it('says what is wrong with a function', () => {
    const ask = (result: unknown) => openMemory({ ranges, read: () => untyped(result) }).read(0, 8);
    expect(() => ask(Promise.resolve(8))).toThrow(
      'Expected read to return the bytes that it filled, 0 to 4096, but received an object, a promise: it must not be asynchronous',
    );
    expect(() => ask(undefined)).toThrow('but received undefined');
    expect(() => ask(4097)).toThrow('but received 4097');
    expect(() => ask(3)).toThrow(
      'cannot read 8 bytes at 0x3 (physical): the address is not in guest RAM (3 bytes were read before it)',
    );
  });
});

describe('openMemory refuses', () => {
  const buffer = Buffer.alloc(4096);
  it.each<[why: string, options: unknown]>([
    ['Expected options as an object but received undefined', undefined],
    [
      "Expected options with description, live, addressing, registers, pause, resume, close, segments but received 'segment'; did you mean segments?",
      { segment: [] },
    ],
    ['Expected segments as a list of files, buffers or parts of a process', { segments: [] }],
    ['Expected segment 0 as an object but received null', { segments: [null] }],
    [
      "Expected segment 0 with physical, file, offset, length but received 'path'",
      { segments: [{ physical: 0, path: '/x' }] },
    ],
    [
      'Expected segment 0 with a file, a buffer or a pid but received undefined',
      { segments: [{ physical: 0 }] },
    ],
    [
      'Expected physical of segment 0 as a multiple of 4096 but received 0x10',
      { segments: [{ physical: 16, buffer }] },
    ],
    [
      'Expected length of segment 0 as a multiple of 4096 but received 0x5',
      { segments: [{ physical: 0, buffer: Buffer.alloc(5) }] },
    ],
    [
      'Expected RAM once at every address but 0x0 is in two parts',
      {
        segments: [
          { physical: 0, buffer },
          { physical: 0, buffer },
        ],
      },
    ],
    [
      'Expected pid of segment 0 as the id of a process but received -1',
      { segments: [{ physical: 0, pid: -1, address: 0, length: 4096 }] },
    ],
    [
      'Expected segments of one process but received those of 1 and 2',
      {
        segments: [
          { physical: 0, pid: 1, address: 0, length: 4096 },
          { physical: 4096, pid: 2, address: 0, length: 4096 },
        ],
      },
    ],
    ['cannot open /nowhere', { segments: [{ physical: 0, file: '/nowhere' }] }],
    ['Expected segment 0 within', { segments: [{ physical: 0, file, length: 1 << 30 }] }],
    ['Expected ranges as a list of { start, length } but received undefined', { read }],
    [
      'Expected start of range 0 as a bigint or a number but received undefined',
      { read, ranges: [{}] },
    ],
    ['Expected RAM at 0x0 but received 0 bytes', { read, ranges: [{ start: 0, length: 0 }] }],
    ['Expected RAM below 0x10000000000000', { read, ranges: [{ start: 1n << 52n, length: 4096 }] }],
    ['Expected read as a function but received 5', { read: 5, ranges }],
    ['Expected registers as a function but received an array', { read, ranges, registers: [] }],
    [
      'Expected pause and resume, both or neither, but received one of them',
      { read, ranges, pause: async () => {} },
    ],
  ])('%s', (why, options) => {
    expect(() => openMemory(untyped(options))).toThrow(why);
  });
});

describe('attach refuses', () => {
  it.each<[why: string, target: unknown, options?: unknown]>([
    [
      'Expected target as a string (qemu:PID, libvirt:NAME, qmp:SOCKET, process:PID, image:PATH, replay:FILE, xen:NAME, kvm:NAME or libvmi:PATH) or an object but received undefined',
      undefined,
    ],
    ["or an object but received 14776; did you mean 'qemu:14776'?", 14776],
    ['or an object but received null', null],
    ['or an object but received an array', ['qemu:1']],
    ['or one with memory (openMemory makes one) but received an empty object', {}],
    ["but received an object with 'memry'; did you mean memory?", { memry: 5 }],
    ["Expected qmp:tcp:HOST:PORT with a port of 1 to 65535 but received 'qmp:tcp:'", 'qmp:tcp:'],
    ["but received 'qmp:tcp:x:y'; a path that begins with tcp: is written ./", 'qmp:tcp:x:y'],
    ['profile but received an object', 'image:/x', { profile: { source: 'x' } }],
    ['profile but received an empty list', 'image:/x', { profile: [] }],
    ["but received 'toString'", { kind: 'toString' }],
    ['Expected target.pid as a number but received undefined', { kind: 'qemu' }],
    [
      "Expected qemu:PID with the process id of a QEMU but received -1; 'vmi list' shows what runs here",
      { kind: 'qemu', pid: -1 },
    ],
    [
      "Expected a target of kind image with path but received 'file'",
      { kind: 'image', file: '/x' },
    ],
    ["Expected target.path as a string but received ''", { kind: 'image', path: '' }],
    [
      "Expected target.driver as one of xen, kvm, file but received 'qemu'",
      { kind: 'libvmi', driver: 'qemu', name: 'x' },
    ],
    ['Expected target.memory as a PhysicalMemory (openMemory makes one)', { memory: {} }],
    ["Expected target with memory but received 'target'", { memory: {}, target: 'x' }],
    ["but received '14776'; did you mean qemu:14776?", '14776'],
    ["but received './ram'; did you mean image:./ram?", './ram'],
    ["but received 'imge:/x'; did you mean image?", 'imge:/x'],
    ["but received 'image:'", 'image:'],
    ['Expected options as an object but received null', 'image:/x', null],
    [
      "Expected options with cache, signal, profile, isolate, kernel, write but received 'profiles'; did you mean profile?",
      'image:/x',
      { profiles: [] },
    ],
    ['Expected signal as an AbortSignal but received an object', 'image:/x', { signal: {} }],
    [
      'Expected cache as true, false or the path of a folder but received 5',
      'image:/x',
      { cache: 5 },
    ],
    ["Expected isolate as a boolean but received 'yes'", 'image:/x', { isolate: 'yes' }],
    [
      'Expected profile as a path, a list of paths or a profile but received 7',
      'image:/x',
      { profile: 7 },
    ],
  ])('%s', async (why, target, options = {}) => {
    const error = await attach(untyped(target), untyped(options)).catch((error) => error);
    expect(error).toBeInstanceOf(Error);
    expect(error.message).toContain(why);
    expect(['TypeError', 'RangeError']).toContain(error.name);
  });

  it('and so does openSource', async () => {
    await expect(openSource(untyped({ kind: 'qemu' }))).rejects.toThrow('Expected target.pid');
    await expect(openSource(parseTarget('image:/x'), untyped({ isolated: 1 }))).rejects.toThrow(
      'did you mean isolate?',
    );
  });
});

describe('every call of a guest says what it was given', () => {
  it('wrong types and options end in errors of one form', async () => {
    await using guest: Guest = await attach(
      { memory: openMemory({ ranges, read }) },
      {
        cache: false,
      },
    );
    const wrong: unknown[] = [undefined, null, 'x', {}, [], true, Number.NaN, -1, 1.5, 2n ** 65n];
    const calls: [name: string, call: (value: never) => unknown][] = [
      ['task', (value) => guest.task(value)],
      ['findTask', (value) => guest.findTask(value)],
      ['pidToCr3', (value) => guest.pidToCr3(value)],
      ['cr3ToTasks', (value) => guest.cr3ToTasks(value)],
      ['cr3Base', (value) => guest.cr3Base(value)],
      ['symbol', (value) => guest.symbol(value)],
      ['symbolAt', (value) => guest.symbolAt(value)],
      ['type', (value) => guest.type(value)],
      ['read', (value) => guest.read(value, 8)],
      ['read length', (value) => guest.read(0x1000, value)],
      ['readPhysical', (value) => guest.readPhysical(value, 8)],
      ['readString', (value) => guest.readString(value)],
      ['translate', (value) => guest.translate(value)],
      ['walk', (value) => guest.walk(value)],
      ['read space', (value) => guest.read(0x1000, 8, { pid: value, cr3: value })],
    ];
    for (const [name, call] of calls) {
      for (const value of wrong) {
        // A name that is text, but none of the kernel's, is an answer.
        if (value === 'x' && (name === 'symbol' || name === 'type')) continue;
        // A list of no values.
        if (Array.isArray(value) && name === 'cr3ToTasks') continue;
        let error: unknown;
        try {
          call(untyped(value));
        } catch (thrown) {
          error = thrown;
        }
        // To leave a space out is to ask for the kernel's.
        if (name === 'read space' && value === undefined) {
          expect(error).toMatchObject({ code: 'VMI_FAULT' });
          continue;
        }
        const where = `${name}(${String(value)})`;
        expect(error, where).toBeInstanceOf(Error);
        expect((error as Error).message, where).toMatch(/^Expected .* but received /);
      }
    }
    const options: [name: string, call: (options: never) => unknown][] = [
      ['tasks', (value) => guest.tasks(value)],
      ['taskColumns', (value) => guest.taskColumns(value)],
      ['read', (value) => guest.read(0x1000, 8, value)],
      ['readString', (value) => guest.readString(0x1000, 8, value)],
      ['translate', (value) => guest.translate(0x1000, value)],
      ['walk', (value) => guest.walk(0x1000, value)],
      ['registers', (value) => guest.registers(value)],
      ['cr3Writes', (value) => guest.cr3Writes(value)],
      ['scan', (value) => guest.memory.scan(Buffer.of(1), value)],
    ];
    for (const [name, call] of options) {
      for (const value of [null, 5, 'x', { nonsense: true }]) {
        const error = await Promise.resolve()
          .then(() => call(untyped(value)))
          .catch((thrown) => thrown as Error);
        expect(error, `${name}(${String(value)})`).toBeInstanceOf(TypeError);
        expect((error as Error).message, name).toMatch(/^Expected options /);
      }
    }
  });
});

/** What no option takes but for those that a row leaves out. */
const WRONG: readonly unknown[] = [
  ...[5, null, 5n, true, [], 'x', () => {}, Symbol('s'), { nosuch: 1 }, new Array(2)],
];

describe('every option refuses what it does not take', () => {
  let guest: Guest;
  beforeAll(async () => {
    guest = await attach({ memory: openMemory({ ranges, read, registers }) }, { cache: false });
  });
  afterAll(() => guest.close());

  // biome-ignore lint/suspicious/noExplicitAny: as a program without types calls it
  const any = () => guest as any;
  const types = (...names: string[]) =>
    WRONG.filter((value) => !names.includes(Array.isArray(value) ? 'array' : typeof value));
  const closing = (options: object) => openMemory(untyped({ ranges, read, ...options })).close();
  const into = { write: () => true };

  it.each<[string, (value: unknown) => unknown, readonly unknown[]]>([
    ['openMemory', (value) => openMemory(untyped(value)), WRONG],
    ['openMemory live', (live) => closing({ live }), types('boolean')],
    ['openMemory addressing', (addressing) => closing({ addressing }), WRONG],
    ['openMemory description', (description) => closing({ description }), types('string')],
    ['openMemory registers', (given) => closing({ registers: given }), types('function')],
    ['openMemory ranges', (given) => closing({ ranges: given }), WRONG],
    ['openMemory range', (range) => closing({ ranges: [range] }), WRONG],
    ['openMemory segments', (segments) => openMemory(untyped({ segments })), WRONG],
    ['openMemory segment', (segment) => openMemory(untyped({ segments: [segment] })), WRONG],
    ['attach', (options) => attach('image:/x', untyped(options)), types('array')],
    ['attach profile', (profile) => attach('image:/x', untyped({ profile })), types('string')],
    ['openSource', (options) => openSource('image:/x', untyped(options)), WRONG],
    ['openSource write', (write) => openSource('image:/x', untyped({ write })), types('boolean')],
    [
      'openSource isolate',
      (on) => openSource('image:/x', untyped({ isolate: on })),
      types('boolean'),
    ],
    [
      'openSource meanwhile',
      (on) => openSource('image:/x', untyped({ meanwhile: on })),
      types('function'),
    ],
    ['Kernel.load', (memory) => Kernel.load(untyped(memory)), WRONG],
    ['Kernel.load options', (options) => Kernel.load(guest.memory, untyped(options)), WRONG],
    ['diagnose', (env) => diagnose(untyped(env)), WRONG],
    ['watchSwitches', (options) => any().watchSwitches(options), WRONG],
    ['watchSwitches cpus', (cpus) => any().watchSwitches({ cpus }), types('array')],
    ['watchSwitches by', (by) => any().watchSwitches({ by }), WRONG],
    ['watchTasks', (options) => any().watchTasks(options), WRONG],
    ['watchTasks interval', (interval) => any().watchTasks({ interval }), types('number')],
    ['watchTasks threads', (threads) => any().watchTasks({ threads }), types('boolean')],
    ['cr3Index interval', (interval) => any().cr3Index({ interval }), types('number')],
    ['cr3Index keep', (keep) => any().cr3Index({ keep }), types('number')],
    ['cr3Writes queue', (queue) => any().cr3Writes({ queue }), types('number')],
    ['search', (options) => any().search('x', options).next(), WRONG],
    ['search align', (align) => any().search('x', { align }).next(), types('number')],
    ['search progress', (on) => any().search('x', { progress: on }).next(), types('function')],
    ['tasks threads', (threads) => any().tasks({ threads }), types('boolean')],
    ['variable', (type) => any().variable('init_task', type), types('string')],
    ['scan', (options) => any().memory.scan(Buffer.of(1), options), WRONG],
    ['readMany', (addresses) => any().memory.readMany(addresses, 8), WRONG],
    ['VirtualMemory', (memory) => new VirtualMemory(untyped(memory), 0n, 4), WRONG],
    ['PhysicalMemory', (options) => new PhysicalMemory(untyped(options)), WRONG],
    ['setWindows', (windows) => guest.kernel.memory.setWindows(untyped(windows)), types('array')],
    ['writeProfile', (one) => writeProfile(untyped(one), 'json', into), WRONG],
    ['writeProfile to', (to) => writeProfile(guest, 'json', untyped(to)), types('string')],
    [
      'writeProfile sysmap',
      (sysmap) => writeProfile(guest, 'libvmi-conf', into, untyped({ sysmap })),
      types('string'),
    ],
    [
      'writeProfile name',
      (name) => writeProfile(guest, 'libvmi-conf', into, untyped({ name })),
      types('string'),
    ],
    ['Recorder.start', (one) => Recorder.start(untyped(one)), WRONG],
    ['libvmiKernel', (kernel) => libvmiKernel(untyped(kernel)), WRONG],
  ])('%s', async (_name, call, values) => {
    for (const value of values) {
      const error = await (async () => call(value))().catch((error) => error);
      const said = `${String((value as object)?.constructor?.name ?? value)}: ${String(error)}`;
      expect(said).toMatch(/: (TypeError|RangeError): Expected /);
    }
  });

  it.each([
    5,
    null,
    undefined,
    [null],
    [{}],
    [{ vcpu: 0, cr0: 1, cr3: 2, cr4: 3, rip: 4, efer: 5 }],
  ])('registers that are none: %j', async (given) => {
    const memory = openMemory({ ranges, read, registers: untyped(async () => given) });
    await expect(memory.registers()).rejects.toThrow(/^Expected registers to return /);
    await memory.close();
  });

  it('writing to a memory that was given is not supported', async () => {
    const memory = openMemory({ ranges, read, description: 'a\x1b[2Jb' });
    expect(memory.description).toBe('a\\x1b[2Jb');
    await expect(attach({ memory }, { write: true })).rejects.toMatchObject({
      code: 'VMI_UNSUPPORTED',
    });
    await memory.close();
  });

  it('a buffer that a function keeps and writes to later changes nothing', async () => {
    let kept: Uint8Array | undefined;
    const memory = openMemory({
      ranges,
      read: (address, into) => {
        kept = into;
        return read(address, into);
      },
    });
    const before = memory.read(0, 8);
    kept!.fill(0xee);
    expect(memory.read(0, 8)).toEqual(before);
    await memory.close();
  });
});
