// @ts-check
/** QEMU's command line for a lab guest. */
import { statfs } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { hugeMount, needHugePages } from './huge-pages.mjs';

/**
 * @typedef {object} QemuOptions
 * @property {number} [memory] MiB
 * @property {number} [cpus]
 * @property {string} [machine] QEMU's machine type with its options; `q35` by default
 * @property {'anonymous' | 'file' | 'memfd' | 'hugetlb' | 'hugetlbfs' | 'hugetlbfs-private'}
 *   [backend] what guest RAM is on the host: huge pages as a memfd, as a shared file on hugetlbfs,
 *   or as libvirt asks for them, private and without a name
 * @property {string} [cpu] QEMU's CPU model, `max` by default
 * @property {boolean} [levels5] five levels of page tables (`la57`)
 * @property {number} [numa] nodes, each with its share of RAM and CPUs
 * @property {boolean} [qmp] false: no QMP socket that a tool could find
 * @property {boolean} [reboot] true: a reset reboots; by default it ends QEMU
 * @property {string} [append] more kernel options
 * @property {number} [tasks] sleeping filler processes
 * @property {number} [busy] processes that can spin, by default one per CPU
 * @property {boolean} [spin] true: they spin all the time; by default only while a `halt` is taken,
 *   to spare the host
 * @property {string[]} [extraArgs] more QEMU arguments
 * @property {string} [qemu] the Debian suite whose QEMU runs the guest; the host's own by default
 */

/** Quiet while all CPUs stand still for minutes, and a panic that ends at once. */
const KERNEL_OPTIONS =
  'console=ttyS1,115200 nowatchdog rcupdate.rcu_cpu_stall_suppress=1 workqueue.watchdog_thresh=0 ' +
  'panic=-1 ibt=off random.trust_cpu=on';

/**
 * @param {QemuOptions} options
 * @param {{ vmlinuz: string, initramfs: string, accel: 'kvm' | 'tcg', paths:
 *   import('./guest.mjs').LabPaths }} boot
 * @returns {Promise<{ args: string[], memoryPath: string | undefined }>} the arguments, and the
 *   file of RAM if it has one
 */
export async function qemuArguments(options, { vmlinuz, initramfs, accel, paths }) {
  const {
    memory = 512,
    cpus = 2,
    machine = 'q35',
    cpu = 'max',
    levels5 = false,
    extraArgs = [],
  } = options;
  const ram = await memoryArguments(options, paths);
  const model = cpuModel(cpu, levels5, accel);
  return {
    memoryPath: ram.memoryPath,
    args: [
      '-name',
      basename(paths.directory),
      '-nodefaults',
      '-no-user-config',
      '-display',
      'none',
      ...(options.reboot ? [] : ['-no-reboot']),
      '-accel',
      accel,
      '-cpu',
      model,
      '-smp',
      `cpus=${cpus},sockets=${options.numa ?? 1}`,
      '-m',
      `${memory}M`,
      '-machine',
      `${machine}${ram.machine}`,
      ...ram.args,
      ...monitors(options.qmp !== false, paths),
      ...portArguments(paths, machine),
      '-kernel',
      vmlinuz,
      '-initrd',
      initramfs,
      '-append',
      kernelOptions(options),
      ...extraArgs,
    ],
  };
}

/**
 * What the guest's kernel is told.
 *
 * @param {Pick<QemuOptions, 'tasks' | 'busy' | 'spin' | 'append'>} options
 * @returns {string}
 */
export function kernelOptions({ tasks = 40, busy, spin, append = '' }) {
  return [
    KERNEL_OPTIONS,
    `lab.tasks=${tasks}`,
    busy === undefined ? '' : `lab.busy=${busy}`,
    spin ? 'lab.spin=on' : '',
    append,
  ]
    .filter((word) => word !== '')
    .join(' ');
}

/**
 * The ports that the lab talks through: orders, the console, the oracle's replies.
 *
 * @param {import('./guest.mjs').LabPaths} paths
 * @param {string} [machine]
 * @returns {string[]}
 */
export function portArguments(paths, machine = '') {
  // microvm has one serial port of its own, and takes a second one as a device.
  const second = machine.startsWith('microvm')
    ? ['-device', 'isa-serial,iobase=0x2f8,irq=3,chardev=console']
    : ['-serial', 'chardev:console'];
  return [
    '-chardev',
    `socket,id=com1,path=${paths.control},server=on,wait=off`,
    '-serial',
    'chardev:com1',
    '-chardev',
    `file,id=console,path=${paths.console}`,
    ...second,
    '-chardev',
    `file,id=truth,path=${paths.truth}`,
    '-device',
    'isa-debugcon,iobase=0x502,chardev=truth',
  ];
}

/**
 * Four levels of page tables unless five are asked for, though `max` has both. And no cmpxchg16b in
 * emulation: QEMU 7.2 now and then leaves garbage in EFLAGS after one without a lock prefix, and
 * the guest dies in SLUB's fast path (seen as a double fault in __kmalloc with EFLAGS 011f0252).
 * Kernels without that CPU flag take a path that works.
 *
 * @param {string} cpu
 * @param {boolean} levels5
 * @param {'kvm' | 'tcg'} accel
 * @returns {string}
 */
function cpuModel(cpu, levels5, accel) {
  const features = [cpu];
  if (levels5) features.push('la57=on');
  else if (/^max\b/.test(cpu) && !cpu.includes('la57')) features.push('la57=off');
  if (accel === 'tcg' && !cpu.includes('cx16')) features.push('cx16=off');
  return features.join(',');
}

/** One QMP socket for the tests and one for the tool, or only an inherited one (descriptor 3). */
const monitors = (
  /** @type {boolean} */ sockets,
  /** @type {import('./guest.mjs').LabPaths} */ paths,
) =>
  sockets
    ? [
        '-qmp',
        `unix:${paths.qmp},server=on,wait=off`,
        '-qmp',
        `unix:${paths.qmpTool},server=on,wait=off`,
      ]
    : ['-chardev', 'socket,id=inherited,fd=3', '-mon', 'chardev=inherited,mode=control'];

/**
 * @param {QemuOptions} options
 * @param {import('./guest.mjs').LabPaths} paths
 * @returns {Promise<{ machine: string, args: string[], memoryPath: string | undefined }>}
 */
async function memoryArguments({ backend = 'anonymous', memory = 512, cpus = 2, numa = 1 }, paths) {
  const size = memory / numa;
  if (!Number.isInteger(size) || !Number.isInteger(cpus / numa))
    throw new RangeError(`cannot split ${memory} MiB and ${cpus} CPUs into ${numa} nodes`);
  if (backend === 'anonymous' && numa === 1)
    return { machine: '', args: [], memoryPath: undefined };
  const huge = backend.startsWith('hugetlb');
  if (huge) await needHugePages(memory);
  const mount = huge && backend !== 'hugetlb' ? await hugeMount() : '';
  const memoryPath =
    backend === 'file'
      ? await ramFile(paths, memory)
      : backend === 'hugetlbfs'
        ? join(mount, `${basename(paths.directory)}.ram`)
        : undefined;
  const args = [];
  for (let node = 0; node < numa; node++) {
    const id = `ram${node}`;
    const path = node === 0 ? memoryPath : `${memoryPath}.${node}`;
    args.push(
      '-object',
      {
        anonymous: `memory-backend-ram,id=${id},size=${size}M`,
        file: `memory-backend-file,id=${id},size=${size}M,mem-path=${path},share=on`,
        memfd: `memory-backend-memfd,id=${id},size=${size}M,share=on`,
        hugetlb: `memory-backend-memfd,id=${id},size=${size}M,share=on,hugetlb=on,hugetlbsize=2M`,
        hugetlbfs: `memory-backend-file,id=${id},size=${size}M,mem-path=${path},share=on`,
        'hugetlbfs-private': `memory-backend-file,id=${id},size=${size}M,mem-path=${mount},share=off,prealloc=on`,
      }[backend],
    );
    if (numa > 1) {
      const first = Math.floor((node * cpus) / numa),
        last = Math.floor(((node + 1) * cpus) / numa) - 1;
      args.push('-numa', `node,nodeid=${node},memdev=${id},cpus=${first}-${last}`);
    }
  }
  return { machine: numa > 1 ? '' : ',memory-backend=ram0', args, memoryPath };
}

/**
 * Chooses where the file of RAM lies: in memory if there is room, so that no disk writes it back.
 *
 * @param {import('./guest.mjs').LabPaths} paths
 * @param {number} memory MiB
 */
async function ramFile(paths, memory) {
  const free = await statfs('/dev/shm').then(
    ({ bavail, bsize }) => bavail * bsize,
    () => 0,
  );
  return free > memory * 2 ** 20
    ? join('/dev/shm', `${basename(paths.directory)}.ram`)
    : join(paths.directory, 'ram');
}
