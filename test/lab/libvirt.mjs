// @ts-check
/**
 * Guests that libvirt starts: the same kernel, initramfs and oracle, in a domain on an unmodified
 * QEMU.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir, open, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cacheFolder, locked } from './cache.mjs';
import { kernelOptions, portArguments } from './qemu.mjs';
import { run, stderrLog, which } from './run.mjs';

/** The only connection that libvmi's KVM driver knows. */
export const URI = 'qemu:///system';

const PACKAGES = 'libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients';
/** The user that Debian's libvirtd wants to exist, even when nothing runs as it. */
const USER = 'libvirt-qemu';
/** Seconds a daemon of ours stays without clients and domains. */
const LINGER = 60;
/** How long a daemon may take to answer, in ms. */
const START = 20_000;

/** @param {string[]} args @returns {Promise<string>} */
const virsh = (...args) => run('virsh', ['--quiet', '--connect', URI, ...args]);

/** @type {Promise<string> | undefined} */
let reason;

/**
 * Why there can be no libvirt guest on this host; empty when there can. Uses the libvirtd that
 * runs; where none does, root starts one that leaves the host's configuration alone and ends by
 * itself.
 *
 * @param {{ log?: import('./run.mjs').Log }} [options]
 * @returns {Promise<string>}
 */
export function libvirtMissing({ log = stderrLog } = {}) {
  reason ??= missing(log);
  return reason;
}

/** @param {import('./run.mjs').Log} log */
async function missing(log) {
  if (!(await which('virsh'))) {
    return `libvirt is not installed: sudo apt-get install --no-install-recommends ${PACKAGES}`;
  }
  if (await answers()) return '';
  const daemon = await which('libvirtd');
  if (daemon === undefined)
    return `no libvirt daemon: sudo apt-get install --no-install-recommends ${PACKAGES}`;
  if (process.getuid?.() !== 0)
    return `no daemon serves ${URI} to this user, and only root may start one`;
  const folder = join(cacheFolder(), 'libvirt');
  try {
    await mkdir(folder, { recursive: true });
    await locked(join(folder, 'lock'), async () => {
      if (!(await answers())) await startDaemon(daemon, folder, log);
    });
    return '';
  } catch (error) {
    return `libvirtd does not start: ${/** @type {Error} */ (error).message.trim()}`;
  }
}

const answers = () =>
  virsh('version', '--daemon').then(
    () => true,
    () => false,
  );

/**
 * Starts a libvirtd that needs no systemd, no virtlogd and no user of its own. Its configuration,
 * its state and that user are mounted in a mount namespace that it alone is in; its sockets are
 * where every client looks.
 *
 * @param {string} daemon
 * @param {string} folder
 * @param {import('./run.mjs').Log} log
 */
async function startDaemon(daemon, folder, log) {
  const etc = join(folder, 'etc');
  await mkdir(etc, { recursive: true });
  const settings = (/** @type {Record<string, string>} */ values) =>
    `${Object.entries(values)
      .map(([key, value]) => `${key} = ${value}`)
      .join('\n')}\n`;
  await writeFile(
    join(etc, 'libvirtd.conf'),
    settings({
      unix_sock_ro_perms: '"0700"',
      unix_sock_rw_perms: '"0700"',
      auth_unix_ro: '"none"',
      auth_unix_rw: '"none"',
    }),
  );
  await writeFile(
    join(etc, 'qemu.conf'),
    settings({
      user: '"root"',
      group: '"root"',
      security_driver: '"none"',
      stdio_handler: '"file"',
      cgroup_controllers: '[ ]',
      namespaces: '[ ]',
    }),
  );
  await addEntries('passwd', folder, [`${USER}:x:0:0::/:/bin/false`]);
  await addEntries('group', folder, [`${USER}:x:0:`, 'kvm:x:0:']);
  const script = `set -e
mkdir -p /etc/libvirt && mount --bind "$1/etc" /etc/libvirt
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/group" /etc/group
for state in /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
  mkdir -p "$state" && mount -t tmpfs tmpfs "$state"
done
exec "$2" --timeout "$3" --pid-file "$1/pid"`;
  const output = join(folder, 'log');
  const file = await open(output, 'w');
  const child = spawn(
    'unshare',
    ['--mount', 'sh', '-c', script, 'sh', folder, daemon, String(LINGER)],
    {
      detached: true,
      stdio: ['ignore', file.fd, file.fd],
    },
  );
  child.on('error', () => {});
  await file.close();
  child.unref();
  log(`started libvirtd (${child.pid}); it ends ${LINGER} s after its last guest`);
  for (const end = Date.now() + START; Date.now() < end; ) {
    if (await answers()) return;
    if (child.exitCode !== null || child.signalCode !== null) break;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error((await readFile(output, 'utf8')).trim().split('\n').slice(-3).join('; '));
}

/**
 * Copies a file of accounts with those that it lacks.
 * @param {string} name
 * @param {string} folder
 * @param {string[]} entries
 */
async function addEntries(name, folder, entries) {
  const text = await readFile(`/etc/${name}`, 'utf8');
  const known = new Set(text.split('\n').map((line) => line.split(':', 1)[0]));
  const added = entries.filter((entry) => !known.has(entry.split(':', 1)[0]));
  await writeFile(
    join(folder, name),
    `${text.trimEnd()}\n${added.map((entry) => `${entry}\n`).join('')}`,
  );
}

/**
 * Starts a domain that nothing keeps: when its QEMU ends, libvirt forgets it. The lab talks to QEMU
 * through libvirt as well, so that there is no other monitor.
 *
 * @param {string} name
 * @param {import('./guest.mjs').GuestOptions} options
 * @param {Parameters<typeof import('./qemu.mjs').qemuArguments>[1]} what
 * @returns {Promise<import('./guest.mjs').Machine>}
 */
export async function startDomain(name, options, what) {
  const { paths } = what;
  const why = await libvirtMissing(options);
  if (why !== '') throw new Error(why);
  const file = join(paths.directory, 'domain.xml');
  await writeFile(file, domainXml(name, options, what, await securityModels()));
  await virsh('create', '--file', file);
  const pid = await processOf(paths.truth);
  const began = startTime(pid);
  const uuid = (await virsh('list', '--uuid', '--name'))
    .split('\n')
    .find((line) => line.slice(36).trim() === name)
    ?.slice(0, 36);
  if (uuid === undefined || began === undefined)
    throw new Error(`libvirt started '${name}' and lost it`);
  const machine = {
    pid,
    get running() {
      return startTime(pid) === began;
    },
    async ended() {
      while (this.running) await new Promise((resolve) => setTimeout(resolve, 20));
      // Until libvirt has seen it too, the name is taken.
      while ((await virsh('list', '--uuid')).includes(uuid)) {
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    },
    kill() {
      if (this.running) process.kill(pid, 'SIGKILL');
    },
    async execute(/** @type {string} */ command, /** @type {object | undefined} */ args) {
      const text = JSON.stringify({ execute: command, arguments: args });
      const answer = JSON.parse(
        await virsh('qemu-monitor-command', '--domain', uuid, '--cmd', text),
      );
      if (answer.error) throw new Error(`${command}: ${answer.error.desc}`);
      return answer.return;
    },
  };
  return machine;
}

/** Models that would confine QEMU away from the lab's files. @returns {Promise<string[]>} */
async function securityModels() {
  const text = await virsh('capabilities');
  return [...text.matchAll(/<secmodel>\s*<model>(\w+)<\/model>/g)]
    .map(([, model]) => String(model))
    .filter((model) => model !== 'none' && model !== 'dac');
}

/**
 * @param {string} name
 * @param {import('./guest.mjs').GuestOptions} options
 * @param {Parameters<typeof import('./qemu.mjs').qemuArguments>[1]} what
 * @param {string[]} models
 * @returns {string}
 */
function domainXml(name, options, { vmlinuz, initramfs, accel, paths }, models) {
  const {
    memory = 512,
    cpus = 2,
    machine = 'q35',
    backend = 'anonymous',
    levels5 = false,
  } = options;
  if (backend !== 'anonymous' && backend !== 'memfd')
    throw new RangeError(`no ${backend} RAM through libvirt`);
  const absent = [...(levels5 ? [] : ['la57']), ...(accel === 'tcg' ? ['cx16'] : [])];
  const owner = `+${process.getuid?.()}:+${process.getgid?.()}`;
  return `<domain type='${accel === 'kvm' ? 'kvm' : 'qemu'}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>${escaped(name)}</name>
  <memory unit='MiB'>${memory}</memory>
  <vcpu>${cpus}</vcpu>
  ${backend === 'memfd' ? "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>" : ''}
  <os>
    <type arch='x86_64' machine='${machine}'>hvm</type>
    <kernel>${escaped(vmlinuz)}</kernel>
    <initrd>${escaped(initramfs)}</initrd>
    <cmdline>${escaped(kernelOptions(options))}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode='maximum'>${absent.map((feature) => `<feature policy='disable' name='${feature}'/>`).join('')}</cpu>
  <on_reboot>destroy</on_reboot>
  <devices>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
  <seclabel type='static' model='dac' relabel='no'><label>${owner}</label></seclabel>
  ${models.map((model) => `<seclabel type='none' model='${model}'/>`).join('')}
  <qemu:commandline>
${portArguments(paths)
  .map((argument) => `    <qemu:arg value='${escaped(argument)}'/>`)
  .join('\n')}
  </qemu:commandline>
</domain>
`;
}

/** @param {string} text */
const escaped = (text) =>
  text.replace(/[&<>'"]/g, (character) => `&#${/** @type {number} */ (character.codePointAt(0))};`);

/** The QEMU that writes a file. @param {string} path @returns {Promise<number>} */
async function processOf(path) {
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const line = await readFile(`/proc/${entry}/cmdline`, 'utf8').catch(() => '');
    if (line.includes('qemu') && line.includes(path)) return Number(entry);
  }
  throw new Error(`no QEMU has ${path} open`);
}

/**
 * When a process started, in clock ticks; `undefined` when it is gone. proc(5).
 * @param {number} pid
 */
function startTime(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}
