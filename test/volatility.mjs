#!/usr/bin/env node
// @ts-check
/*
 * Volatility 3 on a dump of a real guest, once with the symbol file that `vmi profile --format isf`
 * wrote of the running guest, once with one that was made from the same kernel's DWARF: every
 * plugin is to give the same rows.
 *
 *   node test/volatility.mjs --volatility FOLDER --dwarf FILE [--suite bookworm] [--flavour cloud]
 *   [--python python3] [--keep]
 *
 * FOLDER holds Volatility's vol.py, FILE is what `dwarf2json linux --elf vmlinux` printed of the
 * guest's kernel. Neither is ever fetched. Without --dwarf each plugin is run with the guest's file
 * only.
 */
import { spawn } from 'node:child_process';
import { createWriteStream, existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { parseArgs } from 'node:util';
import { attach, writeProfile } from 'node-libvmi';
import { bootGuest } from './lab/guest.mjs';
import { sleepers } from './lab/sleepers.mjs';

/** Every plugin for Linux that needs no option, and no second dump. */
const PLUGINS = [
  'linux.bash.Bash',
  'linux.capabilities.Capabilities',
  'linux.check_afinfo.Check_afinfo',
  'linux.check_creds.Check_creds',
  'linux.check_idt.Check_idt',
  'linux.check_modules.Check_modules',
  'linux.check_syscall.Check_syscall',
  'linux.ebpf.EBPF',
  'linux.elfs.Elfs',
  'linux.envars.Envars',
  'linux.iomem.IOMem',
  'linux.keyboard_notifiers.Keyboard_notifiers',
  'linux.kmsg.Kmsg',
  'linux.library_list.LibraryList',
  'linux.lsmod.Lsmod',
  'linux.lsof.Lsof',
  'linux.malfind.Malfind',
  'linux.mountinfo.MountInfo',
  'linux.netfilter.Netfilter',
  'linux.pagecache.Files',
  'linux.pidhashtable.PIDHashTable',
  'linux.proc.Maps',
  'linux.psaux.PsAux',
  'linux.pslist.PsList',
  'linux.psscan.PsScan',
  'linux.pstree.PsTree',
  'linux.ptrace.Ptrace',
  'linux.sockstat.Sockstat',
  'linux.tty_check.tty_check',
];

const { values } = parseArgs({
  options: {
    volatility: { type: 'string' },
    dwarf: { type: 'string' },
    suite: { type: 'string', default: 'bookworm' },
    flavour: { type: 'string', default: 'cloud' },
    python: { type: 'string', default: 'python3' },
    keep: { type: 'boolean', default: false },
  },
});
const program = values.volatility && join(values.volatility, 'vol.py');
if (program === undefined || !existsSync(program)) {
  console.log('skipped: no Volatility 3 here (--volatility FOLDER, the one with its vol.py)');
  process.exit(0);
}
if (values.dwarf !== undefined && !existsSync(values.dwarf)) {
  console.log(`skipped: there is no ${values.dwarf} (made by dwarf2json from the kernel's DWARF)`);
  process.exit(0);
}

/**
 * @typedef {{ rows: string[], error: string | undefined }} Answer
 * @param {string} symbols folder of symbol files @param {string} dump @param {string} plugin
 * @returns {Promise<Answer>}
 */
async function ask(symbols, dump, plugin) {
  // What the first one found of the dump spares the others the search.
  const config = join(symbols, 'config.json');
  const where = existsSync(config) ? ['-c', config] : ['-f', dump, '--save-config', config];
  const options = ['-q', '-s', symbols, ...where, '-r', 'csv', plugin];
  const child = spawn(values.python, [/** @type {string} */ (program), ...options], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, XDG_CACHE_HOME: join(symbols, 'cache') },
  });
  let text = '';
  let errors = '';
  child.stdout.setEncoding('utf8').on('data', (piece) => {
    text += piece;
  });
  child.stderr.setEncoding('utf8').on('data', (piece) => {
    errors += piece;
  });
  const status = await new Promise((resolve) => child.once('close', resolve));
  // A line for each row, below the framework's own name and the names of the columns.
  const rows = text
    .split('\n')
    .filter((line) => line.includes(','))
    .slice(1);
  const why =
    /Volatility(?:Exception: | encountered )?(.*)/.exec(errors)?.[0] ?? errors.slice(-200);
  // A plugin that fails in the middle ends with code 0 at times.
  const failed = status !== 0 || /unexpected situation|Traceback/.test(errors + text);
  return { rows, error: failed ? why.trim() || `exit code ${status}` : undefined };
}

/** @param {Answer} ours @param {Answer | undefined} theirs */
function verdict(ours, theirs) {
  if (theirs === undefined)
    return ours.error === undefined ? 'not compared' : `DIFFERENT: ${ours.error}`;
  if (ours.error !== undefined)
    return theirs.error !== undefined ? 'fails with both' : `DIFFERENT: ours fails: ${ours.error}`;
  if (theirs.error !== undefined) return "fails with DWARF's, not with the guest's";
  if (ours.rows.join('\n') === theirs.rows.join('\n')) return 'the same';
  return `DIFFERENT: ${theirs.rows.length} rows with DWARF's`;
}

const { suite, flavour } = values;
const folder = await mkdtemp(join(tmpdir(), 'node-libvmi-volatility-'));
const dump = join(folder, 'guest.elf');
const live = join(folder, 'live');
const dwarf = join(folder, 'dwarf');
let differing = 0;
try {
  const programs = await sleepers();
  const lab = await bootGuest({
    suite,
    flavour: /** @type {'cloud'} */ (flavour),
    memory: 256,
    cpus: 2,
    tasks: 5,
    files: programs.files,
  });
  await lab.shell(programs.start);
  await lab.shell('ifconfig lo up; nc -l -p 4444 </dev/null >/dev/null 2>&1 & sleep 1');
  await lab.stop();
  await lab.dumpElf(dump);
  await mkdir(join(live, 'linux'), { recursive: true });
  await mkdir(join(dwarf, 'linux'), { recursive: true });
  const guest = await attach(`qemu:${lab.pid}`);
  const file = createWriteStream(join(live, 'linux', 'guest.json'));
  await writeProfile(guest, 'isf', file);
  file.end();
  await finished(file);
  await guest.close();
  await lab.close();
  if (values.dwarf !== undefined) await copyFile(values.dwarf, join(dwarf, 'linux', 'dwarf.json'));
  console.log(`| plugin of Volatility 3 on Linux ${lab.release} | rows | |\n|---|---|---|`);
  for (const plugin of PLUGINS) {
    const ours = await ask(live, dump, plugin);
    const theirs = values.dwarf === undefined ? undefined : await ask(dwarf, dump, plugin);
    const same = verdict(ours, theirs);
    if (same.startsWith('DIFFERENT')) differing++;
    console.log(`| ${plugin} | ${ours.rows.length} | ${same} |`);
  }
} finally {
  if (values.keep) console.log(`kept in ${folder}`);
  else await rm(folder, { recursive: true, force: true });
}
process.exitCode = differing === 0 ? 0 : 1;
