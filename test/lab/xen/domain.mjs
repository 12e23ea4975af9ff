// @ts-check
/**
 * A guest of the lab's Xen: the same kernels, workload and oracle as everywhere in the lab, started
 * by xl in dom0.
 */
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { exists } from '../cache.mjs';
import { initramfs } from '../initramfs.mjs';
import { kernel } from '../kernel.mjs';
import { oracle } from '../oracle.mjs';
import { stderrLog } from '../run.mjs';
import { parseTruth } from '../truth.mjs';

/**
 * @typedef {object} DomainOptions
 * @property {string} name any name that Xen takes
 * @property {'pv' | 'pvh'} type
 * @property {string} [suite] of the kernel
 * @property {'cloud' | 'generic' | 'rt'} [flavour]
 * @property {number} [memory] MiB
 * @property {number} [cpus]
 * @property {number} [tasks] sleeping filler processes
 * @property {import('../run.mjs').Log} [log]
 */

const BOOT_SECONDS = 180;
/**
 * Seconds of guest time that a freeze lasts: enough for dom0 to pause the guest in it, however
 * loaded the host is.
 */
const FREEZE_SECONDS = 30;
/** Seconds from HALTING to the freeze, and then some. */
const SETTLE = 4;
/** No I/O ports, the console for commands and answers. */
const KERNEL_OPTIONS =
  'console=hvc0 quiet nowatchdog rcupdate.rcu_cpu_stall_suppress=1 workqueue.watchdog_thresh=0 panic=-1 random.trust_cpu=on ' +
  `lab.port=0 lab.com1=0 lab.channel=hvc0 lab.deadline=${FREEZE_SECONDS}`;

/** @param {string} text for a POSIX shell */
export const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** A running guest. Made by {@link startDomain}. */
export class XenDomain {
  /**
   * @param {import('./machine.mjs').XenMachine} machine
   * @param {DomainOptions} options
   * @param {{ id: number, release: string, log: string }} facts
   */
  constructor(machine, { name, type }, { id, release, log }) {
    this.machine = machine;
    this.name = name;
    this.type = type;
    /** Xen's number of it. */ this.id = id;
    /** Its kernel. */ this.release = release;
    /** File of what it said. */ this.log = log;
    /** Seconds from `xl create` to ready. */ this.bootSeconds = 0;
  }

  /** What it said so far. @returns {Promise<string>} */
  async said() {
    return (await readFile(this.log, 'latin1').catch(() => '')).replaceAll('\r', '');
  }

  /** Writes a line to its console. @param {string} line */
  async send(line) {
    await this.machine.run(
      `echo ${quoted(line)} > "$(xenstore-read /local/domain/${this.id}/console/tty)"`,
    );
  }

  /**
   * Waits for a line on the console.
   *
   * @param {RegExp} line
   * @param {number} seconds
   * @param {number} [from] offset in what it said
   * @returns {Promise<RegExpExecArray>}
   */
  async hear(line, seconds, from = 0) {
    const end = Date.now() + seconds * 1000;
    for (;;) {
      const text = (await this.said()).slice(from);
      const match = line.exec(text);
      if (match) return match;
      const broken = /^.*(?:Kernel panic|Oops: |BUG: |general protection|double fault).*$/m.exec(
        text,
      );
      if (broken) throw new Error(`${this.name} says "${broken[0].trim()}"`);
      if (Date.now() > end)
        throw new Error(
          `${this.name} did not say ${line} in ${seconds} s; it ends with:\n${text.slice(-1500)}`,
        );
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /**
   * Lets the guest freeze itself (each CPU in what it was doing), and pauses it there: until {@link
   * truth} nothing in it moves.
   */
  async halt() {
    this.mark = (await this.said()).length;
    await this.send('halt');
    await this.hear(/^HALTING$/m, 60, this.mark);
    await this.machine.run(`sleep ${SETTLE}; xl pause ${this.id}`);
  }

  /**
   * Lets a halted guest run on; it then tells what it saw in the freeze.
   *
   * @returns {Promise<import('../truth.mjs').Truth>}
   */
  async truth() {
    if (this.mark === undefined) throw new Error('halt() first');
    if ((await this.said()).slice(this.mark).includes('BEGIN'))
      throw new Error(`${this.name} was not paused within its freeze: the host is too slow`);
    await this.machine.run(`xl unpause ${this.id}`);
    const [table] = await this.hear(/^BEGIN (\d+) halt\n[\s\S]*^END \1 \d+\n/m, 120, this.mark);
    this.mark = undefined;
    return parseTruth(table);
  }

  /**
   * Gives it an order and waits for its answer: whether it runs.
   *
   * @param {string} [order] of the workload
   */
  async answers(order = 'spin on') {
    const from = (await this.said()).length;
    await this.send(order);
    return this.hear(new RegExp(`^DONE ${order}$`, 'm'), 60, from).then(
      () => true,
      () => false,
    );
  }

  /** Pages that Xen lets it have. @returns {Promise<number>} */
  async maxPages() {
    const { out } = await this.machine.run(
      'xl dmesg -c > /dev/null; xl debug-keys q; sleep 1; xl dmesg',
    );
    const own = out.slice(out.indexOf(`General information for domain ${this.id}:`));
    return Number(/max_pages=(\d+)/.exec(own)?.[1]);
  }

  /** Ends it. */
  async destroy() {
    await this.machine.run(`xl destroy ${this.id}`);
  }
}

/**
 * Starts a guest and waits until its workload is ready.
 *
 * @param {import('./machine.mjs').XenMachine} machine
 * @param {DomainOptions} options
 * @returns {Promise<XenDomain>}
 */
export async function startDomain(machine, options) {
  const {
    name,
    type,
    suite,
    flavour,
    memory = 320,
    cpus = 2,
    tasks = 20,
    log = stderrLog,
  } = options;
  const image = await kernel({ suite, flavour, log });
  const initrd = await initramfs(await oracle(image, { log }), { log });
  for (const file of [image.vmlinuz, initrd]) {
    const copy = join(machine.share, basename(file));
    if (!(await exists(copy))) await copyFile(file, copy);
  }
  const config = [
    `name = ${JSON.stringify(name)}`,
    `type = "${type}"`,
    `kernel = "/lab/${basename(image.vmlinuz)}"`,
    `ramdisk = "/lab/${basename(initrd)}"`,
    `extra = "${KERNEL_OPTIONS} lab.tasks=${tasks}"`,
    `memory = ${memory}`,
    `vcpus = ${cpus}`,
    'cpus = "1"', // dom0 has CPU 0 for itself
    'on_poweroff = "destroy"',
    'on_reboot = "destroy"',
    'on_crash = "destroy"',
  ];
  const file = `${type}-${Date.now()}.cfg`;
  await writeFile(join(machine.share, file), `${config.join('\n')}\n`);
  const start = performance.now();
  await machine.run(`xl create -q /lab/${file}`, { seconds: BOOT_SECONDS });
  const { out } = await machine.run(`xl domid ${quoted(name)}`);
  const id = Number(out);
  const domain = new XenDomain(machine, options, {
    id,
    release: image.release,
    log: join(machine.share, 'console', `guest-${name}.log`),
  });
  const [answer] = await domain.hear(/^(READY|ERROR.*)$/m, BOOT_SECONDS);
  if (answer !== 'READY') throw new Error(`${name}: ${answer}`);
  domain.bootSeconds = Math.round(performance.now() - start) / 1000;
  return domain;
}
