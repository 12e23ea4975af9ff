import { Readable } from 'node:stream';
import { run, type World } from '../../../lib/cli/run.js';
import { targetAmong } from '../../../lib/discover/find-target.js';
import type { ListedGuest } from '../../../lib/discover/list-guests.js';
import { CorruptError, FaultError, hex, VmiError } from '../../../lib/errors.js';
import type { AttachOptions, Guest, GuestCpu, SpaceOptions } from '../../../lib/index.js';
import type { WalkResult } from '../../../lib/memory/virtual-memory.js';
import { formatTarget, type Target } from '../../../lib/target.js';
import type { CrossRow } from '../../../lib/tasks/cross-view.js';
import { Task, type TaskJson } from '../../../lib/tasks/task.js';
import { TaskList } from '../../../lib/tasks/task-list.js';

/** Guest-physical address of the kernel's own page table. */
export const KERNEL_CR3 = 0x1a10000n;
/** Where the fake guest has its page of memory. */
export const DATA = 0xffff888000001000n;

/** What runs on the host of these tests. */
const GUESTS: readonly ListedGuest[] = [
  { pid: 4242, name: 'vm', targets: ['qemu:4242', 'qmp:/run/vm'] },
  { pid: 4300, name: 'web', targets: ['qemu:4300'] },
  { pid: 4301, name: 'web', targets: ['qemu:4301'] },
].map((guest) => ({
  ...guest,
  domain: null,
  memory: 512 << 20,
  machine: 'q35',
  qmpSockets: [],
  readable: true,
}));

/** A task with the getters that faces use. */
export function fakeTask(json: Partial<TaskJson> & { pid: number; comm: string }): Task {
  const full: TaskJson = {
    tgid: json.pid,
    ppid: 1,
    commHex: Buffer.from(json.comm).toString('hex'),
    uid: 0,
    state: 'S',
    kthread: false,
    startTime: '1000000',
    nsPids: [json.pid],
    task: hex(0xffff888003000000n + BigInt(json.pid) * 0x2000n),
    mm: null,
    activeMm: null,
    pgd: null,
    cr3: null,
    cr3Source: 'none',
    ...json,
  };
  const corrupt = () => {
    if (full.error !== undefined) throw new CorruptError(full.error, BigInt(full.task));
  };
  return Object.defineProperties(Object.create(Task.prototype), {
    pid: { value: full.pid },
    tgid: { value: full.tgid },
    comm: { value: full.comm },
    uid: { value: full.uid },
    kthread: { value: full.kthread },
    address: { value: BigInt(full.task) },
    cr3: {
      get() {
        corrupt();
        return full.cr3 === null ? null : BigInt(full.cr3);
      },
    },
    cr3Source: {
      get() {
        corrupt();
        return full.cr3Source;
      },
    },
    toJSON: { value: () => full },
  }) as Task;
}

export const TASKS: readonly Task[] = [
  fakeTask({
    pid: 1,
    ppid: 0,
    comm: 'init',
    mm: '0xffff888003100000',
    cr3: '0x2c10000',
    cr3Source: 'mm',
  }),
  fakeTask({ pid: 2, ppid: 0, comm: 'kthreadd', kthread: true }),
  fakeTask({
    pid: 7,
    comm: 'bad\\x1b[31m\\nname',
    uid: 1000,
    state: 'R',
    cr3: '0x3000000',
    cr3Source: 'mm',
  }),
  fakeTask({ pid: 9, comm: 'zombie', state: 'Z', cr3Source: 'exited' }),
];

export const BROKEN = fakeTask({
  pid: 13,
  comm: 'broken',
  cr3Source: 'corrupt',
  error:
    "task 13 at 0xffff88800301a000 names an address space (mm 0x41) whose page table does not map the kernel's text",
});

const WALK: WalkResult = {
  address: 0xffffffff81e0a580n,
  root: KERNEL_CR3,
  steps: [
    step('pml4', 0x1a10ff8n, 0x1a15067n),
    step('pdpt', 0x1a15ff0n, 0x1a16063n),
    step('pd', 0x1a16078n, 0x80000000020001e3n, true),
  ],
  physical: 0x200a580n,
  pageSize: 0x200000n,
};

function step(
  level: string,
  entryAddress: bigint,
  entry: bigint,
  leaf = false,
): WalkResult['steps'][number] {
  const bit = (n: bigint) => ((entry >> n) & 1n) === 1n;
  return {
    level,
    entryAddress,
    entry,
    leaf,
    present: bit(0n),
    writable: bit(1n),
    user: bit(2n),
    noExecute: bit(63n),
  };
}

/** A guest of a few tasks, one page of memory and two symbols. */
export class FakeGuest {
  readonly target = 'qemu:4242';
  readonly tasksNow: Task[] = [...TASKS];
  readonly kernel = {
    release: '6.1.0-fake',
    cr3: KERNEL_CR3,
    levels: 4 as const,
    symbols: {
      at: (address: bigint) => this.symbolAt(address),
      complete: (prefix: string) =>
        ['init_mm', 'init_task'].filter((name) => name.startsWith(prefix)),
    },
    types: { names: () => ['task_struct', 'mm_struct', 'task_struct'] },
    provenance: {
      located: 'registers',
      by: 'vCPU 0',
      symbols: 'kallsyms',
      types: 'btf',
      cached: true,
      milliseconds: 4.2,
    },
  };
  readonly memory = { description: 'process 4242', size: 512n << 20n };
  closed = 0;
  /** Thrown by everything that is asked, when set. */
  failure: Error | undefined;

  tasks(options: { threads?: boolean } = {}): Task[] {
    this.#check();
    return options.threads === true
      ? [
          ...this.tasksNow,
          fakeTask({ pid: 8, tgid: 7, comm: 'worker', cr3: '0x3000000', cr3Source: 'mm' }),
        ]
      : this.tasksNow;
  }

  task(pid: number): Task {
    this.#check();
    const found = this.tasks({ threads: true }).find((task) => task.pid === pid);
    if (found === undefined)
      throw new VmiError('VMI_NO_TASK', `no task with PID ${pid}; tasks() lists what there is`);
    return found;
  }

  pidToCr3(pid: number): bigint | null {
    return this.task(pid).cr3;
  }

  /** What the join of all views says; every view has every task unless a test says otherwise. */
  cross: CrossRow[] | undefined;

  crossView(): CrossRow[] {
    this.#check();
    return (
      this.cross ?? this.tasksNow.map((task) => ({ task, views: ['list', 'pids'], missing: [] }))
    );
  }

  /** Tasks whose address space is none, as a search by CR3 reports them. */
  corrupt: Task[] = [];

  cr3Index() {
    this.#check();
    return {
      look: () => {},
      name: (value: bigint) => {
        const cr3 = this.cr3Base(value);
        const tasks = this.tasks({ threads: true }).filter((task) => task.cr3 === cr3);
        const owners = tasks.map((task) => {
          const { pid, tgid, comm } = task;
          const startTime = BigInt(task.toJSON().startTime);
          const gone = comm === 'gone';
          return { pid, tgid, comm, startTime, cr3, first: 1, last: 2, gone };
        });
        return { value, cr3, kernel: cr3 === KERNEL_CR3, owners, certain: !owners[0]?.gone };
      },
      [Symbol.asyncDispose]: async () => {},
    };
  }

  cr3ToTasks(cr3s: bigint | readonly bigint[]): TaskList | TaskList[] {
    this.#check();
    if (typeof cr3s === 'bigint') return (this.cr3ToTasks([cr3s]) as TaskList[])[0]!;
    return cr3s.map((cr3) => {
      const base = this.cr3Base(cr3);
      const found = new TaskList();
      found.push(...this.tasks({ threads: true }).filter((task) => task.cr3 === base));
      found.corrupt = this.corrupt;
      found.kernel = base === KERNEL_CR3;
      return found;
    });
  }

  cr3Base(cr3: bigint): bigint {
    return cr3 & 0x000f_ffff_ffff_f000n;
  }

  cpus(): GuestCpu[] {
    this.#check();
    return [
      { cpu: 0, task: this.tasksNow[0]!, cr3: 0x2c10000n, switching: false },
      {
        cpu: 1,
        task: fakeTask({ pid: 0, comm: 'swapper/1', kthread: true }),
        cr3: null,
        switching: true,
      },
    ];
  }

  symbol(name: string): bigint {
    this.#check();
    if (name === 'init_task') return 0xffffffff81e0a580n;
    throw new VmiError('VMI_SYMBOL', `no symbol '${name}' in kallsyms`);
  }

  symbolAt(address: bigint) {
    const offset = address - 0xffffffff81e0a580n;
    return offset < 0n
      ? undefined
      : { name: 'init_task', address: address - offset, offset: Number(offset) };
  }

  read(address: bigint, length: number, _space: SpaceOptions = {}): Buffer {
    this.#check();
    const available = Number(DATA + 4096n - address);
    if (length > available) {
      throw new FaultError({
        address: DATA + 4096n,
        space: 'virtual',
        cr3: KERNEL_CR3,
        requested: length,
        transferred: Math.max(0, available),
        level: 1,
      });
    }
    return Buffer.alloc(length, 'ABCDEFGHIJKLMNOP');
  }

  readPhysical(_address: bigint, length: number): Buffer {
    return Buffer.alloc(length, 0xff);
  }

  walk(address: bigint): WalkResult {
    if (address === WALK.address) return WALK;
    if (address === 1n << 63n)
      return { address, root: KERNEL_CR3, steps: [], physical: undefined, pageSize: undefined };
    const first = { ...WALK.steps[0]!, entry: 0n, present: false };
    return { address, root: KERNEL_CR3, steps: [first], physical: undefined, pageSize: undefined };
  }

  async close(): Promise<void> {
    this.closed++;
  }

  #check(): void {
    if (this.failure !== undefined) throw this.failure;
  }
}

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly guest: FakeGuest;
  readonly attached: { target: Target; options: AttachOptions } | undefined;
}

/** Runs `vmi` on a fake guest. */
export async function vmi(
  args: readonly string[],
  change: (guest: FakeGuest) => void = () => {},
  input: readonly string[] = [],
): Promise<Ran> {
  const guest = new FakeGuest();
  change(guest);
  let attached: Ran['attached'];
  const chunks = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
  const sink = (name: 'stdout' | 'stderr') => ({
    write: (chunk: string | Uint8Array) => chunks[name].push(Buffer.from(chunk as string)),
  });
  const world: World = {
    streams: { stdout: sink('stdout'), stderr: sink('stderr'), colours: false },
    env: {},
    input: Readable.from(input),
    async attach(target, options) {
      attached = { target, options };
      if (formatTarget(target) !== guest.target) {
        throw new VmiError(
          'VMI_ATTACH',
          `there is no process ${formatTarget(target)} on this host`,
        );
      }
      return guest as unknown as Guest;
    },
    find: async (word) => targetAmong(word, GUESTS),
    onInterrupt: () => () => {},
  };
  const code = await run(args, world);
  const text = (name: 'stdout' | 'stderr') => Buffer.concat(chunks[name]).toString('latin1');
  return { code, stdout: text('stdout'), stderr: text('stderr'), guest, attached };
}
