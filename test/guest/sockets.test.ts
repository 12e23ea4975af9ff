import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { attach, listGuests } from '../../lib/index.js';
import { compareTasks } from '../lab/compare.mjs';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';

/** A port that nobody listens on. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

describe('a monitor that is no UNIX socket of lines', () => {
  let lab: LabGuest;
  afterEach(() => lab?.close());

  it.each(['-qmp', '-qmp-pretty'])('%s on a TCP port', async (option) => {
    const port = await freePort();
    lab = await bootGuest({
      suite: 'bookworm',
      flavour: 'cloud',
      cpus: 1,
      qmp: false,
      extraArgs: [option, `tcp:127.0.0.1:${port},server=on,wait=off`],
    });
    for (const target of [`qemu:${lab.pid}`, `qmp:tcp:127.0.0.1:${port}`]) {
      const guest = await attach(target);
      expect(guest.capabilities.registers, target).toBe(true);
      expect(await guest.registers()).toHaveLength(1);
      expect(guest.tasks().length).toBeGreaterThan(50);
      const pause = await guest.pause();
      await pause.resume();
      await guest.close();
    }
  });
});

const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-sockets-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A QEMU whose files nobody else sees, with two NUMA nodes, and one monitor. */
describe('a QEMU in a file system of its own', () => {
  let lab: LabGuest;
  afterEach(() => lab?.close());

  it('is reached through its root, and without its monitor when another client holds that', async () => {
    const socket = join(folder, 'only-there');
    lab = await bootGuest({
      suite: 'bookworm',
      flavour: 'cloud',
      numa: 2,
      qmp: false,
      privateFolder: folder,
      extraArgs: ['-qmp', `unix:${socket},server=on,wait=off`],
    });
    const truth = await lab.truth({ freeze: 'halt' });
    await lab.stop();
    const through = `/proc/${lab.pid}/root${socket}`;
    expect(listGuests().find(({ pid }) => pid === lab.pid)).toMatchObject({
      memory: 512 << 20,
      qmpSockets: [through],
    });
    const isRight = async (target: string, registers: boolean) => {
      const guest = await attach(target, { cache: false });
      expect(guest.capabilities.registers, target).toBe(registers);
      const tasks = guest.tasks({ threads: true }).map((task) => task.toJSON());
      expect(compareTasks(truth, tasks), target).toEqual([]);
      const { description } = guest.memory;
      await guest.close();
      return description;
    };
    for (const target of [`qemu:${lab.pid}`, `qmp:${through}`]) await isRight(target, true);
    const holder = connect(through);
    await new Promise((resolve) => holder.once('data', resolve));
    const description = await isRight(`qemu:${lab.pid}`, false);
    expect(description).toMatch(/no registers and no pause: .* another client holds it/);
    expect(description).toContain("a second '-qmp unix:PATH,server=on,wait=off'");
    holder.destroy();
  });
});

describe('a QEMU that runs no guest yet', () => {
  let qemu: ChildProcess;
  afterEach(() => qemu?.kill('SIGKILL'));
  const start = (...args: string[]) => {
    const none = ['-nodefaults', '-no-user-config', '-display', 'none', '-accel', 'tcg'];
    qemu = spawn('qemu-system-x86_64', [...none, ...args], { stdio: 'inherit' });
    return qemu.pid!;
  };
  const listed = (pid: number) => listGuests().find((guest) => guest.pid === pid);
  const until = async (isSo: () => boolean) => {
    for (let i = 0; i < 600 && !isSo(); i++) await sleep(50);
    expect(isSo()).toBe(true);
  };

  it('waits for its first client, and is not let go unasked', async () => {
    const socket = join(folder, 'waits');
    const pid = start('-m', '64', '-qmp', `unix:${socket},server=on,wait=on`);
    await until(() => listed(pid)?.qmpSockets.length === 1);
    expect(listed(pid)).toMatchObject({ memory: null });
    await expect(attach(`qemu:${pid}`)).rejects.toMatchObject({
      code: 'VMI_ATTACH',
      message: expect.stringContaining('(wait=on) before it starts its guest'),
    });
    await sleep(200);
    expect(listed(pid)).toMatchObject({ memory: null });
    // Who names the socket asks for it.
    await expect(attach(`qmp:${socket}`)).rejects.toMatchObject({ code: 'VMI_ATTACH' });
    await until(() => listed(pid)?.memory === 64 << 20);
  });

  it('was never started, by a configuration file', async () => {
    const config = join(folder, 'config');
    const socket = join(folder, 'stopped');
    writeFileSync(
      config,
      `[machine]\n  type = "q35"\n[memory]\n  size = "96M"\n[name]\n  guest = "by file"\n` +
        `[chardev "c"]\n  backend = "socket"\n  path = "${socket}"\n  server = "on"\n  wait = "off"\n` +
        `[mon "m"]\n  mode = "control"\n  chardev = "c"\n`,
    );
    const pid = start('-S', '-readconfig', config);
    await until(() => listed(pid)?.qmpSockets.length === 1);
    expect(listed(pid)).toMatchObject({
      name: 'by file',
      machine: 'q35',
      memory: 96 << 20,
      qmpSockets: [socket],
    });
    await expect(attach(`qemu:${pid}`)).rejects.toMatchObject({
      code: 'VMI_ATTACH',
      message: expect.stringContaining('its guest was never started'),
    });
  });
});
