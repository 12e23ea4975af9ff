// @ts-check
/**
 * Builds the native half through cmake-js under sanitizers and runs it.
 *
 *   npm run --silent test:sanitize [-- --only address|thread|fuzz]… [--seconds 15] [--keep]
 *
 * - `address`: test/native and the addon under AddressSanitizer and UndefinedBehaviorSanitizer; the
 *   tests are run.
 * - `thread`: test/native under ThreadSanitizer.
 * - `fuzz`: every libFuzzer target for `--seconds`, from the seeds in test/fuzz/seeds; needs clang.
 *   `--keep` replaces the seeds by the smallest set that reaches what was reached.
 *
 * What the machine lacks is skipped with a reason.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { which } from './lab/run.mjs';
import { setUpProject } from './setup.mjs';

const { values } = parseArgs({
  options: {
    only: { type: 'string', multiple: true, default: ['address', 'thread', 'fuzz'] },
    seconds: { type: 'string', default: '15' },
    keep: { type: 'boolean', default: false },
  },
});
const root = fileURLToPath(new URL('..', import.meta.url));
const seeds = join(root, 'test/fuzz/seeds');
const seconds = Number(values.seconds);
if (!Number.isInteger(seconds) || seconds < 1)
  throw new RangeError(`Expected seconds as a whole number but received ${values.seconds}`);
const log = (/** @type {string} */ message) => console.error(`• ${message}`);
setUpProject(log);

if (!(await which('cmake'))) {
  console.log('sanitizers: skipped, there is no cmake (apt-get install cmake)');
} else {
  if (values.only.includes('address')) address();
  if (values.only.includes('thread')) thread();
  if (values.only.includes('fuzz')) await fuzz();
}

function address() {
  const folder = build('sanitize-address', ['VMI_TESTS=ON', 'VMI_SANITIZE=ON']);
  runTests('address and undefined behaviour', folder, []);
}

function thread() {
  const folder = build(
    'sanitize-thread',
    ['VMI_TESTS=ON', 'VMI_SANITIZE=thread'],
    ['--target', 'native_tests'],
  );
  // Its shadow memory needs a layout that a kernel with much randomisation does not always give.
  const starts = (/** @type {string[]} */ prefix) => {
    const [command = '', ...args] = [...prefix, join(folder, 'plan_test'), 'none of them'];
    return spawnSync(command, args).status === 0;
  };
  const prefix = [[], ['setarch', '-R']].find(starts);
  if (prefix === undefined) {
    console.log(
      'threads: skipped, ThreadSanitizer does not start on this kernel (vm.mmap_rnd_bits)',
    );
    return;
  }
  runTests('threads', folder, prefix);
}

async function fuzz() {
  if (!(await which('clang++'))) {
    console.log('fuzzers: skipped, there is no clang (apt-get install clang)');
    return;
  }
  const probe = spawnSync(
    'clang++',
    ['-fsanitize=fuzzer,address', '-x', 'c++', '-', '-o', '/dev/null'],
    {
      input:
        '#include <cstddef>\nextern "C" int LLVMFuzzerTestOneInput(const char*, size_t) { return 0; }',
    },
  );
  if (probe.status !== 0) {
    console.log(
      'fuzzers: skipped, clang has no libFuzzer here (apt-get install libclang-rt-<version>-dev)',
    );
    return;
  }
  const folder = build(
    'fuzz',
    ['VMI_FUZZ=ON'],
    ['--target', 'fuzzers', '--cc', 'clang', '--cxx', 'clang++'],
  );
  const targets = readdirSync(folder).filter((name) => /^fuzz_\w+$/.test(name));
  if (targets.length === 0) throw new Error(`no fuzzers in ${folder}`);
  for (const target of targets) fuzzOne(folder, target.slice('fuzz_'.length));
}

/** @param {string} folder where it was built @param {string} target its name */
function fuzzOne(folder, target) {
  const corpus = join(folder, `corpus-${target}`);
  mkdirSync(corpus, { recursive: true });
  const kept = join(seeds, `${target}.txt`);
  const lines = existsSync(kept) ? readFileSync(kept, 'utf8').split('\n').filter(Boolean) : [];
  for (const line of lines) write(corpus, Buffer.from(line, 'base64'));
  const program = join(folder, `fuzz_${target}`);
  const artifacts = `-artifact_prefix=${folder}/${target}-`;
  const { status, signal, stderr } = spawnSync(
    program,
    [`-max_total_time=${seconds}`, '-timeout=20', '-print_final_stats=1', artifacts, corpus],
    { encoding: 'utf8', maxBuffer: 1 << 28 },
  );
  const runs = /number_of_executed_units:\s*(\d+)/.exec(stderr)?.[1];
  if (status !== 0 || runs === undefined) {
    console.error(stderr.split('\n').slice(-80).join('\n'));
    console.log(
      `fuzz ${target}: FAILED (${signal ?? `code ${status}`}); its input is in ${folder}`,
    );
    process.exitCode = 1;
    return;
  }
  console.log(
    `fuzz ${target}: ${runs} inputs in ${seconds} s from ${lines.length} seeds, none failed`,
  );
  if (values.keep) keep(program, corpus, kept);
}

/**
 * Writes the inputs of a corpus that matter, one a line.
 * @param {string} program
 * @param {string} corpus
 * @param {string} kept
 */
function keep(program, corpus, kept) {
  const smallest = `${corpus}-smallest`;
  rmSync(smallest, { recursive: true, force: true });
  mkdirSync(smallest);
  const { status, stderr } = spawnSync(program, ['-merge=1', smallest, corpus], {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (status !== 0) throw new Error(stderr);
  const lines = readdirSync(smallest).map((name) =>
    readFileSync(join(smallest, name)).toString('base64'),
  );
  mkdirSync(seeds, { recursive: true });
  writeFileSync(kept, `${lines.sort().join('\n')}\n`);
  log(`${lines.length} seeds kept in ${kept}`);
}

/** libFuzzer names inputs by their digest. @param {string} corpus @param {Buffer} input */
function write(corpus, input) {
  writeFileSync(join(corpus, createHash('sha1').update(input).digest('hex')), input);
}

/**
 * Configures and builds what changed.
 *
 * @param {string} name of the folder in build/
 * @param {string[]} definitions for CMakeLists.txt
 * @param {string[]} [more] options of cmake-js
 * @returns {string} the folder
 */
function build(name, definitions, more = []) {
  const folder = join(root, 'build', name);
  log(`building ${name}`);
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [
      join(root, 'node_modules/cmake-js/bin/cmake-js'),
      'build',
      '--prefer-make',
      ...['--out', folder],
      ...['--parallel', String(availableParallelism())],
      ...definitions.map((definition) => `--CD${definition}`),
      ...more,
    ],
    { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28 },
  );
  if (status !== 0) throw new Error(`building ${name} failed:\n${stdout}\n${stderr}`);
  return folder;
}

/**
 * Runs the tests of a folder.
 * @param {string} what
 * @param {string} folder
 * @param {string[]} prefix of the command
 */
function runTests(what, folder, prefix) {
  const [command = '', ...args] = [...prefix, 'ctest', '--test-dir', folder, '--output-on-failure'];
  const start = performance.now();
  const { status, stdout, stderr } = spawnSync(command, args, {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    env: { ...process.env, UBSAN_OPTIONS: 'print_stacktrace=1', TSAN_OPTIONS: 'halt_on_error=1' },
  });
  const summary = /(\d+) tests failed out of (\d+)/.exec(stdout);
  const passed = status === 0 && summary !== null && Number(summary[2]) > 0;
  if (!passed) {
    console.error(`${stdout}\n${stderr}`);
    process.exitCode = 1;
  }
  const text =
    summary === null ? 'no test ran' : `${summary[2]} test programs, ${summary[1]} failed`;
  console.log(`${what}: ${text} (${Math.round((performance.now() - start) / 1000)} s)`);
}
