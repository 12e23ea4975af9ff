import { inspect } from 'node:util';
import { attach, type Guest, type StructObject, VmiError } from 'node-libvmi';
import * as library from 'node-libvmi/helpers';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { Random } from '../hostile/random.mjs';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';

const ROUNDS = 40;

let lab: LabGuest;
let guest: Guest;
beforeAll(async () => {
  lab = await bootGuest({ suite: 'bookworm', backend: 'memfd', memory: 256, cpus: 1, tasks: 5 });
  guest = await attach(`qemu:${lab.pid}`);
});
afterAll(async () => {
  vi.restoreAllMocks();
  await guest?.close();
  await lab?.close();
});

/** Everything that walks the kernel, of one task where it is about one. */
function operations(task: () => StructObject): Record<string, () => unknown> {
  const { objects } = guest;
  const ofSpace = (use: (mm: StructObject) => unknown) => {
    const mm = task().mm as StructObject | null;
    return mm === null ? undefined : use(mm);
  };
  return {
    processes: () => [...library.processes(objects)],
    threads: () => [...library.threads(task())],
    children: () => [...library.children(task())],
    parents: () => library.parents(task()),
    cmdline: () => library.cmdline(objects, task()),
    environ: () => library.environ(objects, task()),
    exe: () => library.exe(task()),
    cwd: () => library.cwd(task()),
    root: () => library.root(task()),
    files: () => [...library.files(task())],
    vmas: () => ofSpace((mm) => [...library.vmas(mm)]),
    rss: () => ofSpace((mm) => library.rss(objects, mm)),
    pageState: () => ofSpace((mm) => library.pageState(objects, mm, 0x40_0000n)),
    namespaces: () => library.namespaces(task()),
    cgroup: () => library.cgroup(task()),
    modules: () => [...library.modules(objects)],
    mounts: () => [...library.mounts(task())],
    dmesg: () => [...library.dmesg(objects)],
    sockets: () => [...library.sockets(objects)],
    commandLine: () => library.commandLine(objects),
    loadAverage: () => library.loadAverage(objects),
    runQueues: () => library.runQueues(objects),
    print: () => inspect(task()),
    json: () => JSON.stringify(task()),
    snapshot: () => task().$snapshot().comm,
  };
}

it('answers or says why not, whatever the reads of its structures bring', () => {
  const random = new Random(16);
  const tasks = guest.tasks({ threads: true });
  const { memory, pageOffset } = guest.kernel;
  let odds = 0;
  const wild = (): bigint => {
    const some = random.pick(tasks).address;
    return random.pick([
      0n,
      some,
      some + BigInt(random.below(9000)),
      0xdead_0000_0000_0100n,
      BigInt(random.below(65_536)),
      pageOffset + BigInt(random.below(1 << 28)),
      random.u64(),
    ]);
  };
  const lies = () => odds > 0 && random.below(odds) === 0;
  const { readU64, readU32, readInto, read } = memory;
  vi.spyOn(memory, 'readU64').mockImplementation((address) => {
    const value = readU64.call(memory, address);
    return lies() ? wild() : value;
  });
  vi.spyOn(memory, 'readU32').mockImplementation((address) => {
    const value = readU32.call(memory, address);
    return lies() ? random.below(2 ** 32) : value;
  });
  const spoil = (bytes: Uint8Array) => {
    if (!lies() || bytes.length === 0) return;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    if (bytes.length < 8) view.setUint8(random.below(bytes.length), random.below(256));
    else view.setBigUint64(random.below(bytes.length >> 3) * 8, wild(), true);
  };
  vi.spyOn(memory, 'readInto').mockImplementation((address, into) => {
    const read = readInto.call(memory, address, into);
    spoil(into);
    return read;
  });
  vi.spyOn(memory, 'read').mockImplementation((address, length) => {
    const bytes = read.call(memory, address, length);
    spoil(bytes);
    return bytes;
  });

  const task = () => guest.object('struct task_struct', random.pick(tasks)) as StructObject;
  const all: Record<string, () => unknown> = {
    ...operations(task),
    stack: () => random.pick(tasks).stack(),
    explain: () => guest.explain(random.pick(tasks).pid),
  };
  let answers = 0;
  let refusals = 0;
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, work] of Object.entries(all)) {
      odds = random.pick([3, 20, 100, 500]);
      try {
        const answer = work();
        odds = 0;
        // What a terminal acts on stays out of what is printed.
        expect(inspect(answer)).not.toMatch(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/);
        answers++;
      } catch (error) {
        odds = 0;
        if (!(error instanceof VmiError))
          throw new Error(`${name}, round ${round}`, { cause: error });
        refusals++;
      }
    }
  }
  expect(answers).toBeGreaterThan(ROUNDS * 5);
  expect(refusals).toBeGreaterThan(ROUNDS * 3);
});
