// @ts-check
/** A real Linux guest, and the truth about it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import { mkdtemp, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { accelerator } from './accel.mjs';
import { exists } from './cache.mjs';
import { ensureHost } from './host.mjs';
import { crashFiles, initramfs } from './initramfs.mjs';
import { kernel } from './kernel.mjs';
import { startDomain } from './libvirt.mjs';
import { oracle } from './oracle.mjs';
import { processAlive, processMark } from './process.mjs';
import { qemuArguments } from './qemu.mjs';
import { otherQemu } from './qemus.mjs';
import { Qmp } from './qmp.mjs';
import { stderrLog } from './run.mjs';
import { testKernel } from './test-kernels.mjs';
import { parseTruth } from './truth.mjs';

/**
 * @typedef {{ suite?: string | undefined, flavour?: 'cloud' | 'generic' | 'rt' | undefined, build?:
 * string | undefined, libvirt?: string | undefined, files?: Record<string, string> | undefined,
 * log?: import('./run.mjs').Log, crashKernel?: boolean, privateFolder?: string, started?: (guest:
 * LabGuest) => void } & import('./qemu.mjs').QemuOptions} GuestOptions build: a kernel of
 * test-kernels.mjs in place of Debian's; privateFolder: where only QEMU sees its files;
 * crashKernel: the guest can start another kernel when its own crashes (`crash()`); libvirt: the
 * name of the domain, for a guest that libvirt starts; files: what else its initramfs has, the
 * host's path by the guest's; started: told of the guest as soon as QEMU runs, at each try to boot
 */
/** @typedef {ReturnType<typeof labPaths>} LabPaths */
/**
 * The QEMU behind a guest, as its starter holds it.
 * @typedef {object} Machine
 * @property {number} pid
 * @property {boolean} running
 * @property {() => Promise<void>} ended resolves when it has ended
 * @property {() => void} kill
 * @property {(command: string, args?: object) => Promise<any>} [execute] QMP, where no socket has a
 *   path
 */
/**
 * @typedef {{ mark: string, owner: string, release: string, memoryPath: string | undefined,
 * sockets: boolean }} GuestFile what guest.json holds
 */

const PREFIX = 'node-libvmi-lab-';
const ATTEMPTS = 3;
/** How long the folder of a failed boot stays, in ms. */
const KEEP = 24 * 3600 * 1000;
/** A whole answer: pieces of memory announced, and the line that ends it. */
const ANSWER = /^(?:PIECE .*\n)*(?:TABLE|DONE|ERROR) .*\n/m;
/** A line on the console that says the boot went wrong, even if it goes on. */
const BROKEN = /^.*(?:Kernel panic|Oops: |BUG: |general protection|double fault).*$/m;

/** @param {string} directory */
const labPaths = (directory) => ({
  directory,
  /** QMP socket for tests */ qmp: join(directory, 'qmp'),
  /** QMP socket for the tool under test */ qmpTool: join(directory, 'qmp-tool'),
  /** the guest's first serial port */ control: join(directory, 'control'),
  /** the kernel's console */ console: join(directory, 'console'),
  /** what the oracle replied */ truth: join(directory, 'truth'),
  /** a piece of guest memory on its way */ piece: join(directory, 'piece'),
  /** QEMU's standard error */ errors: join(directory, 'qemu'),
  guest: join(directory, 'guest.json'),
  /** there when the boot failed and the folder is kept */ failed: join(directory, 'failed'),
});

/** @param {number} ms */
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** A guest that started and did not come up: worth another try. */
class CrashError extends Error {}

/** @type {Set<LabGuest>} */
const live = new Set();
process.on('exit', () => {
  for (const guest of live) guest.kill();
});

/** A running guest. Made by {@link bootGuest}; another process attaches with {@link openGuest}. */
export class LabGuest {
  /** @type {Promise<unknown>} */ #queue = Promise.resolve();
  /** @type {Machine | undefined} */ #machine;

  /**
   * @param {LabPaths} paths
   * @param {{ pid: number, release: string, memoryPath: string | undefined, sockets: boolean }}
   *   facts
   * @param {Machine} [machine] QEMU, when this process started it
   */
  constructor(paths, { pid, release, memoryPath, sockets }, machine) {
    this.paths = paths;
    this.directory = paths.directory;
    /** QEMU's process id. */ this.pid = pid;
    /** The kernel's release. */ this.release = release;
    /** The file of guest RAM, for the `file` backend. */ this.memoryPath = memoryPath;
    /** The QMP socket meant for the tool under test. */ this.qmpPath = sockets
      ? paths.qmpTool
      : undefined;
    /** Seconds from start to ready. */ this.bootSeconds = 0;
    this.#machine = machine;
  }

  /** Whether QEMU still runs. */
  get running() {
    return this.#machine?.running ?? true;
  }

  /**
   * Asks the oracle for a table.
   *
   * `freeze` stops the whole guest from the inside until {@link thaw}: `true` in stop_machine(),
   * where the stopper threads are current; `'halt'` by interrupts, where each CPU still has the
   * task and the address space it was running. Without it the guest runs on while the table is made
   * and after.
   *
   * @param {{ freeze?: boolean | 'halt' }} [options]
   * @returns {Promise<import('./truth.mjs').Truth>}
   */
  async truth({ freeze = false } = {}) {
    return parseTruth(
      (await this.#ask(freeze === 'halt' ? 'halt' : freeze ? 'freeze' : 'tell')).toString(),
    );
  }

  /** Ends a freeze; returns when the guest runs again. @returns {Promise<void>} */
  async thaw() {
    await this.#exclusive(async () => {
      const frozen = await this.#frozen();
      if (frozen !== undefined) await this.#send('', /^THAW .*\n/m, frozen, 60);
    });
  }

  /**
   * Where in the replies the freeze stands that is not over, whoever asked for it.
   * @returns {Promise<number | undefined>}
   */
  async #frozen() {
    const replies = await readFile(this.paths.truth, 'latin1');
    const last = [...replies.matchAll(/^TABLE \d+ (freeze|halt)\n/gm)].at(-1);
    return last && !replies.includes('\nTHAW', last.index) ? last.index : undefined;
  }

  /**
   * Sends one command and waits until it is done: `tasks N`, `spin on`, `spin off`, `churn on`,
   * `churn off`, `hide PID`, `unhide`, `panic`.
   *
   * @param {string} line
   * @returns {Promise<void>}
   * @throws {Error} with the guest's reason
   */
  async command(line) {
    await this.#ask(line);
  }

  /**
   * Reboots the guest, warm, and waits until it is ready again. RAM is not cleared: the old
   * kernel's remains stay in it. Needs the option `reboot`.
   */
  async reboot() {
    const before = await size(this.paths.truth);
    await this.command('reboot');
    await this.ready(120, before);
  }

  /**
   * Loads a kernel that runs when this one crashes, crashes it, and waits until the other one is
   * ready: this one stays in RAM as it was. Needs the option `crashKernel`.
   */
  async crash() {
    const words = '$(cat /proc/cmdline | sed "s/crashkernel=[^ ]*//") nr_cpus=1 lab.tasks=3';
    const said = await this.shell(`/kexec /vmlinuz /crash.cpio "${words}" 2>&1`);
    if (said.trim() !== 'loaded') throw new Error(`no crash kernel: ${said}`);
    const before = await size(this.paths.truth);
    await this.command('panic');
    await this.#await(/^(READY|ERROR.*)\n/m, before, 120, 'boot of the crash kernel');
  }

  /** @param {string} command QMP command @param {object} [args] @returns {Promise<any>} */
  async qmp(command, args) {
    if (this.#machine?.execute) return this.#machine.execute(command, args);
    const qmp = await Qmp.connect(this.paths.qmp);
    try {
      return await qmp.execute(command, args);
    } finally {
      qmp.close();
    }
  }

  /** Stops the virtual CPUs. */
  async stop() {
    await this.qmp('stop');
  }

  /** Lets the virtual CPUs run on. */
  async cont() {
    await this.qmp('cont');
  }

  /** Writes guest RAM as an ELF core. @param {string} path */
  async dumpElf(path) {
    await this.qmp('dump-guest-memory', { paging: false, protocol: `file:${path}` });
  }

  /**
   * Writes a range of guest-physical memory to a file.
   * @param {string} path
   * @param {bigint | number} address
   * @param {number} length
   */
  async dumpRange(path, address, length) {
    await this.qmp('pmemsave', { val: Number(address), size: length, filename: path });
  }

  /** The guest's /proc/kallsyms. @returns {Promise<string>} */
  async kallsyms() {
    return (await this.#ask('kallsyms')).toString();
  }

  /** The guest's /sys/kernel/btf/vmlinux. @returns {Promise<Buffer>} */
  async btf() {
    return this.#ask('btf');
  }

  /**
   * Runs a line in the guest's shell (as PID 1) and returns its output.
   * @param {string} line
   * @returns {Promise<string>}
   */
  async shell(line) {
    return (await this.#ask(`shell ${line}`)).toString();
  }

  /** The kernel's console so far. @returns {Promise<string>} */
  async console() {
    return readFile(this.paths.console, 'utf8').catch(() => '');
  }

  /** Ends the guest and removes its folder. @returns {Promise<void>} */
  async close() {
    if (!live.has(this)) return;
    const ended = this.#machine?.ended();
    this.kill();
    await ended;
  }

  /**
   * Ends the guest without waiting, and removes its folder unless told to keep it.
   * @param {boolean} [keep]
   */
  kill(keep = false) {
    if (!live.delete(this)) return;
    this.#machine?.kill();
    if (this.memoryPath) removeRam(this.memoryPath);
    if (keep) writeFileSync(this.paths.failed, '');
    else rmSync(this.directory, { recursive: true, force: true });
  }

  [Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]() {
    return this.close();
  }

  /** What the state file holds, for {@link openGuest}. */
  toJSON() {
    const { pid, paths, directory, release, memoryPath, bootSeconds } = this;
    return {
      pid,
      qmp: this.qmpPath && paths.qmp,
      qmpTool: this.qmpPath,
      control: paths.control,
      truthFile: paths.truth,
      memoryPath,
      directory,
      release,
      bootSeconds,
    };
  }

  /**
   * @param {string} line
   * @returns {Promise<Buffer>} what the answer points at: the table, or what was printed
   */
  #ask(line) {
    return this.#exclusive(async () => {
      if ((await this.#frozen()) !== undefined)
        throw new Error('the guest is frozen: thaw() it first');
      const before = await size(this.paths.truth);
      const answer = await this.#send(line, ANSWER, before, 120);
      if (answer.includes('ERROR'))
        throw new Error(`the guest answers "${line}" with: ${answer.trimEnd()}`);
      const pieces = [...answer.matchAll(/^PIECE (\w+) (\d+)$/gm)];
      if (pieces.length === 0) return Buffer.alloc(0);
      const bytes = await this.#fetch(
        pieces.map(([, address, length]) => ({ address: `0x${address}`, length: Number(length) })),
      );
      if (!answer.includes('TABLE')) await this.#send('drop', ANSWER, before + answer.length, 60);
      return bytes;
    });
  }

  /**
   * Reads guest memory.
   * @param {{ address: string, length: number }[]} pieces
   * @returns {Promise<Buffer>}
   */
  async #fetch(pieces) {
    const parts = [];
    for (const { address, length } of pieces) {
      await this.dumpRange(this.paths.piece, Number(address), length);
      parts.push(await readFile(this.paths.piece));
    }
    return Buffer.concat(parts);
  }

  /** @template T @param {() => Promise<T>} work @returns {Promise<T>} one after the other */
  #exclusive(work) {
    const result = this.#queue.then(work);
    this.#queue = result.catch(() => {});
    return result;
  }

  /**
   * Sends a line and waits for its answer in the truth file.
   *
   * @param {string} line
   * @param {RegExp} answer
   * @param {number} from offset in the truth file
   * @param {number} seconds
   * @returns {Promise<string>}
   */
  async #send(line, answer, from, seconds) {
    if (!this.running) throw new Error(`QEMU ended before "${line}" was sent`);
    const socket = connect(this.paths.control);
    try {
      await new Promise((resolve, reject) => {
        socket.once('error', reject);
        socket.write(`${line}\n`, resolve);
      });
      socket.on('error', () => {});
      return await this.#await(answer, from, seconds, line);
    } finally {
      socket.destroy();
    } // the port takes the next client, of this process or another
  }

  /**
   * @param {RegExp} answer
   * @param {number} from
   * @param {number} seconds
   * @param {string} what
   * @returns {Promise<string>}
   */
  async #await(answer, from, seconds, what) {
    const end = Date.now() + seconds * 1000;
    for (let seen = from, pause = 1; Date.now() < end; pause = Math.min(pause * 1.5, 20)) {
      const now = await size(this.paths.truth);
      if (now > seen) {
        const match = answer.exec((await readFrom(this.paths.truth, from)).toString());
        if (match) return match[0];
        seen = now;
      }
      if (!this.running) throw new Error(`QEMU ended before it answered "${what}"`);
      await sleep(pause);
    }
    throw new Error(
      `no answer to "${what}" in ${seconds} s; the console ends with:\n${(await this.console()).slice(-2000)}`,
    );
  }

  /**
   * Waits until init says READY; used by {@link bootGuest}.
   *
   * @param {number} seconds
   * @param {number} [from] offset in the replies
   */
  async ready(seconds, from = 0) {
    const end = Date.now() + seconds * 1000;
    for (;;) {
      const answer = await this.#await(/^(READY|ERROR.*)\n/m, from, 1, 'boot').catch((error) => {
        if (this.running && Date.now() < end) return undefined;
        return `ERROR ${error.message}`;
      });
      const broken = BROKEN.exec(await this.console());
      if (broken) throw new Error(`the console says "${broken[0].trim()}"`);
      if (answer?.startsWith('ERROR')) throw new Error(answer.trimEnd());
      if (answer) return;
    }
  }

  /** Registers a guest that this process started. */
  own() {
    live.add(this);
  }
}

/** @param {string} path */
const size = (path) =>
  stat(path).then(
    (stats) => stats.size,
    () => 0,
  );

/** @param {string} path @param {number} offset @returns {Promise<Buffer>} the file from there on */
async function readFrom(path, offset) {
  const file = await open(path);
  try {
    const bytes = Buffer.alloc(Math.max(0, (await file.stat()).size - offset));
    const { bytesRead } = await file.read(bytes, 0, bytes.length, offset);
    return bytes.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

/** @param {string} path the first node's file; the others' names follow from it */
function removeRam(path) {
  rmSync(path, { force: true });
  for (let node = 1; node < 8; node++) rmSync(`${path}.${node}`, { force: true });
}

/**
 * Boots a guest and waits until its workload is ready. The guest dies with this process, however
 * that ends.
 *
 * A boot that fails is tried again up to three times, and told: emulation corrupts one in many. The
 * folder of a failed boot is kept, its name is in the error.
 *
 * @param {GuestOptions} [options]
 * @returns {Promise<LabGuest>}
 */
export async function bootGuest(options = {}) {
  const { suite, flavour, log = stderrLog } = options;
  await ensureHost({ log });
  await sweep();
  const image = options.build
    ? await testKernel(options.build, { log })
    : await kernel({ suite, flavour, log });
  const module = 'directory' in image ? await oracle(image, { log }) : undefined;
  const plain = await initramfs(module, { log, files: options.files });
  const more = options.crashKernel ? await crashFiles(image.vmlinuz, plain, { log }) : undefined;
  const initrd = more
    ? await initramfs(module, { log, files: { ...options.files, ...more } })
    : plain;
  const accel = await accelerator(image.vmlinuz, log);
  for (let attempt = 1; ; attempt++) {
    try {
      return await boot(options, image, initrd, accel);
    } catch (error) {
      if (attempt === ATTEMPTS || !(error instanceof CrashError)) throw error;
      log(
        `boot ${attempt} of ${image.release} failed, trying again: ${/** @type {Error} */ (error).message}`,
      );
    }
  }
}

/**
 * @param {GuestOptions} options
 * @param {{ vmlinuz: string, release: string }} image
 * @param {string} initrd
 * @param {'kvm' | 'tcg'} accel
 */
async function boot(options, image, initrd, accel) {
  const paths = labPaths(await mkdtemp(join(tmpdir(), PREFIX)));
  const start = performance.now();
  const what = { vmlinuz: image.vmlinuz, initramfs: initrd, accel, paths };
  const { machine, memoryPath } =
    options.libvirt === undefined
      ? await startQemu(options, what)
      : { machine: await startDomain(options.libvirt, options, what), memoryPath: undefined };
  const { pid } = machine;
  const sockets = options.libvirt === undefined && options.qmp !== false;
  const guest = new LabGuest(paths, { pid, release: image.release, memoryPath, sockets }, machine);
  guest.own();
  try {
    /** @type {GuestFile} */
    const file = {
      mark: await processMark(pid),
      owner: await processMark(process.pid),
      release: image.release,
      memoryPath,
      sockets,
    };
    await writeFile(paths.guest, JSON.stringify(file));
    options.started?.(guest);
    await guest.ready(60 + (options.tasks ?? 0) / 50);
    guest.bootSeconds = Math.round(performance.now() - start) / 1000;
    return guest;
  } catch (error) {
    guest.kill(true);
    const said = (await readFile(paths.errors, 'utf8').catch(() => '')).trim();
    const Kind = (await guest.console()) === '' ? Error : CrashError;
    throw new Kind(
      `guest ${image.release} did not boot: ${/** @type {Error} */ (error).message}${said && `\n${said}`}\n(kept in ${paths.directory})`,
    );
  }
}

/**
 * Starts what follows with a file system of its own in a folder: nobody else sees what is there.
 * @param {string} folder
 */
function withPrivate(folder) {
  const user = process.getuid?.() === 0 ? [] : ['--map-root-user'];
  const script = 'mount -t tmpfs none "$0" && exec "$@"';
  return ['unshare', '--mount', ...user, 'sh', '-c', script, folder];
}

/**
 * @param {GuestOptions} options
 * @param {Parameters<typeof qemuArguments>[1]} what
 * @returns {Promise<{ machine: Machine, memoryPath: string | undefined }>}
 */
async function startQemu(options, what) {
  const { args, memoryPath } = await qemuArguments(options, what);
  const sockets = options.qmp !== false;
  const errors = await open(what.paths.errors, 'w');
  // the kernel ends QEMU when the thread that started it ends: prctl(2), PR_SET_PDEATHSIG
  const command =
    options.qemu === undefined
      ? ['qemu-system-x86_64']
      : await otherQemu(options.qemu, options.log ?? stderrLog);
  if (options.privateFolder !== undefined) command.unshift(...withPrivate(options.privateFolder));
  const child = spawn('setpriv', ['--pdeathsig=KILL', ...command, ...args], {
    stdio: ['ignore', 'ignore', errors.fd, ...(sockets ? [] : [/** @type {const} */ ('pipe')])],
  });
  await Promise.all([errors.close(), once(child, 'spawn')]);
  child.unref();
  const inherited = sockets
    ? undefined
    : new Qmp(/** @type {import('node:net').Socket} */ (child.stdio[3]));
  const negotiated = inherited?.execute('qmp_capabilities');
  negotiated?.catch(() => {}); // told with the first command
  const machine = {
    pid: /** @type {number} */ (child.pid),
    get running() {
      return child.exitCode === null && child.signalCode === null;
    },
    async ended() {
      if (!this.running) return;
      child.ref();
      await once(child, 'exit');
    },
    kill() {
      inherited?.close();
      child.kill('SIGKILL');
    },
    ...(inherited && {
      execute: async (/** @type {string} */ command, /** @type {object | undefined} */ args) => {
        await negotiated;
        return inherited.execute(command, args);
      },
    }),
  };
  return { machine, memoryPath };
}

/**
 * Attaches to a guest that another process booted.
 *
 * @param {string} directory the guest's
 * @returns {Promise<LabGuest>} closing it leaves the guest running
 */
export async function openGuest(directory) {
  const paths = labPaths(directory);
  /** @type {GuestFile} */ const file = JSON.parse(await readFile(paths.guest, 'utf8'));
  if (!(await processAlive(file.mark))) throw new Error(`the guest of ${directory} runs no more`);
  return new LabGuest(paths, { ...file, pid: Number.parseInt(file.mark, 10) });
}

/** Removes what processes that were killed left behind; folders of failed boots stay a day. */
async function sweep() {
  for (const name of await readdir(tmpdir())) {
    if (!name.startsWith(PREFIX)) continue;
    const paths = labPaths(join(tmpdir(), name));
    try {
      /** @type {GuestFile} */ const file = JSON.parse(await readFile(paths.guest, 'utf8'));
      if (await processAlive(file.owner)) continue;
      if (await processAlive(file.mark)) process.kill(Number.parseInt(file.mark, 10), 'SIGKILL');
      if (file.memoryPath) removeRam(file.memoryPath);
      const age = Date.now() - (await stat(paths.guest)).mtimeMs;
      if (age > KEEP || !(await exists(paths.failed)))
        await rm(paths.directory, { recursive: true, force: true });
    } catch {
      // half made, half removed, or another user's
      const made = await stat(paths.directory).then(
        ({ mtimeMs }) => mtimeMs,
        () => Infinity,
      );
      if (Date.now() - made > KEEP)
        await rm(paths.directory, { recursive: true, force: true }).catch(() => {});
    }
  }
}
