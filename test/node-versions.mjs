// @ts-check
/**
 * Runs the tests that need no guest on every supported major of Node, over the addon as it is
 * built.
 *
 *   npm run --silent test:node [-- --only MAJOR]…
 *
 * Node-API promises that one binary serves them all: it is not built again. Node itself comes from
 * the npm registry, where each platform has it as a package, into the lab's cache.
 */
import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { MAJORS, nodeOf } from './lab/node.mjs';
import { setUpProject } from './setup.mjs';

/** Of the project `fast`; `types` installs the package, which builds the addon. */
const FOLDERS = ['test/unit/', 'test/addon/', 'test/libvmi/'];

const { values } = parseArgs({
  options: { only: { type: 'string', multiple: true, default: MAJORS } },
});
const log = (/** @type {string} */ message) => console.error(`• ${message}`);
const root = fileURLToPath(new URL('..', import.meta.url));
setUpProject(log);

let tested = 0;
for (const major of values.only) {
  const node = await nodeOf(major, log);
  if (node === undefined) {
    console.log(`Node ${major}: skipped, the npm registry has none for ${process.arch}`);
    continue;
  }
  const { version } = node;
  const { passed, text } = await test(node.program);
  console.log(`Node ${version}: ${text}`);
  if (!passed) process.exitCode = 1;
  tested++;
}
if (tested === 0) process.exitCode = 1;

/**
 * Runs the tests on one Node; what they start finds it first.
 * @param {string} node path of the program
 */
async function test(node) {
  const folder = await mkdtemp(join(tmpdir(), 'node-libvmi-versions-'));
  const report = join(folder, 'report.json');
  const vitest = join(root, 'node_modules/vitest/vitest.mjs');
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile=${report}`];
  try {
    const start = performance.now();
    const { status, signal, stdout, stderr } = spawnSync(
      node,
      [vitest, 'run', '--project', 'fast', ...reporters, ...FOLDERS],
      {
        cwd: root,
        encoding: 'utf8',
        maxBuffer: 1 << 28,
        env: {
          ...process.env,
          NO_COLOR: '1',
          PATH: `${dirname(node)}${delimiter}${process.env.PATH}`,
        },
      },
    );
    const seconds = Math.round((performance.now() - start) / 1000);
    if (status !== 0) console.error(`${stdout}\n${stderr}`);
    const counts = await readFile(report, 'utf8').then(JSON.parse, () => undefined);
    if (counts === undefined)
      return { passed: false, text: `no test ran (${signal ?? `code ${status}`})` };
    const { numPassedTests, numFailedTests, numPendingTests } = counts;
    return {
      passed: status === 0 && numFailedTests === 0 && numPassedTests > 0,
      text:
        `${numPassedTests} passed, ${numFailedTests} failed, ${numPendingTests} skipped (${seconds} s)` +
        (status === 0 ? '' : `; ended with ${signal ?? `code ${status}`}`),
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
