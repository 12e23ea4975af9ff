// @ts-check
/**
 * What there is to bend in a guest: where its lists, trees, page tables and descriptions of itself
 * lie in RAM.
 */

/** @typedef {import('../../lib/guest/guest.ts').Guest} Guest */

/**
 * A place in guest RAM that holds something the library reads.
 *
 * @typedef {object} Place
 * @property {string} what
 * @property {bigint} physical
 * @property {number} size bytes
 * @property {bigint} self virtual address of the place itself
 */

/** @typedef {{ start: bigint, end: bigint }} Range physical, end exclusive */
/**
 * @typedef {{ address: bigint, pid: number, reads: Range[] }} SurveyedTask `reads`: what its row
 * depends on
 */
/** @typedef {Awaited<ReturnType<typeof survey>>} Survey */

const TASK_MEMBERS = /** @type {const} */ ([
  ['pid', 4],
  ['tgid', 4],
  ['flags', 4],
  ['exit_state', 4],
  ['start_time', 8],
  ['mm', 8],
  ['active_mm', 8],
  ['real_parent', 8],
  ['signal', 8],
  ['real_cred', 8],
  ['thread_pid', 8],
]);

/**
 * @param {Guest} guest unbent
 * @param {string} path of its RAM, in one piece from address 0
 */
export async function survey(guest, path) {
  const { kernel, memory: physical } = guest;
  const { memory, types, symbols } = kernel;
  const offset = (/** @type {string} */ type, /** @type {string} */ member) =>
    BigInt(types.offset(type, member));
  /** @type {Map<string, Place[]>} */
  const places = new Map();
  /** @param {string} group @param {string} what @param {bigint} address @param {number} size */
  const add = (group, what, address, size) => {
    const list = places.get(group) ?? [];
    places.set(group, list);
    try {
      list.push({ what, physical: memory.translate(address), size, self: address });
    } catch {
      // Not there in this guest.
    }
  };
  /** @param {string} group @param {string} what @param {bigint} at @param {number} [size] */
  const addPhysical = (group, what, at, size = 8) => {
    const list = places.get(group) ?? [];
    places.set(group, list);
    list.push({ what, physical: at, size, self: kernel.pageOffset + at });
  };
  /** @param {string} group @param {string} what @param {bigint} address */
  const addList = (group, what, address) => {
    add(group, `${what}.next`, address, 8);
    add(group, `${what}.prev`, address + 8n, 8);
  };

  const all = guest.tasks({ threads: true });
  const idle = guest.cpus().map(({ task }) => task);
  const size = BigInt(types.size('task_struct'));
  const initTask = symbols.address('init_task');
  /** @type {SurveyedTask[]} */
  const tasks = [];
  /** @type {Map<string, bigint>} */
  const mms = new Map();
  const threadHeads = new Set();
  for (const task of all) {
    const { address } = task;
    const name = `task ${task.pid}`;
    addList(
      task.leader ? 'tasks' : 'stray',
      `${name} tasks`,
      address + offset('task_struct', 'tasks'),
    );
    addList('threads', `${name} thread_node`, address + offset('task_struct', 'thread_node'));
    addList('pids', `${name} pid_links`, address + offset('task_struct', 'pid_links'));
    for (const [member, bytes] of TASK_MEMBERS) {
      add(
        bytes === 8 && member !== 'start_time' ? 'pointers' : 'numbers',
        `${name} ${member}`,
        address + offset('task_struct', member),
        bytes,
      );
    }
    add('comm', `${name} comm`, address + offset('task_struct', 'comm'), 16);
    const read = (/** @type {string} */ member) =>
      memory.readU64(address + offset('task_struct', member));
    const [signal, pid, cred, parent] = ['signal', 'thread_pid', 'real_cred', 'real_parent'].map(
      read,
    );
    /** @type {Range[]} */
    const reads = [];
    const depends = (
      /** @type {bigint | null | undefined} */ start,
      /** @type {bigint} */ length,
    ) => {
      if (start === null || start === undefined || start === 0n) return;
      const at = memory.translate(start);
      reads.push({ start: at, end: at + length });
    };
    depends(address, size);
    depends(parent, size);
    depends(cred, 256n);
    depends(pid, 512n);
    depends(signal, 4096n);
    for (const mm of [task.mm, task.activeMm]) {
      depends(mm, 2048n);
      if (mm === null) continue;
      mms.set(`mm ${mm}`, mm);
      depends(memory.readU64(mm + offset('mm_struct', 'pgd')), 4096n);
    }
    // An exited leader's answer comes from its threads.
    for (const other of task.mm === null ? all : []) {
      if (other.tgid !== task.tgid) continue;
      depends(other.address, size);
      depends(other.mm, 2048n);
      if (other.mm !== null) depends(memory.readU64(other.mm + offset('mm_struct', 'pgd')), 4096n);
    }
    tasks.push({ address, pid: task.pid, reads });
    if (signal !== undefined && signal !== 0n && !threadHeads.has(signal)) {
      threadHeads.add(signal);
      addList(
        'threads',
        `signal of ${task.pid} thread_head`,
        signal + offset('signal_struct', 'thread_head'),
      );
    }
    if (pid !== undefined && pid !== 0n) {
      add('levels', `pid ${task.pid} level`, pid + offset('pid', 'level'), 4);
      add(
        'numbers',
        `pid ${task.pid} numbers[0].nr`,
        pid + offset('pid', 'numbers') + offset('upid', 'nr'),
        4,
      );
      add('pids', `pid ${task.pid} tasks[0].first`, pid + offset('pid', 'tasks'), 8);
    }
    if (cred !== undefined && cred !== 0n)
      add('numbers', `cred of ${task.pid} uid`, cred + offset('cred', 'uid'), 4);
  }
  addList('tasks', 'init_task tasks', initTask + offset('task_struct', 'tasks'));
  for (const [what, mm] of mms) add('pgds', `${what} pgd`, mm + offset('mm_struct', 'pgd'), 8);

  // The PID tree.
  const xaHead =
    symbols.address('init_pid_ns') +
    offset('pid_namespace', 'idr') +
    offset('idr', 'idr_rt') +
    offset('xarray', 'xa_head');
  add('tree', 'xa_head', xaHead, 8);
  const visit = (/** @type {bigint} */ entry, /** @type {number} */ depth) => {
    if ((entry & 3n) !== 2n || entry <= 4096n || depth > 10) return;
    const node = entry - 2n;
    add('shifts', `xa_node ${depth} shift`, node + offset('xa_node', 'shift'), 1);
    for (let slot = 0n; slot < 64n; slot++) {
      const at = node + offset('xa_node', 'slots') + 8n * slot;
      const child = memory.readU64(at);
      if (child !== 0n || slot < 4n) add('tree', `xa_node ${depth} slot ${slot}`, at, 8);
      visit(child, depth + 1);
    }
  };
  visit(memory.readU64(xaHead), 0);

  // Page tables: the entries that lead to what is read. This file runs on either build of the
  // class.
  const Space = /** @type {typeof import('../../lib/index.ts').VirtualMemory} */ (
    memory.constructor
  );
  const walk = (/** @type {bigint} */ root, /** @type {bigint} */ address) =>
    new Space(physical, root, kernel.levels).walk(address).steps;
  const seen = new Set();
  const addWalk = (
    /** @type {string} */ what,
    /** @type {bigint} */ root,
    /** @type {bigint} */ address,
  ) => {
    for (const { entryAddress, level } of walk(root, address)) {
      if (!seen.has(entryAddress)) addPhysical('tables', `${what} ${level} entry`, entryAddress);
      seen.add(entryAddress);
    }
  };
  for (const address of [
    initTask,
    symbols.address('_stext'),
    symbols.address('linux_banner'),
    kernel.pageOffset,
    kernel.pageOffset + physical.end - 4096n,
  ])
    addWalk('kernel', kernel.root, address);
  for (const { address } of tasks) addWalk('kernel', kernel.root, address);
  const roots = new Set(all.flatMap(({ cr3 }) => (cr3 === null ? [] : [cr3])));
  for (const root of roots) {
    addWalk(`process table ${root.toString(16)}`, root, symbols.address('_stext'));
    addWalk(`process table ${root.toString(16)}`, root, 0x40_0000n);
  }
  for (let slot = 0n; slot < 512n; slot += 37n)
    addPhysical('tables', `kernel root slot ${slot}`, kernel.root + 8n * slot);

  // What every CPU runs.
  const perCpu = symbols.find('__per_cpu_offset');
  if (perCpu !== undefined)
    for (const cpu of kernel.onlineCpus())
      add('globals', `__per_cpu_offset[${cpu}]`, perCpu + BigInt(8 * cpu), 8);
  for (const cpu of kernel.onlineCpus()) {
    const base = kernel.perCpuOffset(cpu);
    const hot = symbols.find('pcpu_hot');
    const current =
      hot === undefined ? symbols.find('current_task') : hot + offset('pcpu_hot', 'current_task');
    const at = (/** @type {bigint} */ address) => BigInt.asUintN(64, address + base);
    if (current !== undefined) add('globals', `current task of CPU ${cpu}`, at(current), 8);
    const tlb = symbols.find('cpu_tlbstate');
    if (tlb !== undefined)
      add('globals', `loaded_mm of CPU ${cpu}`, at(tlb + offset('tlb_state', 'loaded_mm')), 8);
  }
  for (const [name, bytes] of /** @type {const} */ ([
    ['nr_cpu_ids', 4],
    ['__cpu_online_mask', 8],
    ['page_offset_base', 8],
    ['init_mm', 8],
    ['tk_core', 8],
  ])) {
    const address = symbols.find(name);
    if (address !== undefined) add('globals', name, address, bytes);
  }
  for (const [member, bytes] of TASK_MEMBERS)
    add('globals', `init_task ${member}`, initTask + offset('task_struct', member), bytes);
  add('globals', 'init_task comm', initTask + offset('task_struct', 'comm'), 16);
  add('globals', 'init_mm pgd', symbols.address('init_mm') + offset('mm_struct', 'pgd'), 8);

  // How the kernel describes itself.
  /** @type {Range[]} */ const vmcoreinfo = [];
  for (const at of await physical.scan(Buffer.from('OSRELEASE='), { max: 64 }))
    vmcoreinfo.push({ start: at, end: at + 4096n });
  const image = kernel.image;
  const toPhysical = (/** @type {bigint} */ address) => address - image.virtual + image.physical;
  /** @type {Map<string, Range>} */ const tables = new Map();
  const kallsyms = await kallsymsOf(guest);
  if (kallsyms !== undefined) {
    const count = BigInt(kallsyms.count);
    const table = (
      /** @type {string} */ name,
      /** @type {bigint} */ at,
      /** @type {bigint} */ length,
    ) => tables.set(name, { start: toPhysical(at), end: toPhysical(at) + length });
    table('kallsyms names', kallsyms.names - 16n, 1n << 20n);
    table('kallsyms tokens', kallsyms.tokenTable, kallsyms.tokenIndex - kallsyms.tokenTable);
    table('kallsyms token index', kallsyms.tokenIndex, 512n);
    table('kallsyms offsets', kallsyms.offsets, count * 4n + 16n);
    table('kallsyms markers', kallsyms.tokenTable - (count / 256n) * 8n, (count / 256n) * 8n);
    if (kallsyms.seqs !== undefined) table('kallsyms seqs', kallsyms.seqs, count * 3n);
  }
  const btfStart = symbols.find('__start_BTF');
  const btfStop = symbols.find('__stop_BTF');
  if (btfStart !== undefined && btfStop !== undefined) {
    const header = memory.read(btfStart, 24);
    const typesAt = BigInt(header.readUInt32LE(4) + header.readUInt32LE(8));
    const stringsAt = BigInt(header.readUInt32LE(4) + header.readUInt32LE(16));
    const start = toPhysical(btfStart);
    tables.set('BTF header', { start, end: start + 24n });
    tables.set('BTF types', {
      start: start + typesAt,
      end: start + typesAt + BigInt(header.readUInt32LE(12)),
    });
    tables.set('BTF strings', {
      start: start + stringsAt,
      end: start + stringsAt + BigInt(header.readUInt32LE(20)),
    });
    btfPlaces(guest, btfStart, header, (what, address) => add('btf', what, address, 4));
  }
  const banner = toPhysical(symbols.address('linux_banner'));
  tables.set('banner', { start: banner, end: banner + 128n });

  return {
    path,
    places,
    tasks,
    vmcoreinfo,
    tables,
    roots: [...roots],
    root: kernel.root,
    pageOffset: kernel.pageOffset,
    end: physical.end,
    image: { start: image.physical, end: image.physical + image.length },
    pids: all.map(({ pid }) => pid),
    cr3s: [...roots],
    addresses: [...all.map(({ address }) => address), ...idle.map(({ address }) => address)],
    release: kernel.release,
  };
}

/**
 * @param {Guest} guest
 * @returns {Promise<import('../../lib/kernel/symbols/kallsyms-tables.ts').KallsymsTables |
 * undefined>}
 */
async function kallsymsOf(guest) {
  /** @typedef {import('../../lib/kernel/symbols/kallsyms-tables.ts').KallsymsTables} Tables */
  const symbols = /** @type {unknown} */ (guest.kernel.symbols);
  return /** @type {{ table?: { tables?: Tables } }} */ (symbols).table?.tables;
}

/** Structures whose members the library asks for. */
const ASKED = [
  'task_struct',
  'mm_struct',
  'signal_struct',
  'pid',
  'upid',
  'cred',
  'xa_node',
  'pid_namespace',
  'idr',
  'xarray',
  'list_head',
  'tlb_state',
  'pcpu_hot',
  'cpuinfo_x86',
];

/**
 * Every word of the types that the library asks for.
 *
 * @param {Guest} guest
 * @param {bigint} start
 * @param {Buffer} header
 * @param {(what: string, address: bigint) => void} add
 */
function btfPlaces(guest, start, header, add) {
  const { memory } = guest.kernel;
  const typesAt = header.readUInt32LE(4) + header.readUInt32LE(8);
  const types = memory.read(start + BigInt(typesAt), header.readUInt32LE(12));
  const strings = memory.read(
    start + BigInt(header.readUInt32LE(4) + header.readUInt32LE(16)),
    header.readUInt32LE(20),
  );
  const extra = [0, 4, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 4, 0, 0];
  const each = [0, 0, 0, 0, 12, 12, 8, 0, 0, 0, 0, 0, 0, 8, 0, 12, 0, 0, 0, 12];
  for (let at = 0; at + 12 <= types.length; ) {
    const info = types.readUInt32LE(at + 4);
    const kind = (info >>> 24) & 0x1f;
    const length = 12 + (extra[kind] ?? 0) + (each[kind] ?? 0) * (info & 0xffff);
    const nameAt = types.readUInt32LE(at);
    const name = strings.toString('latin1', nameAt, strings.indexOf(0, nameAt));
    if (kind === 4 && ASKED.includes(name)) {
      for (let word = at; word < at + length && word < at + 4096; word += 4)
        add(`BTF of ${name} +${word - at}`, start + BigInt(typesAt + word));
    }
    at += length;
  }
}
