// @ts-check
/**
 * Measures the package beside a plain C walker over the same RAM, in one run: `npm run bench [--
 * --tasks 2000 --runs 41]`. Figures are medians; what matters are the ratios. Nothing here asserts.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { setUpProject } from '../test/setup.mjs';
import {
  attachMedian,
  buildWalker,
  conditions,
  here,
  listings,
  log,
  lookUpMedian,
  median,
  ms,
  ns,
  sideBySide,
  startWalker,
  TURN,
  time as timeOf,
  times,
  us,
} from './measure.mjs';

const { values } = parseArgs({
  options: {
    tasks: { type: 'string', default: '2000' },
    runs: { type: 'string', default: '41' },
    memory: { type: 'string', default: '512' },
    suite: { type: 'string', default: 'bookworm' },
  },
});
const runs = Number(values.runs);

setUpProject(log);
const { attach } = await import('node-libvmi');
const { bootGuest } = await import('../test/lab/guest.mjs');

/** @param {() => unknown} work @param {number} [count] @returns {number} median, milliseconds */
const time = (work, count = runs) => timeOf(work, count);
/** @param {string} name @param {string} value @param {string} [ratio] */
const row = (name, value, ratio = '') =>
  console.log(`  ${name.padEnd(61)} ${value.padStart(12)}  ${ratio}`);
/**
 * @param {Awaited<ReturnType<typeof bootGuest>>} lab
 * @param {import('node-libvmi').Guest} guest the same, attached
 * @returns medians in milliseconds, or why there are none
 */
function libvmiInC(lab, guest) {
  const program = join(folder, 'libvmi');
  const built = spawnSync('cc', ['-O2', '-o', program, join(here, 'libvmi.c'), '-lvmi'], {
    encoding: 'utf8',
  });
  if (built.status !== 0) return 'libvmi and its headers are not installed';
  const vmi = (/** @type {string[]} */ ...args) =>
    execFileSync(process.execPath, [join(here, '../dist/cli/main.js'), ...args], {
      encoding: 'utf8',
      maxBuffer: 1 << 28,
    });
  const target = `qemu:${lab.pid}`;
  const map = join(folder, 'System.map');
  writeFileSync(map, vmi('profile', target, '--format', 'system-map', '-q'));
  const name = lab.memoryPath ?? '';
  const entry = vmi(
    'profile',
    target,
    '--format',
    'libvmi-conf',
    '--sysmap',
    map,
    '--name',
    'bench',
    '-q',
  );
  // The string holds the entry's inside only.
  const config = entry.slice(entry.indexOf('{'));
  const { types } = guest.kernel;
  const { stdout, stderr, status } = spawnSync(
    program,
    [
      config,
      name,
      String(runs),
      String(guest.symbol('init_task') + BigInt(types.offset('task_struct', 'tasks'))),
      ...['tasks', 'pid', 'comm', 'mm'].map((member) =>
        String(types.offset('task_struct', member)),
      ),
      String(types.offset('mm_struct', 'pgd')),
      String(64 << 20),
    ],
    { encoding: 'utf8' },
  );
  if (status !== 0) return `libvmi cannot be initialised: ${stderr.trim()}`;
  // libvmi itself may have printed something before.
  const [lists = '', reads = ''] = stdout.slice(stdout.lastIndexOf('tasks ')).trim().split('\n\n');
  const [first = '', ...samples] = lists.split('\n');
  const count = Number(first.replace('tasks ', ''));
  return {
    count,
    list: median(samples.map(Number)) / 1e6,
    read: median(reads.split('\n').map(Number)) / 1e6,
  };
}

const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-bench-'));
/** @type {Awaited<ReturnType<typeof bootGuest>>[]} */
const labs = [];
try {
  const walker = buildWalker(folder);
  const options = {
    suite: values.suite,
    memory: Number(values.memory),
    cpus: 2,
    tasks: Number(values.tasks),
    busy: 0,
  };
  for (const backend of /** @type {const} */ (['file', 'anonymous'])) {
    log(`booting a guest with ${values.tasks} sleeping tasks, ${backend} RAM`);
    const lab = await bootGuest({ ...options, backend, log });
    labs.push(lab);
  }
  const [shared, anonymous] = labs;
  if (shared === undefined || anonymous === undefined) throw new Error('no guests');
  console.log(`\n${conditions()}`);
  console.log(
    `Linux ${shared.release}, ${values.memory} MiB; medians of ${runs} runs; of ${TURN} times as many, in turns, where lists are compared\n`,
  );

  console.log('attach to a running guest');
  for (const [name, lab] of /** @type {const} */ ([
    ['mapped RAM', shared],
    ['anonymous RAM', anonymous],
  ])) {
    for (const cache of [false, true]) {
      const each = await attachMedian(lab, cache);
      row(`${name}, no profile, ${cache ? 'from the cache' : 'cold'}`, ms(each));
    }
  }

  // A guest that runs steals the cores that are measured.
  await shared.stop();
  await anonymous.stop();
  const guest = await attach(`qemu:${shared.pid}`);
  const remote = await attach(`qemu:${anonymous.pid}`);
  const { pageOffset } = remote.kernel;
  const tasks = remote.tasks();
  // What the system call allows: nothing but one batch for the tasks, one for what they point to,
  // one for the tables.
  const batches = ['address', 'mm', 'pgd'].map((member) => {
    const addresses = tasks.map((task) => task[/** @type {'address' | 'mm' | 'pgd'} */ (member)]);
    return BigUint64Array.from(
      addresses.filter((address) => address !== null),
      (address) => address - pageOffset,
    );
  });
  const read = (/** @type {BigUint64Array[]} */ of) => (/** @type {number} */ warm) =>
    timeOf(() => of.map((addresses) => remote.memory.readMany(addresses, 8)), TURN, warm);
  const mapped = listings(guest);
  const unmapped = listings(remote);
  const plain = startWalker(folder, walker, shared, guest);
  const listed = sideBySide(
    {
      'plain C walker, mapped RAM': () => plain.median(TURN),
      [`mapped RAM, columns (${guest.taskColumns().count})`]: mapped.columns,
      'mapped RAM, Task objects': mapped.objects,
      'mapped RAM, Task objects and every CR3': mapped.answers,
      [`anonymous RAM, columns (${remote.taskColumns().count})`]: unmapped.columns,
      'anonymous RAM, Task objects': unmapped.objects,
      'anonymous RAM, Task objects and every CR3': unmapped.answers,
      'anonymous RAM, 8 bytes of every task': read(batches.slice(0, 1)),
      'anonymous RAM, 8 bytes of every task, mm and PGD': read(batches),
    },
    runs,
  );
  plain.close();
  console.log(`\nlist ${plain.count} processes with all facts`);
  for (const [name, { milliseconds, ratio }] of Object.entries(listed))
    row(name, ms(milliseconds), times(ratio));

  console.log('\nlook one PID up');
  for (const [name, from] of /** @type {const} */ ([
    ['mapped RAM', guest],
    ['anonymous RAM', remote],
  ])) {
    row(`${name}, pidToCr3(pid)`, us(lookUpMedian(from, runs)));
  }

  console.log('\nscan all RAM for 16 bytes at any address');
  for (const [name, from] of /** @type {const} */ ([
    ['mapped RAM', guest],
    ['anonymous RAM', remote],
  ])) {
    const pattern = Buffer.from('no such pattern!');
    const each = [];
    for (const threads of [1, 2]) {
      const samples = [];
      for (let i = 0; i < 9; i++) {
        const start = performance.now();
        await from.memory.scan(pattern, { threads });
        samples.push(performance.now() - start);
      }
      each.push(median(samples));
    }
    const [one = Number.NaN, two = Number.NaN] = each;
    row(`${name}, 1 thread`, ms(one), '1.00 x');
    row(`${name}, 2 threads`, ms(two), times(two / one));
  }

  console.log('\nread physical memory');
  for (const [name, from] of /** @type {const} */ ([
    ['mapped RAM', guest],
    ['anonymous RAM', remote],
  ])) {
    const { memory } = from;
    const page = new Uint8Array(4096);
    const big = new Uint8Array(64 << 20);
    const at = 64n << 20n;
    row(
      `${name}, 8 bytes`,
      ns(
        time(() => {
          for (let i = 0; i < 1000; i++) memory.readU64(at);
        }) / 1000,
      ),
    );
    row(
      `${name}, 4 KiB`,
      ns(
        time(() => {
          for (let i = 0; i < 1000; i++) memory.readInto(at, page);
        }) / 1000,
      ),
    );
    const copy = Uint8Array.from(big);
    const sequential = time(() => memory.readInto(at, big), 9);
    const plainCopy = time(() => copy.set(big), 9);
    row(
      `${name}, 64 MiB in sequence`,
      `${(64 / 1024 / (sequential / 1e3)).toFixed(1)} GiB/s`,
      `${(plainCopy / sequential).toFixed(2)} of a plain copy`,
    );
  }
  await remote.close();

  console.log("\nthrough libvmi's file driver, beside libvmi's own calls in C on the same RAM");
  const inC = libvmiInC(shared, guest);
  if (typeof inC === 'string') {
    console.log(`  skipped: ${inC}`);
  } else {
    row(`libvmi in C, all caches flushed (${inC.count})`, ms(inC.list), '1.00 x');
    row('libvmi in C, 8 bytes', ns(inC.read), '1.00 x');
    for (const map of [true, false]) {
      const libvmi = await attach({
        kind: 'libvmi',
        driver: 'file',
        name: shared.memoryPath ?? '',
        map,
      });
      const list = time(() => libvmi.tasks(), map ? runs : 9);
      const read = time(() => {
        for (let i = 0; i < 1000; i++) libvmi.memory.readU64(64n << 20n);
      });
      const how = map ? 'the file mapped' : 'every read through libvmi';
      row(`tasks(), ${how}`, ms(list), `${times(inC.list / list)} as fast`);
      row(`8 bytes, ${how}`, ns(read / 1000), times(read / 1000 / inC.read));
      await libvmi.close();
    }
  }
  await guest.close();
} finally {
  for (const lab of labs) await lab.close();
  rmSync(folder, { recursive: true, force: true });
}
