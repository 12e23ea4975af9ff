import { VmiError } from '../../../../lib/errors.js';
import type { Kernel } from '../../../../lib/kernel/kernel.js';
import type { PhysicalMemory } from '../../../../lib/memory/physical-memory.js';
import { VirtualMemory } from '../../../../lib/memory/virtual-memory.js';
import { Tasks } from '../../../../lib/tasks/tasks.js';
import { FakeMemory, fakePhysicalMemory } from '../../support/fake-memory.js';

/** Where the direct map is. */
export const PAGE_OFFSET = 0xffff_8880_0000_0000n;
const RAM = 1 << 19;
/** The entry for the kernel's text that every page directory has. */
const TEXT = 0x0000_0000_00ab_c063n;

/** Where members are in this guest: no kernel has them there. */
const OFFSETS: Record<string, number> = {
  'task_struct.__state': 0x18,
  'task_struct.flags': 0x2c,
  'task_struct.exit_state': 0x30,
  'task_struct.pid': 0x40,
  'task_struct.tgid': 0x44,
  'task_struct.mm': 0x50,
  'task_struct.active_mm': 0x58,
  'task_struct.tasks': 0x60,
  'task_struct.real_parent': 0x70,
  'task_struct.signal': 0x78,
  'task_struct.real_cred': 0x80,
  'task_struct.thread_pid': 0x88,
  'task_struct.thread_node': 0x90,
  'task_struct.pid_links': 0xa0,
  'task_struct.start_time': 0xb0,
  'task_struct.comm': 0xc0,
  'mm_struct.pgd': 0x48,
  'cred.uid': 0x4,
  'signal_struct.thread_head': 0x10,
  'pid.level': 0x4,
  'pid.tasks': 0x10,
  'pid.numbers': 0x30,
  'upid.nr': 0,
  'pid_namespace.idr': 0x8,
  'idr.idr_rt': 0,
  'xarray.xa_head': 0x8,
  'xa_node.shift': 0,
  'xa_node.slots': 0x28,
  'xa_node.slots[63]': 0x28 + 63 * 8,
  'tlb_state.loaded_mm': 0,
  'rq.nr_switches': 0x8,
  'rq.curr': 0x20,
};
const SIZES: Record<string, number> = { task_struct: 0x100, upid: 16 };
/** Per-CPU variables, from the start of a CPU's area. */
const PER_CPU = { runqueues: 0x1000n, current_task: 0x2000n, cpu_tlbstate: 0x3000n } as const;

export interface MadeTask {
  readonly address: bigint;
  readonly pid: number;
}
export interface MadeMm {
  readonly address: bigint;
  /** What CR3 holds. */
  readonly cr3: bigint;
}

export interface TaskOptions {
  readonly pid: number;
  /** The leader, of a thread. */
  readonly of?: MadeTask;
  readonly mm?: MadeMm | undefined;
  readonly activeMm?: MadeMm | undefined;
  readonly kthread?: boolean;
  readonly comm?: string;
  readonly startTime?: bigint;
  readonly exitState?: number;
  /** PIDs in the namespaces below the initial one. */
  readonly inner?: readonly number[];
}

export interface MadeGuestOptions {
  readonly pti?: boolean;
  readonly live?: boolean;
  readonly cpus?: number;
  /** Symbols and members that this kernel does not tell of. */
  readonly without?: readonly string[];
}

/** A guest made of nothing but tasks: a direct map, structures at offsets of its own, no code. */
export class MadeGuest {
  readonly native: FakeMemory;
  readonly memory: PhysicalMemory;
  readonly kernel: Kernel;
  readonly idle: readonly MadeTask[];
  readonly initMm: MadeMm;
  readonly #ram = Buffer.alloc(RAM);
  readonly #symbols = new Map<string, bigint>();
  readonly #perCpu: bigint[];
  #free = 0x1000;

  constructor({ pti = false, live = true, cpus = 2, without = [] }: MadeGuestOptions = {}) {
    this.native = new FakeMemory({ physical: 0n, bytes: this.#ram });
    this.memory = fakePhysicalMemory(
      this.native,
      { pause: async () => {}, resume: async () => {}, close: async () => {} },
      { live },
    );
    this.initMm = this.mm();
    const memory = new VirtualMemory(this.memory, this.initMm.cr3, 4);
    memory.setWindows([{ virtual: PAGE_OFFSET, length: BigInt(RAM), physical: 0n }]);
    for (const [name, at] of Object.entries(PER_CPU)) this.#symbols.set(name, at);
    this.#symbols.set('init_pid_ns', this.#allocate(64));
    this.#symbols.set('total_forks', this.#allocate(8));
    this.#perCpu = Array.from({ length: cpus }, () => this.#allocate(0x4000));
    this.idle = this.#perCpu.map(() => this.#idleTask());
    this.#symbols.set('init_task', this.idle[0]!.address);
    this.#perCpu.forEach((_, cpu) => {
      this.run(cpu, this.idle[cpu]!, this.initMm);
    });
    this.kernel = this.#describe(memory, pti, without);
  }

  /** What {@link Tasks} is made of. */
  #describe(memory: Kernel['memory'], pti: boolean, without: readonly string[]): Kernel {
    const find = (name: string) => (without.includes(name) ? undefined : this.#symbols.get(name));
    const missing = (code: 'VMI_SYMBOL' | 'VMI_TYPE', name: string): never => {
      throw new VmiError(code, `no ${name}`);
    };
    const findOffset = (struct: string, member: string) =>
      without.includes(`${struct}.${member}`) ? undefined : OFFSETS[`${struct}.${member}`];
    const kernel = {
      memory,
      root: memory.root,
      cr3: memory.root,
      levels: 4,
      pageOffset: PAGE_OFFSET,
      p2m: undefined,
      pti,
      symbols: { find, address: (name: string) => find(name) ?? missing('VMI_SYMBOL', name) },
      types: {
        findOffset,
        offset: (struct: string, member: string) =>
          findOffset(struct, member) ?? missing('VMI_TYPE', `${struct}.${member}`),
        findSize: (name: string) => SIZES[name],
        size: (name: string) => SIZES[name] ?? missing('VMI_TYPE', name),
      },
      onlineCpus: () => this.#perCpu.map((_, cpu) => cpu),
      perCpuOffset: (cpu: number) => this.#perCpu[cpu]!,
      remember: async () => false,
    };
    return kernel as unknown as Kernel;
  }

  /** Finds this guest's tasks. */
  tasks(): Tasks {
    return new Tasks(this.kernel);
  }

  /** @param page what is unusual of its page directory; `odd`: bit 12 of its address is set */
  mm(page: { text?: bigint; skew?: bigint; odd?: boolean } = {}): MadeMm {
    const address = this.#allocate(0x100);
    const pgd = this.#page(page.odd ?? false);
    this.write(pgd + 511n * 8n, page.text ?? TEXT);
    this.write(address + at('mm_struct.pgd'), pgd + (page.skew ?? 0n));
    return { address, cr3: pgd - PAGE_OFFSET };
  }

  task(options: TaskOptions): MadeTask {
    const { pid, of, mm, activeMm = mm, kthread = false, inner = [] } = options;
    const task = this.#allocate(SIZES.task_struct!);
    const forks = this.#symbols.get('total_forks')!;
    this.write(forks, this.read(forks) + 1n);
    const set = (member: string, value: bigint) =>
      this.write(task + at(`task_struct.${member}`), value);
    this.write32(task + at('task_struct.pid'), pid);
    this.write32(task + at('task_struct.tgid'), of?.pid ?? pid);
    this.write32(task + at('task_struct.flags'), kthread ? 0x0020_0000 : 0x0040_0000);
    this.write32(task + at('task_struct.exit_state'), options.exitState ?? 0);
    set('mm', mm?.address ?? 0n);
    set('active_mm', activeMm?.address ?? 0n);
    set('start_time', options.startTime ?? BigInt(pid) * 1000n);
    set('real_parent', this.idle[0]!.address);
    const cred = this.#allocate(16);
    this.write32(cred + at('cred.uid'), 1000);
    set('real_cred', cred);
    this.#bytes(task + at('task_struct.comm'), Buffer.from(options.comm ?? `task-${pid}`));
    const structPid = this.#allocate(0x80);
    this.write32(structPid + at('pid.level'), inner.length);
    [pid, ...inner].forEach((nr, level) => {
      this.write32(structPid + at('pid.numbers') + 16n * BigInt(level), nr);
    });
    this.write(structPid + at('pid.tasks'), task + at('task_struct.pid_links'));
    set('thread_pid', structPid);
    this.setPid(pid, structPid);
    const signal =
      of === undefined ? this.#signal() : this.read(of.address + at('task_struct.signal'));
    set('signal', signal);
    this.link(signal + at('signal_struct.thread_head'), task + at('task_struct.thread_node'));
    if (of === undefined)
      this.link(this.idle[0]!.address + at('task_struct.tasks'), task + at('task_struct.tasks'));
    return { address: task, pid };
  }

  /** Takes a process of one thread off every list: it was reaped. */
  reap(task: MadeTask): void {
    for (const member of ['tasks', 'thread_node']) {
      const node = task.address + at(`task_struct.${member}`);
      const [next, prev] = [this.read(node), this.read(node + 8n)];
      this.write(prev, next);
      this.write(next + 8n, prev);
    }
    this.setPid(task.pid, 0n);
  }

  /** Puts a task on a CPU, all of the way. */
  run(cpu: number, task: MadeTask, mm: MadeMm): void {
    this.count(cpu);
    this.queue(cpu, task);
    this.load(cpu, mm);
    this.current(cpu, task);
  }

  /** The steps of a context switch, in their order. */
  count(cpu: number): void {
    const place = this.#variable(cpu, 'runqueues') + at('rq.nr_switches');
    this.write(place, this.read(place) + 1n);
  }
  queue(cpu: number, task: MadeTask): void {
    this.write(this.#variable(cpu, 'runqueues') + at('rq.curr'), task.address);
  }
  load(cpu: number, mm: MadeMm | 'switching'): void {
    this.write(this.#variable(cpu, 'cpu_tlbstate'), mm === 'switching' ? 1n : mm.address);
  }
  current(cpu: number, task: MadeTask): void {
    this.write(this.#variable(cpu, 'current_task'), task.address);
  }

  /** Sets a pointer of a task, by the kernel's name of the member. */
  set(task: MadeTask, member: string, value: bigint): void {
    this.write(task.address + at(`task_struct.${member}`), value);
  }

  /** Calls back before the n-th read from now on, once. */
  before(n: number, change: () => void): void {
    const from = this.native.log.length;
    this.native.onRead = (read) => {
      if (read - from < n) return;
      this.native.onRead = undefined;
      change();
    };
  }

  setPid(pid: number, entry: bigint): void {
    const root = this.#symbols.get('init_pid_ns')! + 0x10n;
    let slot = root;
    for (const shift of [12, 6, 0]) {
      if (this.read(slot) === 0n) {
        const node = this.#allocate(0x28 + 64 * 8);
        this.write(node, BigInt(shift));
        this.write(slot, node + 2n);
      }
      slot = this.read(slot) - 2n + 0x28n + 8n * BigInt((pid >>> shift) & 63);
    }
    this.write(slot, entry);
  }

  /** Adds a node at the end of a list. */
  link(head: bigint, node: bigint): void {
    const last = this.read(head + 8n);
    this.write(node, head);
    this.write(node + 8n, last);
    this.write(last, node);
    this.write(head + 8n, node);
  }

  read(address: bigint): bigint {
    return this.#ram.readBigUInt64LE(Number(address - PAGE_OFFSET));
  }
  write(address: bigint, value: bigint): void {
    this.#ram.writeBigUInt64LE(BigInt.asUintN(64, value), Number(address - PAGE_OFFSET));
  }
  write32(address: bigint, value: number): void {
    this.#ram.writeUInt32LE(value >>> 0, Number(address - PAGE_OFFSET));
  }

  #bytes(address: bigint, bytes: Buffer): void {
    bytes.copy(this.#ram, Number(address - PAGE_OFFSET));
  }

  #variable(cpu: number, name: keyof typeof PER_CPU): bigint {
    return this.#perCpu[cpu]! + PER_CPU[name];
  }

  #idleTask(): MadeTask {
    const task = this.#allocate(SIZES.task_struct!);
    const tasks = task + at('task_struct.tasks');
    this.write(tasks, tasks);
    this.write(tasks + 8n, tasks);
    this.write32(task + at('task_struct.flags'), 0x0020_0000);
    this.write(task + at('task_struct.active_mm'), this.initMm.address);
    this.#bytes(task + at('task_struct.comm'), Buffer.from('swapper'));
    return { address: task, pid: 0 };
  }

  #signal(): bigint {
    const signal = this.#allocate(0x40);
    const head = signal + at('signal_struct.thread_head');
    this.write(head, head);
    this.write(head + 8n, head);
    return signal;
  }

  #page(odd: boolean): bigint {
    this.#free = ((this.#free + 0x1fff) & ~0x1fff) + (odd ? 0x1000 : 0);
    const page = PAGE_OFFSET + BigInt(this.#free);
    this.#free += 0x1000;
    return page;
  }

  #allocate(bytes: number): bigint {
    this.#free = (this.#free + 15) & ~15;
    const address = PAGE_OFFSET + BigInt(this.#free);
    this.#free += bytes;
    return address;
  }
}

/** Offset of `struct.member`. */
export function at(path: string): bigint {
  return BigInt(OFFSETS[path]!);
}
