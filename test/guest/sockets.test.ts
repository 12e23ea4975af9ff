import { createServer } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { attach } from '../../lib/index.js';
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
