// @ts-check
/**
 * Makes the package that may be published, or says why there is none: `npm run release`. It is made
 * twice, each time from a clone of what is committed, and has to be the same; then it is installed
 * as a user would, with no network, no cache and no script, and has to run. `npm publish` of the
 * file it names is left to a person.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
/** Bytes that the package may have. */
const MAX_BYTES = 8 << 20;

const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-release-'));
try {
  const dirty = run('git', ['status', '--porcelain'], root).trim();
  if (dirty !== '') throw new Error(`commit first, or a clone would lack it:\n${dirty}`);
  const [first, second] = ['first', 'second'].map((name) => packClone(join(folder, name)));
  if (first === undefined || second === undefined || first.sha !== second.sha)
    throw new Error(`two clones gave two packages: ${first?.sha} and ${second?.sha}`);
  if (first.size > MAX_BYTES) throw new Error(`the package has ${first.size} bytes`);
  install(first.path);
  const kept = join(root, first.name);
  copyFileSync(first.path, kept);
  console.log(`${kept}\n${first.size} bytes, sha256 ${first.sha}`);
} catch (error) {
  console.error(`release: ${/** @type {Error} */ (error).message}`);
  process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}

/** A package, made from a clone. @param {string} clone */
function packClone(clone) {
  run('git', ['clone', '--quiet', root, clone], root);
  run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], clone);
  const packed = run(
    'npm',
    ['pack', '--json', '--loglevel=error', '--foreground-scripts=false'],
    clone,
  );
  // What the scripts print comes before it.
  const [{ filename, size }] = JSON.parse(packed.slice(packed.lastIndexOf('\n[')));
  const path = join(clone, filename);
  const sha = createHash('sha256').update(readFileSync(path)).digest('hex');
  return { name: filename, path, size, sha };
}

/** Installs it where nothing else is, and starts it. @param {string} path */
function install(path) {
  const project = join(folder, 'project');
  mkdirSync(project);
  writeFileSync(join(project, 'package.json'), '{ "name": "consumer", "private": true }\n');
  const alone = ['--offline', '--ignore-scripts', '--cache', join(folder, 'cache')];
  run('npm', ['install', path, ...alone, '--no-audit', '--no-fund'], project);
  const vmi = join(project, 'node_modules', '.bin', 'vmi');
  run(vmi, ['--version'], project);
  const doctor = spawnSync(vmi, ['doctor', '--json'], { cwd: project, encoding: 'utf8' });
  const addon = doctor.stdout.split('\n').find((line) => line.includes('"addon"')) ?? doctor.stderr;
  if (!/"ok"/.test(addon)) throw new Error(`the package does not run once installed: ${addon}`);
  const require = `typeof require('node-libvmi').attach === 'function' || process.exit(1)`;
  run(process.execPath, ['-e', require], project);
}

/** @param {string} command @param {string[]} args @param {string} cwd */
function run(command, args, cwd) {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (error !== undefined) throw error;
  if (status !== 0)
    throw new Error(`${command} ${args.join(' ')} ended with ${status}:\n${stdout}${stderr}`);
  return stdout;
}
