import { wrap } from '../address.js';
import { CorruptError, FaultError, hex } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import type { Task } from '../tasks/task.js';
import { PolledStream } from './polled-stream.js';
import type { SwitchSampler } from './sampled-switches.js';
import type { Switch } from './switch.js';

/** What is known of a task that was born, executed or exited: its last known facts. */
export interface TaskFacts {
  readonly pid: number;
  readonly tgid: number;
  /** The parent process; `null` where only a CPU was seen to run the task. */
  readonly ppid: number | null;
  readonly comm: string;
  /** Real user id; `null` as `ppid`. */
  readonly uid: number | null;
  readonly kthread: boolean;
  /** Monotonic start time, nanoseconds since boot; with `pid` it names the task for good. */
  readonly startTime: bigint;
  /** Address of the `task_struct`. */
  readonly address: bigint;
  readonly mm: bigint | null;
  readonly cr3: bigint | null;
}

/** A task came, executed a program, or went. */
export interface TaskEvent {
  readonly kind: 'birth' | 'exec' | 'exit';
  /** Host time at which it was known, nanoseconds on the clock of `process.hrtime.bigint()`. */
  readonly time: bigint;
  readonly task: TaskFacts;
  /** Of an exec: what the task was before. */
  readonly before?: TaskFacts;
  /** Tasks that were born since watching began and that nobody saw, by the kernel's own count. */
  readonly lost: number | null;
}

/** How often tasks are looked at, and which are told. */
export interface TaskWatchOptions {
  /** Milliseconds between two listings, 1 to 60,000; default 50. */
  readonly interval?: number | undefined;
  /** Threads as well as processes; default false. */
  readonly threads?: boolean | undefined;
  /** Ends the stream with `VMI_ABORTED`. */
  readonly signal?: AbortSignal | undefined;
}

/** What watching tasks needs of a guest. */
export interface TaskWatchGuest {
  readonly kernel: Kernel;
  tasks(options: { readonly threads: boolean }): readonly Task[];
}

/** Times that a listing is tried again at the beginning because tasks were born meanwhile. */
const TRIES = 8;

/**
 * Births, execs and exits, as listings and sampled switches tell of them. A task that lives for
 * less than the interval and is never met on a CPU is not seen, but counted. An exec shows as
 * another mm of the same task. Watching begins with the first `next()`.
 */
export class TaskWatch extends PolledStream<TaskEvent> {
  readonly #guest: TaskWatchGuest;
  readonly #threads: boolean;
  readonly #sampler: SwitchSampler | undefined;
  readonly #known = new Map<string, TaskFacts>();
  #queue: TaskEvent[] = [];
  #born = 0;
  #base: bigint | undefined;
  #lost: number | null = null;
  #isStarted = false;

  /**
   * @param sampler of the same guest; `undefined` where it cannot be sampled
   * @internal
   */
  constructor(
    guest: TaskWatchGuest,
    options: TaskWatchOptions,
    sampler: SwitchSampler | undefined,
    closed: () => void,
  ) {
    super(options.interval ?? 50, options.signal, closed);
    this.#guest = guest;
    this.#threads = options.threads === true;
    this.#sampler = sampler;
  }

  /** Tasks that were born unseen since watching began; `null` for kernels without `total_forks`. */
  get lost(): number | null {
    return this.#lost;
  }

  /** @internal The first look only learns who is there. */
  protected look(): TaskEvent[] {
    this.#queue = [];
    if (this.#isStarted) this.#list();
    else this.#start();
    return this.#queue;
  }

  /** @internal */
  protected release(): void {
    this.#sampler?.stop();
  }

  /** Who is there already; no event tells of them. */
  #start(): void {
    this.#isStarted = true;
    for (let attempt = 0; attempt < TRIES; attempt++) {
      this.#known.clear();
      this.#base = this.#forks();
      for (const task of this.#guest.tasks({ threads: true })) {
        const facts = factsOf(task);
        this.#known.set(keyOf(facts), facts);
      }
      if (this.#forks() === this.#base) break;
    }
    if (this.#base !== undefined) this.#lost = 0;
  }

  #list(): void {
    // Read first: who is born after this may be in the listing, and is not counted yet.
    const forks = this.#forks();
    this.#takeSwitches();
    let tasks: readonly Task[];
    try {
      tasks = this.#guest.tasks({ threads: true });
    } catch (error) {
      // A list that stayed inconsistent under the walk: the next look sees it whole.
      if (error instanceof CorruptError || error instanceof FaultError) return;
      throw error;
    }
    const alive = new Set<string>();
    for (const task of tasks) {
      const facts = factsOf(task);
      alive.add(keyOf(facts));
      this.#meet(facts);
    }
    for (const [key, facts] of this.#known) {
      if (alive.has(key)) continue;
      this.#known.delete(key);
      this.#tell('exit', facts);
    }
    if (forks === undefined || this.#base === undefined) return;
    this.#lost = Math.max(this.#lost ?? 0, Number(forks - this.#base) - this.#born);
  }

  #takeSwitches(): void {
    for (;;) {
      const switches = this.#sampler?.take() ?? [];
      for (const event of switches) if (!event.task.idle) this.#meet(factsOfSwitch(event));
      if (switches.length === 0) return;
    }
  }

  /** A task that is there. */
  #meet(facts: TaskFacts): void {
    const key = keyOf(facts);
    const before = this.#known.get(key);
    if (before === undefined) {
      this.#born++;
      this.#known.set(key, facts);
      this.#tell('birth', facts);
      return;
    }
    const whole: TaskFacts = {
      ...facts,
      ppid: facts.ppid ?? before.ppid,
      uid: facts.uid ?? before.uid,
      // A task that exits lets go of its mm: what it ran on is worth more.
      mm: facts.mm ?? before.mm,
      cr3: facts.cr3 ?? before.cr3,
    };
    this.#known.set(key, whole);
    if (facts.mm !== null && before.mm !== null && facts.mm !== before.mm)
      this.#tell('exec', whole, before);
  }

  #tell(kind: TaskEvent['kind'], task: TaskFacts, before?: TaskFacts): void {
    if (!this.#threads && task.pid !== task.tgid) return;
    const event = { kind, time: process.hrtime.bigint(), task, lost: this.#lost };
    this.#queue.push(before === undefined ? event : { ...event, before });
  }

  /** How many tasks were ever born (kernel/fork.c, `total_forks`); `undefined`: not shown. */
  #forks(): bigint | undefined {
    const { symbols, memory } = this.#guest.kernel;
    const symbol = symbols.find('total_forks');
    memory.begin();
    return symbol === undefined ? undefined : memory.readU64(wrap(symbol));
  }
}

function keyOf({ pid, startTime }: TaskFacts): string {
  return `${pid} ${startTime}`;
}

function factsOf(task: Task): TaskFacts {
  return {
    pid: task.pid,
    tgid: task.tgid,
    ppid: task.ppid,
    comm: task.comm,
    uid: task.uid,
    kthread: task.kthread,
    startTime: task.startTime,
    address: task.address,
    mm: task.mm,
    cr3: task.mm === null ? null : cr3Of(task),
  };
}

function cr3Of(task: Task): bigint | null {
  try {
    return task.cr3;
  } catch (error) {
    if (error instanceof CorruptError || error instanceof FaultError) return null;
    throw error;
  }
}

function factsOfSwitch({ task, cr3 }: Switch): TaskFacts {
  return {
    pid: task.pid,
    tgid: task.tgid,
    ppid: null,
    comm: task.comm,
    uid: null,
    kthread: task.kthread,
    startTime: task.startTime,
    address: task.address,
    mm: task.mm,
    cr3: task.mm === null ? null : cr3,
  };
}

/**
 * An event in the form that `JSON.stringify` gives: times are decimal strings, addresses hex
 * strings.
 */
export function taskEventJson({ kind, time, task, before, lost }: TaskEvent) {
  const plain = (facts: TaskFacts) => ({
    ...facts,
    startTime: facts.startTime.toString(),
    address: hex(facts.address),
    mm: facts.mm === null ? null : hex(facts.mm),
    cr3: facts.cr3 === null ? null : hex(facts.cr3),
  });
  return {
    kind,
    time: time.toString(),
    ...plain(task),
    ...(before === undefined ? {} : { before: plain(before) }),
    lost,
  };
}
