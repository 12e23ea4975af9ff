// @ts-check
/**
 * A domain's writes to CR3, held against the kernel module inside it, and every end of a listener.
 */
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { quoted, startDomain } from './domain.mjs';
import { ENDINGS, endOne } from './endings.mjs';

/** @typedef {{ value: string, count: number, tasks: (number | 'kernel' | null)[] }} HeardValue */
/**
 * @typedef {{ writes: number, breaks: number, same: number, nameless: number, dropped: number,
 * values: HeardValue[] }} Heard
 */
/** @typedef {{ cpus: number, what: string, verdict: string, seconds: number, said: string }} Row */

/** Seconds of listening, and of a blocked event loop. */
const LISTEN = 5;
const BLOCKED = 4;
/** A queue that is too small for what comes while the event loop is blocked. */
const SMALL = 16;

/** What a listener says that this host was too slow for, before it came to its end. */
const SLOW = /VMI_BUSY.*vmi_read_pa of libvmi has not returned/;

/** Keeps every vCPU switching between processes that stay. @param {number} cpus */
const spinners = (cpus) =>
  `shell for i in ${Array.from({ length: 2 * cpus }, (_, i) => i).join(' ')}; do sh -c 'while :; do :; done' & done`;

/**
 * Listens to a guest of 1 vCPU and to one of 2, and ends listening in every way there is, with
 * each.
 *
 * @param {import('./machine.mjs').XenMachine} machine
 * @param {{ log: import('../run.mjs').Log, endings: RegExp }} options
 * @returns {Promise<Row[]>}
 */
export async function hearAll(machine, { log, endings }) {
  for (const name of ['listen.mjs', 'report.mjs'])
    copyFileSync(new URL(name, import.meta.url), join(machine.share, name));
  /** @type {Row[]} */
  const rows = [];
  const add = (/** @type {Row} */ row) => {
    log(`${row.cpus} vCPU: ${row.what}: ${row.verdict}`);
    rows.push(row);
  };
  for (const cpus of [1, 2]) {
    let domain = await hearable(machine, cpus, log);
    add(await timed(cpus, `${LISTEN} s of writes`, () => hear(domain)));
    add(await timed(cpus, `a queue of ${SMALL}`, () => overflow(domain)));
    add(await timed(cpus, `${LISTEN} s of watchSwitches`, () => report(domain)));
    let gone = false;
    for (const ending of ENDINGS.filter(({ name }) => endings.test(name))) {
      let { verdict, said, seconds } = await endOne(domain, ending);
      if (said.some((line) => SLOW.test(line))) {
        log(`${ending.name}: once more, since a read of the guest took longer than 5 s`);
        ({ verdict, said, seconds } = await endOne(domain, ending));
      }
      add({ cpus, what: ending.name, verdict, seconds, said: sentence(said) });
      gone = verdict === 'gone';
      // One that was frozen or lost is no base for the next.
      if (verdict !== 'runs' && !gone) {
        await domain.destroy().catch(() => {});
        domain = await hearable(machine, cpus, log);
      }
    }
    if (!gone) await domain.destroy();
  }
  return rows;
}

/**
 * @param {import('./machine.mjs').XenMachine} machine
 * @param {number} cpus
 * @param {import('../run.mjs').Log} log
 */
async function hearable(machine, cpus, log) {
  // A console's log outlives its domain: each has a name of its own.
  const name = `heard ${cpus} ${Date.now()}`;
  const domain = await startDomain(machine, { name, type: 'pvh', cpus, log });
  const order = spinners(cpus);
  const from = (await domain.said()).length;
  await domain.send(order);
  await domain.hear(/^DONE shell/m, 60, from);
  return domain;
}

/**
 * @param {number} cpus
 * @param {string} what
 * @param {() => Promise<{ verdict: string, said: string }>} work
 * @returns {Promise<Row>}
 */
async function timed(cpus, what, work) {
  const start = performance.now();
  const { verdict, said } = await work().catch((error) => ({ verdict: error.message, said: '' }));
  return { cpus, what, verdict, said, seconds: (performance.now() - start) / 1000 };
}

/**
 * @param {import('./domain.mjs').XenDomain} domain
 * @param {string} args
 * @returns {Promise<{ heard: Heard, out: string }>}
 */
async function listen(domain, args) {
  const { out } = await domain.machine.run(`node /lab/listen.mjs ${quoted(domain.name)} ${args}`, {
    seconds: 180,
  });
  const line = out.split('\n').find((one) => one.includes('"ended"')) ?? '{}';
  return { heard: JSON.parse(line), out };
}

/**
 * Every value belongs to a task that the kernel module tells, with that CR3.
 * @param {import('./domain.mjs').XenDomain} domain
 */
async function hear(domain) {
  const { heard } = await listen(domain, `break ${LISTEN}`);
  const wrong = await whose(domain, heard);
  const said = `${heard.writes} writes of ${heard.values.length} values, each of its task; previous is always the last`;
  return { verdict: wrong.slice(0, 5).join('; ') || 'agrees', said };
}

/**
 * The same through `watchSwitches({ by: 'reported' })`.
 * @param {import('./domain.mjs').XenDomain} domain
 */
async function report(domain) {
  const { out } = await domain.machine.run(
    `node /lab/report.mjs ${quoted(domain.name)} ${LISTEN}`,
    { seconds: 180 },
  );
  const heard = JSON.parse(out);
  const wrong = await whose(domain, heard);
  if (!(await domain.answers())) wrong.push('FROZEN');
  const said = `${heard.writes} switches of address spaces, each of its task; previous is always the last, none is missed`;
  return { verdict: wrong.slice(0, 5).join('; ') || 'agrees', said };
}

/**
 * What is wrong: every value belongs to a task that the kernel module tells, with that CR3.
 *
 * @param {import('./domain.mjs').XenDomain} domain
 * @param {Heard} heard
 */
async function whose(domain, heard) {
  await domain.halt();
  const truth = await domain.truth();
  /** @type {string[]} */
  const wrong = [];
  if (!(heard.writes > 1)) wrong.push(`${heard.writes} writes`);
  for (const what of /** @type {const} */ (['breaks', 'same', 'nameless', 'dropped']))
    if (heard[what] !== 0) wrong.push(`${what}: ${heard[what]}`);
  for (const { value, tasks } of heard.values)
    for (const pid of tasks) {
      const expected =
        pid === 'kernel'
          ? truth.facts.initTopPgtPhysical
          : truth.tasks.find((task) => task.pid === pid && task.kind === 'process')?.cr3;
      if (expected !== BigInt(value)) wrong.push(`${value} is not ${pid}'s, which is ${expected}`);
    }
  return wrong;
}

/**
 * What is lost is counted, while nobody reads too.
 * @param {import('./domain.mjs').XenDomain} domain
 */
async function overflow(domain) {
  const { heard, out } = await listen(domain, `spin ${BLOCKED} ${SMALL}`);
  const spun = Number(/"spun","dropped":(\d+)/.exec(out)?.[1]);
  const wrong = [];
  if (!(spun > 0)) wrong.push(`${spun} dropped while the event loop was blocked`);
  if (!(heard.dropped >= spun)) wrong.push(`${heard.dropped} dropped in all`);
  if (heard.breaks === 0) wrong.push('no gap where writes were dropped');
  if (!(await domain.answers())) wrong.push('FROZEN');
  const said = `${heard.writes} writes read, ${heard.dropped} dropped, ${spun} of them as the event loop came back`;
  return { verdict: wrong.join('; ') || 'agrees', said };
}

/** What the listener's own error says, in a line. @param {readonly string[]} said */
function sentence(said) {
  const ended = said.find((line) => line.includes('"ended"')) ?? '';
  const [, code] = /"code":"(\w+)"/.exec(ended) ?? [];
  const [, text = ''] = /"message":"([^"]*)/.exec(ended) ?? [];
  // Whose error it is, the row says.
  const message = text.replace(/^xen:heard \d \d+: /, '');
  const exit = said.find((line) => line.startsWith('code '));
  return code === undefined ? message || `exit ${exit}` : `${code}: ${message}`;
}

/** @param {readonly Row[]} rows */
export const hasFailed = (rows) =>
  rows.some(({ verdict }) => !['agrees', 'runs', 'gone'].includes(verdict));

/** @param {readonly Row[]} rows @param {string} setting */
export function eventsMarkdown(rows, setting) {
  const cell = (/** @type {string | number} */ word) =>
    String(word).replaceAll('|', '\\|').replaceAll('\n', ' ');
  const line = (/** @type {readonly (string | number)[]} */ words) =>
    `| ${words.map(cell).join(' | ')} |`;
  return `# Writes to CR3 on Xen, in a run

Made by \`npm run --silent test:xen -- --part events --markdown docs/xen-events.md\`; do not edit.

${setting}

- \`agrees\`: every value was named, and the kernel module inside the guest tells the same CR3 of that
  task; \`previous\` is the value before on that vCPU; nothing was dropped, or what was is counted.
- \`runs\`: after that end the domain has no events on, no process of this project is left, and a
  program inside the guest answers on its console.
- \`gone\`: the domain has ended, and nothing keeps it.

A frozen guest would say FROZEN. ${rows.filter(({ verdict }) => verdict.includes('FROZEN')).length} of ${rows.length} do.

${line(['vCPUs', 'what', 'guest', 'seconds', 'what the listener says'])}
${line(['---', '---', '---', '---', '---'])}
${rows.map(({ cpus, what, verdict, seconds, said }) => line([cpus, what, verdict, seconds.toFixed(0), said])).join('\n')}
`;
}
