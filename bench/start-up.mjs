// @ts-check
/**
 * Measures whole processes beside a Node that does nothing: `npm run bench:start-up [-- --runs
 * 41]`. Programs take turns, so that no phase of the host falls on one of them alone; figures are
 * medians. Nothing here asserts.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { bootGuest } from '../test/lab/guest.mjs';
import { setUpProject } from '../test/setup.mjs';
import { conditions, here, log, median, ms, times } from './measure.mjs';

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '41' },
    suite: { type: 'string', default: 'bookworm' },
  },
});
const runs = Number(values.runs);
setUpProject(log);

const vmi = join(here, '../dist/bundle/cli/vmi.cjs');
const index = join(here, '../dist/bundle/index.js');
const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-start-up-'));
log('booting a guest, which stands still while it is measured');
const lab = await bootGuest({ suite: values.suite, memory: 256, cpus: 1, backend: 'file', log });
try {
  await lab.stop();
  const target = `qemu:${lab.pid}`;
  const empty = join(folder, 'empty.cjs');
  writeFileSync(empty, '');
  /** @type {Record<string, string[]>} */
  const programs = {
    'Node, an empty file': [empty],
    'vmi --help': [vmi, '--help'],
    "import 'node-libvmi'": ['--input-type=module', '-e', `import ${JSON.stringify(index)}`],
    'vmi cr3 qemu:PID 1': [vmi, 'cr3', target, '1'],
    'vmi ps qemu:PID': [vmi, 'ps', target],
    'vmi cr3 qemu:PID 1, first time on a host': [vmi, 'cr3', target, '1', '--no-cache'],
  };
  console.log(`\n${conditions()}`);
  console.log(`Linux ${lab.release}; whole processes, medians of ${runs} runs in turns`);
  measure(programs, process.env);
  // Node reads these before it does anything, which makes everything beside it look small.
  const { NODE_EXTRA_CA_CERTS, ...bare } = process.env;
  if (NODE_EXTRA_CA_CERTS !== undefined) {
    console.log('\nwithout the NODE_EXTRA_CA_CERTS of this host');
    measure(programs, bare);
  }
} finally {
  await lab.close();
  rmSync(folder, { recursive: true, force: true });
}

/** @param {Record<string, string[]>} programs @param {NodeJS.ProcessEnv} variables */
function measure(programs, variables) {
  const env = { ...variables, XDG_CACHE_HOME: folder };
  const names = Object.keys(programs);
  /** @param {string} name @returns {number} milliseconds */
  const once = (name) => {
    const args = programs[name] ?? [];
    const code = args.includes('--no-cache') ? { NODE_DISABLE_COMPILE_CACHE: '1' } : {};
    const start = performance.now();
    const { status, stderr } = spawnSync(process.execPath, args, { env: { ...env, ...code } });
    if (status !== 0) throw new Error(`${name} ended with ${status}: ${stderr}`);
    return performance.now() - start;
  };
  // The first runs fill the caches: the host's, what is kept of a kernel, and compiled code.
  for (let i = 0; i < 3; i++) for (const name of names) once(name);
  const rounds = Array.from({ length: runs }, () => names.map(once));
  for (const [i, name] of names.entries()) {
    const milliseconds = median(rounds.map((row) => row[i] ?? Number.NaN));
    const ratio = median(rounds.map((row) => (row[i] ?? Number.NaN) / (row[0] ?? Number.NaN)));
    console.log(`  ${name.padEnd(42)} ${ms(milliseconds).padStart(12)}  ${times(ratio)}`);
  }
}
