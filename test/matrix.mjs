// @ts-check
/**
 * Holds every cell of kernel × machine × source against the oracle.
 *
 *   npm run --silent test:matrix [-- --only TEXT]… [--jobs N] [--hide btf,kallsyms] [--write]
 *
 * A cell agrees when every task and thread of a real guest has, from outside, each fact that the
 * kernel module inside tells, through every source of the cell. Longer than `npm test`: two cores
 * take some 10 minutes. `--write` puts what a whole run found into docs/matrix.md and the README.
 * `--hide` overwrites the guest's types, its symbols, or first the one and then the other, once it
 * stands still; after each, all is compared again, and every offset that is inferred with what its
 * types said.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, freemem, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { HIDEABLE, hide } from './lab/hide.mjs';
import { AGREES, fullTable, withTable } from './lab/matrix-table.mjs';
import { run } from './lab/run.mjs';
import { setUpProject } from './setup.mjs';

const { values } = parseArgs({
  options: {
    only: { type: 'string', multiple: true, default: [''] },
    jobs: { type: 'string', default: '2' },
    hide: { type: 'string', default: '' },
    write: { type: 'boolean', default: false },
  },
});
const log = (/** @type {string} */ message) => console.error(`• ${message}`);
if (values.write && (values.only.join() !== '' || values.hide !== ''))
  throw new Error('Only a whole run is written: leave --only and --hide out');
const hideable = HIDEABLE.filter((what) => values.hide.split(',').includes(what));
if (hideable.join() !== values.hide.split(',').filter(Boolean).sort().join())
  throw new Error(`Only ${HIDEABLE.join(' and ')} can be hidden`);
setUpProject(log);
const { attach } = await import('node-libvmi');
const { bootGuest } = await import('./lab/guest.mjs');
const { compareTasks, expectedSharers } = await import('./lab/compare.mjs');
const { OTHER_MEMBERS, TASK_MEMBERS } = await import('../dist/kernel/layout/members.js');
const { takeHugePages } = await import('./lab/huge-pages.mjs');

/** @typedef {import('./lab/guest.mjs').GuestOptions} GuestOptions */
/** @typedef {import('./lab/guest.mjs').LabGuest} LabGuest */
/** @typedef {import('./lab/truth.mjs').Truth} Truth */
/**
 * @typedef {object} Cell
 * @property {string} name
 * @property {GuestOptions} options
 * @property {boolean} [core] an ELF core of the guest is a source too
 * @property {(lab: LabGuest) => Promise<void>} [prepare] what is done to the guest before it is
 *   looked at
 */
/**
 * @typedef {{ release: string, sources: string[], tasks: number, seconds: number, verdict: string
 * }} Result
 */

/** What lies between a namespace and the head of its tree. */
const IN_NAMESPACE = ['pid_namespace.idr', 'idr.idr_rt', 'xarray.xa_head'];
/**
 * How much longer attaching took with something hidden. @type {{ hidden: string, milliseconds:
 * number }[]}
 */
const more = [];
/** Memory that is left to the host, MiB. */
const RESERVE = 2048;

/** Suites in the order of their kernels: 5.10, 6.1, 6.12, 7.2, 7.3. */
const SUITES = /** @type {const} */ (['bullseye', 'bookworm', 'trixie', 'sid', 'experimental']);

/** @type {Cell[]} */
const cells = [];
for (const suite of SUITES) {
  const add = (/** @type {string} */ name, /** @type {GuestOptions} */ options, core = false) =>
    cells.push({
      name: `${suite}: ${name}`,
      options: { suite, flavour: 'cloud', ...options },
      core,
    });
  add('q35, anonymous RAM', {}, true);
  add('pc, shared file, 1 CPU', { machine: 'pc', backend: 'file', cpus: 1 });
  add('5 levels, memfd, 4 CPUs', { levels5: true, backend: 'memfd', cpus: 4 });
  add('page-table isolation', { append: 'pti=on' }, true);
  add('no KASLR, 256 MiB', { append: 'nokaslr', memory: 256 });
  add('q35, 4 GiB around the hole', { memory: 4096, backend: 'file' });
  add('no monitor, 3 GiB, pc', { memory: 3072, machine: 'pc', qmp: false });
  add('no monitor, 4 GiB, q35', { memory: 4096, machine: 'q35', qmp: false });
}
cells.push(
  { name: 'bookworm: generic', options: { suite: 'bookworm', flavour: 'generic' } },
  { name: 'bookworm: rt', options: { suite: 'bookworm', flavour: 'rt' } },
  { name: 'trixie: generic', options: { suite: 'trixie', flavour: 'generic' } },
  { name: 'trixie: rt', options: { suite: 'trixie', flavour: 'rt' } },
  { name: 'bookworm: PTI by CPU model', options: { suite: 'bookworm', cpu: 'Skylake-Client' } },
  {
    name: 'bookworm: two NUMA nodes',
    options: { suite: 'bookworm', numa: 2, memory: 1024 },
    core: true,
  },
  {
    name: 'trixie: two NUMA nodes, memfd, 4 GiB',
    options: { suite: 'trixie', numa: 2, memory: 4096, backend: 'memfd' },
  },
  { name: 'trixie: 8 GiB, pc', options: { suite: 'trixie', machine: 'pc', memory: 8192 } },
  {
    name: 'bookworm: no monitor, shared file, 5 levels',
    options: { suite: 'bookworm', qmp: false, memory: 4096, backend: 'file', levels5: true },
  },
  {
    name: 'bookworm: pc, 4 GiB shared file',
    options: { suite: 'bookworm', machine: 'pc', memory: 4096, backend: 'file' },
  },
  {
    name: 'trixie: q35, 3 GiB shared file',
    options: { suite: 'trixie', memory: 3072, backend: 'file' },
  },
  {
    name: 'trixie: no monitor, memfd, 3 GiB',
    options: { suite: 'trixie', qmp: false, memory: 3072, backend: 'memfd' },
  },
  {
    name: 'bookworm: huge pages, shared file',
    options: { suite: 'bookworm', flavour: 'cloud', backend: 'hugetlbfs' },
  },
  {
    name: 'trixie: huge pages, memfd, 4 GiB',
    options: { suite: 'trixie', flavour: 'cloud', backend: 'hugetlb', memory: 4096 },
  },
  {
    name: 'trixie: huge pages, private',
    options: { suite: 'trixie', flavour: 'cloud', backend: 'hugetlbfs-private' },
    core: true,
  },
  {
    name: 'bookworm: huge pages, private, no monitor, 3 GiB, pc',
    options: {
      suite: 'bookworm',
      flavour: 'cloud',
      backend: 'hugetlbfs-private',
      memory: 3072,
      machine: 'pc',
      qmp: false,
    },
  },
  {
    name: 'bookworm: two DIMMs plugged in',
    options: { suite: 'bookworm', flavour: 'generic', ...withSlots() },
    prepare: plugDimms,
    core: true,
  },
  {
    name: 'trixie: two DIMMs plugged in',
    options: { suite: 'trixie', flavour: 'generic', ...withSlots() },
    prepare: plugDimms,
  },
);
// QEMUs of other suites: 5.2, 10.0 and the newest.
for (const qemu of ['bullseye', 'trixie', 'sid']) {
  const add = (/** @type {string} */ name, /** @type {GuestOptions} */ options, core = false) =>
    cells.push({
      name: `bookworm in QEMU of ${qemu}: ${name}`,
      options: { suite: 'bookworm', flavour: 'cloud', qemu, ...options },
      core,
    });
  add('q35, anonymous RAM', {}, true);
  add('pc, shared file, two nodes', { machine: 'pc', backend: 'file', numa: 2 });
  add('no monitor, 3 GiB, q35', { memory: 3072, qmp: false });
}
const microvm = 'microvm,acpi=off,pit=on,pic=on,rtc=on';
for (const [name, options] of /** @type {[string, GuestOptions][]} */ ([
  ['microvm, memfd', { machine: microvm, backend: 'memfd', cpus: 1 }],
  ['microvm, no monitor, 3,300 MiB', { machine: microvm, memory: 3300, cpus: 1, qmp: false }],
  ['no monitor, two nodes', { numa: 2, qmp: false }],
  ['no monitor, split at 1 GiB', { machine: 'q35,max-ram-below-4g=1G', memory: 1600, qmp: false }],
  [
    'no monitor, split at 3 GiB',
    { machine: 'pc,max-ram-below-4g=3G', memory: 3200, qmp: false, backend: 'file' },
  ],
  [
    'no monitor, upper part at 1 TiB',
    {
      cpu: 'EPYC,phys-bits=42',
      memory: 3200,
      qmp: false,
      extraArgs: ['-m', 'slots=1,maxmem=1100G'],
    },
  ],
])) {
  cells.push({
    name: `bookworm: ${name}`,
    options: { suite: 'bookworm', flavour: 'cloud', ...options },
  });
}
for (const suite of /** @type {const} */ (['bullseye', 'bookworm', 'trixie', 'experimental'])) {
  cells.push({
    name: `${suite}: after two warm resets`,
    options: { suite, flavour: 'cloud', ...withReboot(), backend: 'file' },
    prepare: rebootTwice,
  });
}
cells.push({
  name: 'sid: after two warm resets, no monitor',
  options: { suite: 'sid', flavour: 'cloud', ...withReboot(), qmp: false },
  prepare: rebootTwice,
});

/**
 * A guest that can reboot, and a kernel that does not take the same pages at every boot: otherwise
 * it overwrites the VMCOREINFO of the one before, and only the rest of that stays in RAM.
 * @returns {GuestOptions}
 */
function withReboot() {
  return { append: 'page_alloc.shuffle=1', reboot: true };
}

/** @param {LabGuest} lab */
async function rebootTwice(lab) {
  await lab.reboot();
  await lab.reboot();
}

/**
 * @returns {GuestOptions} a machine that memory can be plugged into, and a kernel that uses it at
 * once
 */
function withSlots() {
  return { append: 'memhp_default_state=online', extraArgs: ['-m', 'slots=2,maxmem=4G'] };
}

/**
 * Plugs two DIMMs into the running guest and starts tasks, whose page tables then lie in them.
 * @param {LabGuest} lab
 */
async function plugDimms(lab) {
  const before = await guestMemory(lab);
  for (const node of [0, 1]) {
    const memory = `extra${node}`;
    await lab.qmp('object-add', { 'qom-type': 'memory-backend-ram', id: memory, size: 256 << 20 });
    await lab.qmp('device_add', { driver: 'pc-dimm', id: `dimm${node}`, memdev: memory });
  }
  const end = Date.now() + 60_000;
  while ((await guestMemory(lab)) < before + 500_000) {
    if (Date.now() > end) throw new Error('the guest does not use the DIMMs');
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  await lab.command('tasks 200');
  // DIMMs lie behind all other RAM, above 4 GiB. QEMU hw/i386/pc.c, pc_get_device_memory_range.
  const { tasks } = await lab.truth();
  if (!tasks.some(({ cr3 }) => cr3 >= 1n << 32n)) throw new Error('no page table lies in a DIMM');
}

/** @param {LabGuest} lab @returns {Promise<number>} KiB that the guest's kernel has */
async function guestMemory(lab) {
  return Number(/\d+/.exec(await lab.shell('grep MemTotal /proc/meminfo'))?.[0]);
}

const started = performance.now();
const chosen = cells.filter(({ name }) => values.only.some((text) => name.includes(text)));
/** @type {(Result | undefined)[]} */
const results = chosen.map(() => undefined);
await runAll();
const done = results.filter((result) => result !== undefined);
const ran = done.filter(({ verdict }) => !verdict.startsWith('skipped'));
const agreeing = ran.filter(({ verdict }) => verdict === AGREES);
console.log(plain());
if (values.write) await write();
process.exitCode = agreeing.length === ran.length ? 0 : 1;

/** Runs as many cells at a time as asked for and as fit into the host's memory. */
async function runAll() {
  const room = Math.floor(freemem() / 2 ** 20) - RESERVE;
  const waiting = chosen.map((cell, at) => ({ cell, at, memory: cell.options.memory ?? 512 }));
  for (const { cell, at, memory } of waiting.filter((one) => one.memory > room)) {
    const verdict = `skipped: needs ${memory} MiB, the host has ${room} MiB to spare`;
    results[at] = { release: '–', sources: [], tasks: 0, seconds: 0, verdict };
    log(`${cell.name}: ${verdict}`);
  }
  const fitting = waiting.filter((one) => one.memory <= room);
  /** @type {Map<number, Promise<void>>} */
  const running = new Map();
  let used = 0;
  while (fitting.length > 0 || running.size > 0) {
    const next =
      running.size < Number(values.jobs)
        ? fitting.findIndex((one) => used + one.memory <= room)
        : -1;
    if (next < 0) {
      await Promise.race(running.values());
      continue;
    }
    const [{ cell, at, memory }] = /** @type {[typeof fitting[0]]} */ (fitting.splice(next, 1));
    used += memory;
    const work = runCell(cell).then((result) => {
      results[at] = result;
      used -= memory;
      running.delete(at);
      log(`${cell.name}: ${result.verdict} (${result.release}, ${result.seconds} s)`);
    });
    running.set(at, work);
  }
}

/** @param {Cell} cell @returns {Promise<Result>} */
async function runCell(cell) {
  /** @type {Result} */
  const result = { release: '–', sources: [], tasks: 0, seconds: 0, verdict: AGREES };
  const start = performance.now();
  const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-matrix-'));
  const { backend, memory = 512 } = cell.options;
  const giveBack = backend?.startsWith('hugetlb') ? await takeHugePages(memory) : undefined;
  /** @type {LabGuest | undefined} */
  let lab;
  try {
    if (typeof giveBack === 'string') throw new Error(`skipped: ${giveBack}`);
    lab = await bootGuest({ ...cell.options, log });
    result.release = lab.release;
    await cell.prepare?.(lab);
    const truth = await lab.truth({ freeze: 'halt' });
    await lab.stop();
    result.tasks = truth.tasks.filter(({ kind }) => kind === 'process' || kind === 'thread').length;
    const known = hideable.length > 0 ? await knownOf(lab) : undefined;
    for (const what of hideable.length > 0 ? hideable : [undefined]) {
      if (known !== undefined && what !== undefined) await hideFrom(lab, what, known);
      for (const target of await targetsOf(cell, lab, folder)) {
        try {
          result.sources.push(await compare(target, truth, known));
        } catch (error) {
          const without = known === undefined ? '' : ` without ${known.hidden.join(' and ')}`;
          throw new Error(
            `${target}${without}: ${error instanceof Error ? error.message : error}`,
            {
              cause: error,
            },
          );
        }
      }
    }
  } catch (error) {
    result.verdict = (error instanceof Error ? error.message : String(error)).replace(
      /\s*\n\s*/g,
      '; ',
    );
  } finally {
    await lab?.close();
    if (typeof giveBack === 'function') await giveBack();
    rmSync(folder, { recursive: true, force: true });
  }
  result.seconds = Math.round((performance.now() - start) / 1000);
  return result;
}

/**
 * What a guest told before anything was hidden, and what is hidden by now.
 * @typedef {object} Known
 * @property {Map<string, number>} offsets where its types had the members
 * @property {string} banner
 * @property {number} milliseconds that attaching took
 * @property {import('./lab/hide.mjs').Hidden[]} hidden
 * @property {bigint} btf where its types are
 */

/** @param {LabGuest} lab @returns {Promise<Known>} */
async function knownOf(lab) {
  const start = performance.now();
  const guest = await attach(`qemu:${lab.pid}`, { cache: false });
  const milliseconds = performance.now() - start;
  try {
    const { banner, memory, symbols } = guest.kernel;
    const btf = memory.translate(symbols.address('__start_BTF'));
    return { offsets: offsetsOf(guest), banner, milliseconds, hidden: [], btf };
  } finally {
    await guest.close();
  }
}

/** @param {LabGuest} lab @param {import('./lab/hide.mjs').Hidden} what @param {Known} known */
async function hideFrom(lab, what, known) {
  const guest = await attach(`qemu:${lab.pid}`, { cache: false });
  try {
    await hide(guest, lab.pid, what, known.btf);
    known.hidden.push(what);
  } finally {
    await guest.close();
  }
}

/**
 * Members by which tasks are read, where a guest's types have them.
 * @param {import('node-libvmi').Guest} guest
 */
function offsetsOf(guest) {
  const { types } = guest.kernel;
  const offsets = new Map();
  let tree = 0;
  for (const name of [...TASK_MEMBERS, ...OTHER_MEMBERS]) {
    const [struct = '', member = ''] = name.split('.');
    const offset = types.findOffset(struct, member);
    if (offset === undefined) continue;
    // How far the head of the PID tree is from its namespace is known, not what lies between.
    if (IN_NAMESPACE.includes(name)) tree += offset;
    else offsets.set(name.replace('.__state', '.state'), offset);
  }
  return offsets.set('the tree of PIDs', tree);
}

/** Every way to this guest. @param {Cell} cell @param {LabGuest} lab @param {string} folder */
async function targetsOf(cell, lab, folder) {
  const targets = [`qemu:${lab.pid}`];
  if (lab.memoryPath !== undefined && cell.options.numa === undefined)
    targets.push(`image:${lab.memoryPath}`);
  if (cell.core) {
    const core = join(folder, 'core.elf');
    await lab.dumpElf(core);
    targets.push(`image:${core}`);
  }
  return targets;
}

/**
 * Holds everything that a target tells against the truth.
 *
 * @param {string} target
 * @param {Truth} truth
 * @param {Known} [known] what its types said before they were hidden
 * @returns {Promise<string>} the kind of target, and how the kernel was found
 * @throws {Error} the first difference
 */
async function compare(target, truth, known) {
  const start = performance.now();
  const guest = await attach(target, { cache: false });
  if (known !== undefined && target.startsWith('qemu'))
    more.push({
      hidden: known.hidden.join(' and '),
      milliseconds: performance.now() - start - known.milliseconds,
    });
  try {
    if (known !== undefined) compareOffsets(guest, known);
    const tasks = guest.tasks({ threads: true }).map((task) => task.toJSON());
    const [first, ...rest] = compareTasks(truth, tasks);
    if (first !== undefined) {
      const { pid, fact, expected, actual } = first;
      throw new Error(
        `PID ${pid}: ${fact} is ${expected}, not ${actual} (and ${rest.length} more)`,
      );
    }
    for (const task of tasks) {
      const cr3 = guest.pidToCr3(task.pid);
      if ((cr3 === null ? null : `0x${cr3.toString(16)}`) !== task.cr3)
        throw new Error(`PID ${task.pid}: looked up otherwise`);
    }
    for (const [cr3, pids] of expectedSharers(truth)) {
      const found = guest.cr3ToTasks(cr3).map(({ pid }) => pid);
      if (inOrder(found) !== inOrder(pids))
        throw new Error(
          `CR3 0x${cr3.toString(16)} is of ${inOrder(pids)}, not of ${inOrder(found)}`,
        );
    }
    const running = guest.cpus();
    if (running.length !== truth.cpus.length)
      throw new Error(`there are ${truth.cpus.length} CPUs, not ${running.length}`);
    for (const { cpu, task, cr3 } of running) {
      const told = truth.cpus.find((row) => row.cpu === cpu);
      if (told === undefined || told.task !== task.address || told.loadedPgd !== cr3)
        throw new Error(`CPU ${cpu} differs`);
    }
    if (guest.crossView().some((row) => row.missing.length > 0))
      throw new Error('the views disagree');
    return `${target.slice(0, target.indexOf(':'))} by ${guest.kernel.provenance.located}`;
  } finally {
    await guest.close();
  }
}

/** @param {import('node-libvmi').Guest} guest @param {Known} known */
function compareOffsets(guest, known) {
  const { symbols, types } = guest.kernel.provenance;
  const { hidden, banner } = known;
  if (guest.kernel.banner !== banner) throw new Error(`the banner is ${guest.kernel.banner}`);
  if (hidden.includes('btf') && types !== 'inferred') throw new Error(`types are from ${types}`);
  if (hidden.includes('kallsyms') && symbols !== 'contents')
    throw new Error(`symbols are from ${symbols}`);
  for (const [name, offset] of offsetsOf(guest)) {
    if (offset !== known.offsets.get(name))
      throw new Error(`${name} is inferred at ${offset}, not at ${known.offsets.get(name)}`);
  }
}

/** @param {readonly number[]} pids */
function inOrder(pids) {
  return [...pids].sort((a, b) => a - b).join();
}

function summary() {
  const skipped = done.length - ran.length;
  return (
    `${agreeing.length} of ${ran.length} cells agree with the oracle` +
    (skipped > 0 ? `; ${skipped} skipped` : '') +
    ` (${agreeing.reduce((sum, { tasks, sources }) => sum + tasks * sources.length, 0)} tasks compared, ` +
    `${Math.round((performance.now() - started) / 60_000)} minutes on ${cpus().length} cores)` +
    longer()
  );
}

function longer() {
  return [...new Set(more.map(({ hidden }) => hidden))]
    .map((what) => {
      const times = more.filter(({ hidden }) => hidden === what).map((one) => one.milliseconds);
      times.sort((a, b) => a - b);
      const middle = Math.round(times[times.length >> 1] ?? 0);
      return `; without ${what} attaching took ${middle} ms longer in the middle, ${Math.round(times.at(-1) ?? 0)} ms at most`;
    })
    .join('');
}

/** @returns {import('./lab/matrix-table.mjs').MatrixRow[]} */
function rows() {
  return done.map(({ release, sources, tasks, verdict }, at) => ({
    guest: chosen[at]?.name ?? '',
    kernel: release,
    sources: sources.join(', '),
    tasks,
    verdict,
  }));
}

function plain() {
  const lines = [
    ['guest', 'kernel', 'sources', 'tasks', 'verdict'],
    ...rows().map((row) => Object.values(row).map(String)),
  ];
  const widths =
    lines[0]?.map((_, at) => Math.max(...lines.map((line) => line[at]?.length ?? 0))) ?? [];
  const text = lines.map((line) =>
    line
      .map((cell, at) => cell.padEnd(widths[at] ?? 0))
      .join('  ')
      .trimEnd(),
  );
  return `${text.join('\n')}\n${summary()}`;
}

/** The results in docs/matrix.md and in the README. */
async function write() {
  const file = (/** @type {string} */ path) =>
    fileURLToPath(new URL(`../${path}`, import.meta.url));
  const qemu = /version (\S+)/.exec(String(await run('qemu-system-x86_64', ['--version'])))?.[1];
  const text = `# Guests that were compared

Made by \`npm run test:matrix -- --write\`; do not edit.

Each line is a real Debian guest in an unmodified QEMU ${qemu} (or in that of the Debian suite that is named), halted, and listed through every source named: \`qemu\` is the
running process, \`image\` its file of RAM or an ELF core. It agrees when all of this is what the kernel module inside the guest
tells: of every task and thread CR3 and where it comes from, mm, active_mm, PIDs in all namespaces, parent, name, user, start
time; the look-up of each PID; the tasks of each CR3; what each CPU runs and has loaded. How the kernel was found is behind
\`by\`.

${summary()}.

${fullTable(rows())}
`;
  writeFileSync(file('docs/matrix.md'), text);
  writeFileSync(file('README.md'), withTable(readFileSync(file('README.md'), 'utf8'), rows()));
}
