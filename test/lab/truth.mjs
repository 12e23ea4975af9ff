// @ts-check
/**
 * The oracle's table, parsed.
 *
 * A table is text: `BEGIN generation mode`, lines of tab-separated fields, `END generation lines`.
 * The first field says what a line is: `fact name value`, `offset struct.member bytes`, `columns
 * kind name…` (the fields of the rows to come), `cpu …`, `task …`. Numbers are decimal; addresses,
 * flags and register values are hex without `0x`.
 */

/** @typedef {'tell' | 'freeze' | 'halt'} TruthMode */

/**
 * What the oracle says of one task (a process's leader or another thread), at the moment of the
 * table.
 *
 * @typedef {object} TruthTask
 * @property {'process' | 'thread' | 'idle' | 'hidden'} kind `process` is a thread group's leader,
 *   `idle` a CPU's idle task (on no list), `hidden` one that the `hide` command took off the list
 * @property {number} pid the kernel's `pid`, in the initial PID namespace: a thread's id
 * @property {number} tgid what users call the PID
 * @property {number} ppid `real_parent->tgid`
 * @property {Buffer} comm up to the first zero byte; any bytes
 * @property {Buffer} commBytes all 16
 * @property {number} flags PF_… bits
 * @property {bigint} state `__state` (`state` before 5.14)
 * @property {number} exitState
 * @property {bigint} task address of the task_struct
 * @property {bigint} mm 0n for kernel threads and exited tasks
 * @property {bigint} activeMm
 * @property {bigint} pgd virtual address of the page table of mm, else of active_mm, else 0n
 * @property {bigint} cr3 the source algorithm's answer: physical address of `pgd`, in a PV guest of
 *   Xen that of the machine; 0n when both mm are NULL
 * @property {bigint} pseudo physical address of `pgd` as the guest counts; the same as `cr3` but in
 *   a PV guest
 * @property {bigint} userCr3 what CR3 holds in user mode of a PV guest; 0n elsewhere, and where
 *   there is no such table
 * @property {bigint} findVpid the same through `pid_task(find_vpid(pid), PIDTYPE_PID)`; 0n for idle
 *   tasks
 * @property {number} uid
 * @property {bigint} startTime ns, monotonic
 * @property {bigint} startBoottime ns since boot
 * @property {boolean} onCpu
 * @property {number} cpu the one it runs on or last ran on
 * @property {number} level depth of its PID namespace, 0 for the initial one
 * @property {number[]} pids its ids in all namespaces it is in, outermost first; empty for a task
 *   just reaped
 */

/**
 * What the oracle says of one CPU; each CPU told of itself.
 *
 * @typedef {object} TruthCpu
 * @property {number} cpu
 * @property {bigint} task address of the current task
 * @property {number} pid its pid
 * @property {bigint} loadedMm `cpu_tlbstate.loaded_mm`; 1n is LOADED_MM_SWITCHING
 * @property {bigint} loadedPgd physical address of its page table, 0n if there is none
 * @property {bigint} cr3 the register, as it was
 * @property {bigint} cr4 the register
 */

/**
 * @typedef {{ release: string, version: string, stext: bigint, physBase: bigint,
 *   pageOffset: bigint, initTopPgt: bigint, initTopPgtPhysical: bigint,
 *   initTask: bigint, initPidNs: bigint, initMm: bigint, levels: 4 | 5,
 *   pv: boolean, pti: boolean, pcid: boolean, cpus: number, hz: number, tscKhz: number, bootTime:
 *   number, uptimeNs: bigint, teller: number }} TruthFacts `pv`: a PV guest of Xen, whose page
 *   tables hold machine addresses; `bootTime` in seconds since 1970; `physBase` modulo 2^64;
 *   `teller` the pid that wrote the command (0 in a freeze)
 */

/** One table. */
export class Truth {
  /**
   * @param {number} generation counts up from 1 in each guest
   * @param {TruthMode} mode
   * @param {TruthFacts} facts
   * @param {Map<string, number>} offsets `'task_struct.pid'` → bytes
   * @param {TruthTask[]} tasks idle tasks first, then in the order of the kernel's lists, hidden
   *   ones last
   * @param {TruthCpu[]} cpus
   */
  constructor(generation, mode, facts, offsets, tasks, cpus) {
    this.generation = generation;
    this.mode = mode;
    this.facts = facts;
    this.offsets = offsets;
    this.tasks = tasks;
    this.cpus = cpus;
  }

  /**
   * The leaders that a walk of `init_task.tasks` finds (the idle task at its head is not counted).
   */
  get processes() {
    return this.tasks.filter(({ kind }) => kind === 'process');
  }

  /**
   * The task with a pid or thread id; not an idle task.
   *
   * @param {number} pid
   * @returns {TruthTask | undefined}
   */
  task(pid) {
    return this.tasks.find((task) => task.pid === pid && task.kind !== 'idle');
  }

  /**
   * The tasks with a name.
   *
   * @param {string} comm
   * @returns {TruthTask[]}
   */
  named(comm) {
    const bytes = Buffer.from(comm);
    return this.tasks.filter((task) => task.comm.equals(bytes));
  }
}

/**
 * Parses one table.
 *
 * @param {string} text from `BEGIN` to `END`, both included
 * @returns {Truth}
 * @throws {Error} when the table is not whole
 */
export function parseTruth(text) {
  const lines = text.trimEnd().split('\n');
  const [begin, generation, mode] = (lines[0] ?? '').split(' ');
  const [end, endGeneration, count] = (lines.at(-1) ?? '').split(' ');
  if (
    begin !== 'BEGIN' ||
    end !== 'END' ||
    generation !== endGeneration ||
    Number(count) !== lines.length - 2
  ) {
    throw new Error(
      `a table of the oracle is not whole: ${lines.length} lines from "${lines[0]}" to "${lines.at(-1)}"`,
    );
  }
  /** @type {Map<string, string>} */ const facts = new Map();
  /** @type {Map<string, number>} */ const offsets = new Map();
  /** @type {Map<string, string[]>} */ const columns = new Map();
  /** @type {TruthTask[]} */ const tasks = [];
  /** @type {TruthCpu[]} */ const cpus = [];
  for (const line of lines.slice(1, -1)) {
    const [kind = '', ...fields] = line.split('\t');
    const [name = '', value = ''] = fields;
    if (kind === 'fact') facts.set(name, value);
    else if (kind === 'offset') offsets.set(name, Number(value));
    else if (kind === 'columns') columns.set(name, fields.slice(1));
    else {
      const names = columns.get(kind);
      if (!names || names.length !== fields.length)
        throw new Error(`not a row of the oracle: ${line}`);
      const row = new Map(names.map((column, i) => [column, fields[i] ?? '']));
      if (kind === 'task') tasks.push(parseTask(row));
      else cpus.push(parseCpu(row));
    }
  }
  return new Truth(
    Number(generation),
    /** @type {TruthMode} */ (mode),
    parseFacts(facts),
    offsets,
    tasks,
    cpus,
  );
}

/** @param {Map<string, string>} row @returns {(name: string) => string} */
const reader = (row) => (name) => {
  const value = row.get(name);
  if (value === undefined) throw new Error(`the oracle told no ${name}`);
  return value;
};

/** @param {string} digits */
const hex = (digits) => BigInt(`0x${digits}`);

/** @param {Map<string, string>} row @returns {TruthTask} */
function parseTask(row) {
  const at = reader(row);
  const commBytes = Buffer.from(at('comm'), 'hex');
  const zero = commBytes.indexOf(0);
  return {
    kind: /** @type {TruthTask['kind']} */ (at('kind')),
    pid: Number(at('pid')),
    tgid: Number(at('tgid')),
    ppid: Number(at('ppid')),
    comm: zero < 0 ? commBytes : commBytes.subarray(0, zero),
    commBytes,
    flags: Number.parseInt(at('flags'), 16),
    state: hex(at('state')),
    exitState: Number.parseInt(at('exit_state'), 16),
    task: hex(at('task')),
    mm: hex(at('mm')),
    activeMm: hex(at('active_mm')),
    pgd: hex(at('pgd')),
    cr3: hex(at('cr3')),
    pseudo: hex(at('pseudo')),
    userCr3: hex(at('user_cr3')),
    findVpid: hex(at('findvpid')),
    uid: Number(at('uid')),
    startTime: BigInt(at('start_time')),
    startBoottime: BigInt(at('start_boottime')),
    onCpu: at('on_cpu') !== '0',
    cpu: Number(at('cpu')),
    level: Number(at('level')),
    pids: at('pids') === '-' ? [] : at('pids').split(',').map(Number),
  };
}

/** @param {Map<string, string>} row @returns {TruthCpu} */
function parseCpu(row) {
  const at = reader(row);
  return {
    cpu: Number(at('cpu')),
    task: hex(at('task')),
    pid: Number(at('pid')),
    loadedMm: hex(at('loaded_mm')),
    loadedPgd: hex(at('loaded_pgd')),
    cr3: hex(at('cr3')),
    cr4: hex(at('cr4')),
  };
}

/** @param {Map<string, string>} facts @returns {TruthFacts} */
function parseFacts(facts) {
  const at = reader(facts);
  return {
    release: at('release'),
    version: at('version'),
    stext: hex(at('stext')),
    physBase: hex(at('phys_base')),
    pageOffset: hex(at('page_offset')),
    initTopPgt: hex(at('init_top_pgt')),
    initTopPgtPhysical: hex(at('init_top_pgt_physical')),
    initTask: hex(at('init_task')),
    initPidNs: hex(at('init_pid_ns')),
    initMm: hex(at('init_mm')),
    levels: at('levels') === '5' ? 5 : 4,
    pv: at('pv') === '1',
    pti: at('pti') === '1',
    pcid: at('pcid') === '1',
    cpus: Number(at('cpus')),
    hz: Number(at('hz')),
    tscKhz: Number(at('tsc_khz')),
    bootTime: Number(at('boot_time')),
    uptimeNs: BigInt(at('uptime_ns')),
    teller: Number(at('teller')),
  };
}
