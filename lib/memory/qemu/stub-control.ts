import { rmSync } from 'node:fs';
import { VmiError } from '../../errors.js';
import { GdbSocket } from './gdb-socket.js';
import type { Monitor, MonitorAccess } from './monitor.js';

/** The state of a guest that a breakpoint or watchpoint has stopped. QEMU qapi/run-state.json. */
const STOPPED_BY_STUB = 'debug';

/** How long a stub may take to greet, milliseconds. */
const GREETING = 10_000;

interface Chardev {
  readonly label: string;
  readonly filename: string;
}

/**
 * Where a debug stub listens that is on already, by QEMU or by whoever turned it on; `undefined`:
 * there is none. QEMU gives its device the label `gdb` (gdbstub.c, `gdbserver_start`).
 */
export async function findStub(monitor: Monitor): Promise<string | undefined> {
  const devices = (await monitor.execute('query-chardev')) as Chardev[];
  return devices.find(({ label }) => label === 'gdb')?.filename;
}

/** Turns a stub on. @throws {VmiError} `VMI_UNSUPPORTED`: QEMU cannot listen there */
export async function startStub(monitor: Monitor, path: string): Promise<void> {
  const said = await monitor.human(`gdbserver unix:${path},server=on,wait=off`);
  if ((await findStub(monitor))?.includes(path) === true) return;
  throw new VmiError(
    'VMI_UNSUPPORTED',
    `QEMU cannot turn its debug stub on at ${path}: ${said.trim() || 'it gives no reason'} (under libvirt its AppArmor or SELinux profile may forbid a socket there: TMPDIR chooses another folder)`,
  );
}

/** Turns the stub off. It leaves watchpoints where they are: {@link detach} first. */
export async function stopStub(monitor: Monitor): Promise<void> {
  await monitor.human('gdbserver none');
}

/**
 * Makes a connection one that can let go: without `multiprocess+`, detaching has no effect. A guest
 * that ran is stopped by the connection, and QEMU tells of that first.
 */
export async function greet(socket: GdbSocket): Promise<void> {
  socket.send('qSupported:multiprocess+');
  while (!(await socket.receive(GREETING)).startsWith('PacketSize='));
}

/** Removes every watchpoint and lets the guest run. It stands still. */
export async function detach(socket: GdbSocket): Promise<void> {
  const answer = await socket.ask('D;1');
  if (answer !== 'OK')
    throw new VmiError('VMI_UNSUPPORTED', `QEMU's debug stub does not detach: '${answer}'`);
}

/**
 * Frees a guest from a stub whose client is gone or does not attend to it: watchpoints stay when a
 * connection ends and when the stub is turned off, and the next one of them stops the guest for
 * good. Only a debugger that detaches removes them, so this is one.
 */
export async function freeFromStub(access: MonitorAccess, path: string): Promise<void> {
  await access.use(async (monitor) => {
    const stub = await findStub(monitor);
    // Somebody else's by now: they detach.
    if (stub !== undefined && !stub.includes(path)) return;
    // Its client may be there still, and not attend to it. One stub has one client.
    if (stub !== undefined) await stopStub(monitor);
    rmSync(path, { force: true });
    await startStub(monitor, path);
    const socket = await GdbSocket.open(path);
    try {
      await greet(socket);
      await detach(socket);
    } finally {
      socket.close();
      await stopStub(monitor);
      rmSync(path, { force: true });
    }
    if (await isStopped(monitor)) await monitor.execute('cont');
  });
}

/** Whether a guest stands still at a breakpoint or watchpoint. */
export function isStoppedByStub(access: MonitorAccess): Promise<boolean> {
  return access.use(isStopped);
}

async function isStopped(monitor: Monitor): Promise<boolean> {
  const { status } = (await monitor.execute('query-status')) as { status: string };
  return status === STOPPED_BY_STUB;
}
