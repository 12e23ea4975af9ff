// @ts-check
/** A machine with Xen on it, emulated: dom0 runs scripts, and starts guests. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import {
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { exists } from '../cache.mjs';
import { ensureHost } from '../host.mjs';
import { kernel } from '../kernel.mjs';
import { run, stderrLog } from '../run.mjs';
import { dom0Project, dom0System, hostLibvmi } from './dom0.mjs';
import { SUITE, xen } from './packages.mjs';

/** @typedef {{ code: number, out: string, err: string }} Outcome of a script in dom0 */

const PREFIX = 'node-libvmi-xen-';
/** MiB of the machine, and of dom0. */
const MEMORY = 4096;
const DOM0_MEMORY = 1536;
/** How long the folder of a machine that failed or was killed stays, in ms. */
const KEEP = 24 * 3600 * 1000;
/** Seconds from start to dom0 that a loaded host may take. */
const BOOT_SECONDS = 240;
/**
 * QEMU's software CPU less what Xen 4.17 and its guests trip over in it: PV guests die of SMAP,
 * guests and dom0's programs fault on RDTSCP, XSAVE and AVX, cmpxchg16b is wrong now and then, and
 * libvmi walks 4 levels only.
 */
const CPU = [
  'max',
  ...['la57', 'smap', 'rdtscp', 'xsave', 'avx', 'avx2', 'cx16'].map((name) => `${name}=off`),
].join(',');
/** dom0 has a CPU of its own: a guest that shares one with it starves under load on the console. */
const XEN_OPTIONS = `dom0_mem=${DOM0_MEMORY}M,max:${DOM0_MEMORY}M dom0_max_vcpus=1 dom0_vcpus_pin com1=115200,8n1 console=com1 noreboot`;
const KERNEL_OPTIONS =
  'console=hvc0 rdinit=/init quiet nowatchdog rcupdate.rcu_cpu_stall_suppress=1 panic=-1 random.trust_cpu=on';

/** @param {number} ms */
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** A running machine. Made by {@link bootXen}. */
export class XenMachine {
  #child;
  #count = 0;

  /**
   * @param {string} directory
   * @param {import('node:child_process').ChildProcess} child
   * @param {{ version: string, release: string, libvmi: string | undefined }} facts
   */
  constructor(directory, child, { version, release, libvmi }) {
    this.directory = directory;
    /** Folder that dom0 sees as /lab. */ this.share = join(directory, 'lab');
    /** Version of Debian's Xen. */ this.version = version;
    /** dom0's kernel. */ this.release = release;
    /** Path of libvmi, in dom0 as on this host; undefined when this host has none. */ this.libvmi =
      libvmi;
    /** Seconds from start to ready. */ this.bootSeconds = 0;
    this.#child = child;
  }

  get running() {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /**
   * Runs a shell script in dom0.
   *
   * @param {string} script
   * @param {{ seconds?: number, check?: boolean }} [options] check: a script that fails is an error
   *   (default)
   * @returns {Promise<Outcome>}
   */
  async run(script, { seconds = 120, check = true } = {}) {
    const name = String(++this.#count);
    await writeFile(join(this.share, `script-${name}`), script);
    await rename(join(this.share, `script-${name}`), join(this.share, 'in', name));
    await this.waitFor(
      join(this.share, 'out', `${name}.code`),
      seconds,
      `"${script.split('\n')[0]}"`,
    );
    const read = (/** @type {string} */ kind) =>
      readFile(join(this.share, 'out', `${name}.${kind}`), 'utf8');
    const outcome = {
      code: Number(await read('code')),
      out: await read('out'),
      err: await read('err'),
    };
    if (check && outcome.code !== 0)
      throw new Error(
        `in dom0 "${script}" ended with code ${outcome.code}:\n${outcome.out}${outcome.err}`.trimEnd(),
      );
    return outcome;
  }

  /** @param {string} path @param {number} seconds @param {string} what */
  async waitFor(path, seconds, what) {
    const end = Date.now() + seconds * 1000;
    while (!(await exists(path))) {
      if (!this.running)
        throw new Error(`QEMU ended before ${what} was done:\n${await this.tail()}`);
      if (Date.now() > end)
        throw new Error(`no end of ${what} in ${seconds} s:\n${await this.tail()}`);
      await sleep(50);
    }
  }

  /** What Xen and dom0's kernel said last. */
  async tail() {
    return (await readFile(join(this.directory, 'console'), 'utf8').catch(() => '')).slice(-2000);
  }

  /**
   * Ends the machine.
   * @param {{ keep?: boolean }} [options] keep: its folder stays, for a look at the logs
   */
  async close({ keep = false } = {}) {
    const ended = this.running ? once(this.#child, 'exit') : undefined;
    this.#child.ref();
    this.kill(keep);
    await ended;
  }

  /** The same without waiting. @param {boolean} [keep] */
  kill(keep = false) {
    if (!live.delete(this)) return;
    this.#child.kill('SIGKILL');
    if (keep) rmSync(join(this.directory, 'initrd'), { force: true });
    else rmSync(this.directory, { recursive: true, force: true });
  }
}

/** @type {Set<XenMachine>} */
const live = new Set();
process.on('exit', () => {
  for (const machine of live) machine.kill();
});

/** Removes what machines left behind. */
async function sweep() {
  for (const name of await readdir(tmpdir())) {
    const path = join(tmpdir(), name);
    if (!name.startsWith(PREFIX) || Date.now() - (await stat(path)).mtimeMs < KEEP) continue;
    await rm(path, { recursive: true, force: true });
  }
}

/**
 * Boots Xen with dom0 and waits until dom0 takes scripts. The machine dies with this process.
 *
 * @param {{ log?: import('../run.mjs').Log }} [options]
 * @returns {Promise<XenMachine>}
 */
export async function bootXen({ log = stderrLog } = {}) {
  await ensureHost({ log });
  const packages = await xen({ log });
  const image = await kernel({ suite: SUITE, flavour: 'generic', log });
  const libvmi = await hostLibvmi();
  await sweep();
  const system = await dom0System(packages, image, libvmi, log);
  const directory = await mkdtemp(join(tmpdir(), PREFIX));
  for (const folder of ['lab/in', 'lab/out', 'lab/console'])
    await mkdir(join(directory, folder), { recursive: true });
  await dom0Project(join(directory, 'project.cpio'));
  await run('sh', ['-c', 'cat "$0" "$1" > initrd && rm "$1"', system, 'project.cpio'], {
    cwd: directory,
  });
  // QEMU takes modules as `file options,file options`: names without a space or a comma, and commas
  // doubled.
  await symlink(packages.hypervisor, join(directory, 'xen'));
  await symlink(image.vmlinuz, join(directory, 'vmlinuz'));
  const errors = await open(join(directory, 'qemu'), 'w');
  const start = performance.now();
  const child = spawn(
    'setpriv',
    [
      '--pdeathsig=KILL',
      'qemu-system-x86_64',
      ...['-name', directory, '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
      ...['-machine', 'q35', '-accel', 'tcg', '-cpu', CPU, '-smp', '2', '-m', `${MEMORY}M`],
      ...['-kernel', 'xen', '-append', XEN_OPTIONS],
      ...['-initrd', `vmlinuz ${KERNEL_OPTIONS.replaceAll(',', ',,')},initrd`],
      ...['-chardev', 'file,id=console,path=console', '-serial', 'chardev:console'],
      ...['-virtfs', 'local,path=lab,mount_tag=lab,security_model=none,id=lab,multidevs=remap'],
    ],
    { cwd: directory, stdio: ['ignore', 'ignore', errors.fd] },
  );
  await Promise.all([errors.close(), once(child, 'spawn')]);
  child.unref();
  const machine = new XenMachine(directory, child, {
    version: packages.version,
    release: image.release,
    libvmi,
  });
  live.add(machine);
  try {
    await machine.waitFor(join(directory, 'lab/ready'), BOOT_SECONDS, 'the boot of dom0');
    machine.bootSeconds = Math.round(performance.now() - start) / 1000;
    return machine;
  } catch (error) {
    const said = (await readFile(join(directory, 'qemu'), 'utf8')).trim();
    await machine.close({ keep: true });
    throw new Error(`${/** @type {Error} */ (error).message}\n${said}\n(kept in ${directory})`);
  }
}
