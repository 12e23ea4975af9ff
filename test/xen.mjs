// @ts-check
/**
 * Holds guests of a real Xen against the oracle inside them.
 *
 *   npm run --silent test:xen [-- --part tasks|events]… [--suite SUITE]… [--type pvh|pv]…
 *   [--endings REGEX]
 *     [--markdown FILE] [--keep]
 *
 * Boots Debian's Xen with a dom0 in QEMU, by emulation; in it a PVH and a PV guest; and runs `vmi`
 * in dom0. A guest agrees when every task and thread has, from outside, each fact that the kernel
 * module inside tells, and CR3 leads back to the same tasks. Then it listens to writes to CR3 and
 * ends that in every way there is: the guest must run afterwards, each time. Exits with 1 when one
 * does not, and with 0 and a reason where this host has no libvmi. Some 2 to 4 minutes a guest, and
 * 30 for the ends. `--part` chooses one of the two; `--markdown` is for one of them.
 */
import { copyFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { compareTasks, expectedCr3, expectedSharers } from './lab/compare.mjs';
import { run as runProgram } from './lab/run.mjs';
import { quoted, startDomain } from './lab/xen/domain.mjs';
import { eventsMarkdown, hasFailed, hearAll } from './lab/xen/events.mjs';
import { bootXen } from './lab/xen/machine.mjs';
import { setUpProject } from './setup.mjs';

const { values } = parseArgs({
  options: {
    suite: { type: 'string', multiple: true, default: ['bookworm'] },
    type: { type: 'string', multiple: true, default: ['pvh', 'pv'] },
    part: { type: 'string', multiple: true, default: ['tasks', 'events'] },
    endings: { type: 'string', default: '.' },
    markdown: { type: 'string' },
    keep: { type: 'boolean', default: false },
  },
});
const log = (/** @type {string} */ message) => console.error(`• ${message}`);

/** @typedef {import('../lib/tasks/task.ts').TaskJson} TaskJson */
/** @typedef {import('./lab/truth.mjs').Truth} Truth */
/** @typedef {import('./lab/xen/machine.mjs').XenMachine} XenMachine */
/**
 * @typedef {{ kernel: string, type: string, name: string, tasks: number, verdict: string,
 * milliseconds?: Record<string, number>, transcript: string[] }} Result
 */

const AGREES = 'agrees';
/** Names that a domain may have, and that a careless tool takes for something else. */
const NAMES = ['my vm', 'web:1', '10', "it's"];
/** Tasks of a transcript; the rest is left out. */
const SHOWN = 12;
const HEADINGS = [
  'type',
  'name',
  'kernel',
  'tasks',
  'attach',
  'again',
  'list',
  'threads',
  'look-up',
  'verdict',
];

setUpProject(log);
/** @type {XenMachine | undefined} */
let machine;
let failed = false;
try {
  machine = await bootXen({ log });
  log(`Xen ${machine.version}, dom0 ${machine.release}: ready in ${machine.bootSeconds} s`);
  if (machine.libvmi === undefined)
    console.log('skipped: this host has no libvmi to take into dom0');
  else {
    if (values.part.includes('tasks')) await compareAll(machine);
    if (values.part.includes('events')) await listenTo(machine);
  }
} catch (error) {
  failed = true;
  console.error(error);
} finally {
  const keep = machine !== undefined && (failed || values.keep);
  if (keep) log(`the logs are kept in ${machine?.directory}`);
  await machine?.close({ keep });
}
process.exitCode = failed ? 1 : 0;

/** @param {XenMachine} xen */
async function compareAll(xen) {
  copyFileSync(new URL('./lab/xen/probe.mjs', import.meta.url), join(xen.share, 'probe.mjs'));
  /** @type {Result[]} */
  const results = [];
  let next = 0;
  for (const suite of values.suite)
    for (const type of values.type) {
      const name = /** @type {string} */ (NAMES[next++ % NAMES.length]);
      const result = await compareOne(xen, suite, /** @type {'pv' | 'pvh'} */ (type), name);
      log(`${type} ${result.kernel} "${name}": ${result.verdict}`);
      results.push(result);
    }
  failed ||= results.some(({ verdict }) => verdict !== AGREES);
  console.log(table(results));
  if (values.markdown !== undefined) writeFileSync(values.markdown, await markdown(xen, results));
}

/** @param {XenMachine} xen */
async function listenTo(xen) {
  const rows = await hearAll(xen, { log, endings: new RegExp(values.endings) });
  failed ||= hasFailed(rows);
  for (const { cpus, what, verdict, said } of rows)
    console.log(`${cpus} vCPU  ${what.padEnd(46)}  ${verdict}  ${said}`.trimEnd());
  if (values.markdown === undefined) return;
  const setting = `Debian's Xen ${xen.version} with dom0 ${xen.release}, emulated by QEMU (AMD SVM with nested paging); PVH guests.`;
  writeFileSync(values.markdown, eventsMarkdown(rows, setting));
}

/**
 * @param {XenMachine} xen
 * @param {string} suite
 * @param {'pv' | 'pvh'} type
 * @param {string} name
 * @returns {Promise<Result>}
 */
async function compareOne(xen, suite, type, name) {
  /** @type {Result} */
  const result = { kernel: suite, type, name, tasks: 0, verdict: AGREES, transcript: [] };
  const domain = await startDomain(xen, { name, type, suite, log });
  try {
    log(`${type} ${domain.release} "${name}": ready in ${domain.bootSeconds} s`);
    result.kernel = domain.release;
    const limit = await domain.maxPages();
    await domain.halt();
    const told = await look(xen, name, result.transcript);
    const limitAfter = await domain.maxPages();
    const truth = await domain.truth();
    result.tasks = told.tasks.length;
    result.milliseconds = told.probe.milliseconds;
    const differences = compare(truth, told, type);
    // libvmi's Xen driver lifts it and does not put it back.
    if (!(limit > 0) || limit !== limitAfter)
      differences.push(`the domain may have ${limitAfter} pages, not ${limit} as before`);
    if (differences.length > 0)
      result.verdict = `${differences.length} differences: ${differences.slice(0, 5).join('; ')}`;
  } catch (error) {
    result.verdict = (error instanceof Error ? error.message : String(error)).replace(
      /\s*\n\s*/g,
      '; ',
    );
  } finally {
    await domain.destroy().catch(() => {});
  }
  return result;
}

/**
 * Everything that `vmi` says of a paused guest.
 *
 * @param {XenMachine} xen
 * @param {string} name
 * @param {string[]} transcript what was typed and printed
 */
async function look(xen, name, transcript) {
  const target = quoted(`xen:${name}`);
  const vmi = async (/** @type {string} */ args) =>
    (await xen.run(`vmi ${args}`, { seconds: 300 })).out;
  const lines = async (/** @type {string} */ args) =>
    (await vmi(`${args} --json`))
      .trimEnd()
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line));
  const show = async (/** @type {string} */ command) => {
    const { out, err } = await xen.run(command, { seconds: 300, check: false });
    const shown = `${err}${out}`.trimEnd().split('\n');
    const rest = shown.length > 2 * SHOWN ? [`… ${shown.length - SHOWN} more lines`] : [];
    transcript.push(
      `# ${command}`,
      ...shown.slice(0, rest.length > 0 ? SHOWN : undefined),
      ...rest,
    );
  };
  /** @type {TaskJson[]} */
  const tasks = await lines(`ps ${target} --threads`);
  const cr3s = [...new Set(tasks.flatMap(({ cr3 }) => cr3 ?? []))];
  const userCr3s = [...new Set(tasks.flatMap(({ userCr3 }) => userCr3 ?? []))];
  const pids = tasks.map(({ pid }) => pid);
  const told = {
    tasks,
    /** The same with libvmi in a process of its own. */
    isolated: /** @type {TaskJson[]} */ (await lines(`ps ${target} --threads --isolate`)),
    cr3: /** @type {TaskJson[]} */ (await lines(`cr3 ${target} ${pids.join(' ')}`)),
    who: /** @type {(TaskJson & { value: string })[]} */ (
      await lines(`who ${target} ${cr3s.join(' ')}`)
    ),
    userWho: /** @type {(TaskJson & { value: string })[]} */ (
      userCr3s.length === 0 ? [] : await lines(`who ${target} ${userCr3s.join(' ')}`)
    ),
    cpus: await lines(`cpus ${target}`),
    listed: await lines('list'),
    probe: JSON.parse((await xen.run(`node /lab/probe.mjs ${quoted(name)}`, { seconds: 300 })).out),
  };
  await show('vmi list');
  await show(`vmi info ${target}`);
  await show(`vmi ps ${target} --threads | grep -v none`);
  await show(`vmi cpus ${target}`);
  await show(`vmi cr3 ${target} 1`);
  await show(`vmi who ${target} ${tasks.find(({ pid }) => pid === 1)?.cr3}`);
  if (userCr3s.length > 0) {
    await show(`vmi who ${target} ${tasks.find(({ pid }) => pid === 1)?.userCr3}`);
    await show(`vmi translate ${target} --machine ${tasks.find(({ pid }) => pid === 1)?.cr3}`);
  }
  await show(`vmi translate ${target} init_task`);
  return told;
}

/**
 * @param {Truth} truth
 * @param {Awaited<ReturnType<typeof look>>} told
 * @param {'pv' | 'pvh'} type
 * @returns {string[]}
 */
function compare(truth, told, type) {
  const differences = compareTasks(truth, told.tasks).map(
    ({ pid, comm, fact, expected, actual }) =>
      `PID ${pid} ${comm}: ${fact} is ${expected}, not ${actual}`,
  );
  const expect = (
    /** @type {string} */ what,
    /** @type {unknown} */ expected,
    /** @type {unknown} */ actual,
  ) => {
    if (String(expected) !== String(actual))
      differences.push(`${what} is ${expected}, not ${actual}`);
  };
  const pv = type === 'pv';
  expect('PV', pv, truth.facts.pv);
  expect('addressing', pv ? 'machine' : 'guest-physical', told.probe.addressing);
  expect('tasks that a view lacks', 0, told.probe.cross);
  expect(
    'what an isolated libvmi tells',
    JSON.stringify(told.tasks),
    JSON.stringify(told.isolated),
  );
  for (const task of truth.tasks.filter(({ kind }) => kind === 'process' || kind === 'thread')) {
    const { cr3 } = expectedCr3(truth, task);
    const one = told.cr3.find(({ pid }) => pid === task.pid);
    expect(`cr3 ${task.pid}`, hex(cr3), one?.cr3);
    if (!pv || cr3 === null) continue;
    const source = truth.tasks.find((other) => other.cr3 === cr3);
    expect(
      `pseudo-physical address of PID ${task.pid}`,
      hex(source?.pseudo),
      told.probe.both[task.pid]?.pseudo,
    );
    expect(`machine address of PID ${task.pid}`, hex(cr3), told.probe.both[task.pid]?.machine);
  }
  const sharers = expectedSharers(truth);
  expect('CR3 values', sharers.size, new Set(told.who.map(({ value }) => value)).size);
  for (const [cr3, pids] of sharers) {
    const own = truth.tasks.find((task) => task.cr3 === cr3)?.userCr3;
    const named = (/** @type {typeof told.who} */ rows, /** @type {bigint | undefined} */ value) =>
      inOrder(rows.filter((row) => row.value === hex(value)).map(({ pid }) => pid));
    expect(`who ${hex(cr3)}`, inOrder(pids), named(told.who, cr3));
    if (pv && own) expect(`who ${hex(own)} (user)`, inOrder(pids), named(told.userWho, own));
  }
  expect('columns', told.tasks.map(({ cr3 }) => cr3 ?? '0x0').join(), told.probe.columns.join());
  for (const cpu of truth.cpus) {
    const one = told.cpus.find((row) => row.cpu === cpu.cpu);
    expect(`task of CPU ${cpu.cpu}`, hex(cpu.task), one?.task);
    expect(`cr3 of CPU ${cpu.cpu}`, hex(cpu.loadedPgd), one?.cr3);
    // What Xen holds for the vCPU, whose kernel runs the freeze.
    expect(`register of CPU ${cpu.cpu}`, hex(cpu.loadedPgd), told.probe.registers[cpu.cpu]?.cr3);
  }
  return differences;
}

/** @param {bigint | null | undefined} value */
function hex(value) {
  return value === null || value === undefined ? value : `0x${value.toString(16)}`;
}

/** @param {readonly number[]} pids */
function inOrder(pids) {
  return [...pids].sort((a, b) => a - b).join();
}

/** @param {readonly Result[]} results */
function cells(results) {
  return results.map(({ type, name, kernel, tasks, milliseconds: ms, verdict }) => {
    const time = (/** @type {string} */ what) =>
      ms?.[what] === undefined ? '–' : `${ms[what].toFixed(ms[what] < 100 ? 1 : 0)} ms`;
    return [
      type,
      name,
      kernel,
      String(tasks),
      ...['attach', 'attachAgain', 'list', 'listThreads', 'lookUp'].map(time),
      verdict,
    ];
  });
}

/** @param {readonly Result[]} results */
function table(results) {
  const rows = [HEADINGS, ...cells(results)];
  const widths = HEADINGS.map((_, at) => Math.max(...rows.map((row) => row[at]?.length ?? 0)));
  return rows
    .map((row) =>
      row
        .map((cell, at) => cell.padEnd(widths[at] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** @param {XenMachine} xen @param {readonly Result[]} results */
async function markdown(xen, results) {
  const qemu = /version (\S+)/.exec(await runProgram('qemu-system-x86_64', ['--version']))?.[1];
  const doctor = (await xen.run('vmi doctor')).out.trimEnd();
  const row = (/** @type {readonly string[]} */ words) =>
    `| ${words.map((word) => word.replaceAll('|', '\\|')).join(' | ')} |`;
  return `# Runs on Xen

Made by \`npm run --silent test:xen -- --part tasks --suite bookworm --suite trixie --suite sid --markdown docs/xen-runs.md\`; do not edit.

Debian's Xen ${xen.version} with dom0 ${xen.release}, emulated by QEMU ${qemu}; dom0 was ready after ${xen.bootSeconds} s. Times are those of
emulated processors: real ones take a small part of them. \`attach\` knows nothing of the kernel, \`again\` has it in its cache;
\`list\` is of processes, \`threads\` of all threads.

${row(HEADINGS)}
${row(HEADINGS.map(() => '---'))}
${cells(results).map(row).join('\n')}

A guest agrees when every task and thread has each fact that the kernel module inside the guest tells (CR3 and where it comes from, user
mode's CR3, mm, active_mm, PIDs in all namespaces, parent, name, user, start time), each CR3 leads back to the same tasks, each CPU
runs and has loaded what it says, Xen's own register of each vCPU is that value, in a PV guest machine and pseudo-physical
addresses lead to each other, and the domain may have as much memory after it was read as before.

What \`vmi doctor\` says in dom0:

\`\`\`
${doctor}
\`\`\`
${results.map(({ type, kernel, name, transcript }) => `\n## ${type.toUpperCase()}: "${name}", ${kernel}\n\n\`\`\`console\n${transcript.join('\n')}\n\`\`\`\n`).join('')}`;
}
