import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { QmpClient } from '../../../lib/memory/qemu/qmp.js';

const GREETING = { QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 } }, capabilities: [] } };
interface Command {
  readonly execute: string;
  readonly id: number;
}

describe('a QMP client', () => {
  const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-test-'));
  const path = join(folder, 'qmp');
  /** Commands as they came. */
  let commands: Command[] = [];
  let peer: Socket | undefined;
  /** What the server does with a command. */
  let answer: (command: Command, say: (message: object) => void) => void = () => {};
  const server = createServer((socket) => {
    peer = socket;
    const say = (message: object) => socket.write(`${JSON.stringify(message)}\r\n`);
    say(GREETING);
    socket.setEncoding('utf8').on('data', (text: string) => {
      for (const line of text.split('\n').filter(Boolean)) {
        const command = JSON.parse(line) as Command;
        commands.push(command);
        answer(command, say);
      }
    });
  });

  beforeEach(async () => {
    commands = [];
    await new Promise<void>((resolve) => server.listen(path, resolve));
  });
  afterEach(async () => {
    peer?.destroy();
    await new Promise((resolve) => server.close(resolve));
    rmSync(path, { force: true });
  });

  afterAll(() => rmSync(folder, { recursive: true }));

  it('waits for no answer but its own', async () => {
    // Nothing is answered before all has come.
    answer = (_, say) => {
      if (commands.length < 3) return;
      for (const { execute, id } of commands) say({ return: execute === 'qmp_capabilities' ? {} : id, id });
    };
    const client = await QmpClient.open(path);
    expect(client.version).toBe('7.2.22');
    expect(await Promise.all([client.execute('query-status'), client.execute('query-kvm')])).toEqual([2, 3]);
    expect(commands.map(({ execute }) => execute)).toEqual(['qmp_capabilities', 'query-status', 'query-kvm']);
    client.close();
  });

  it('says why when its greeting is refused', async () => {
    answer = ({ execute, id }, say) => {
      if (execute === 'qmp_capabilities') say({ id, error: { class: 'GenericError', desc: 'not today' } });
    };
    const client = await QmpClient.open(path);
    await expect(client.execute('query-status')).rejects.toMatchObject({
      code: 'VMI_UNSUPPORTED',
      message: "QEMU refused 'qmp_capabilities': not today",
    });
    await expect(client.human('info mtree -f')).rejects.toMatchObject({ code: 'VMI_UNSUPPORTED' });
    client.close();
  });
});
