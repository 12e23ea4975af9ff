import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { QmpClient } from '../../../lib/memory/qemu/qmp.js';

const GREETING = {
  QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 } }, capabilities: [] },
};
interface Command {
  readonly execute: string;
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
    // Nothing is answered before all has come, and events come in between.
    answer = (_, say) => {
      if (commands.length < 4) return;
      for (const { execute } of commands) {
        say({ event: 'STOP', timestamp: { seconds: 1, microseconds: 2 } });
        if (execute === 'quit') say({ error: { class: 'GenericError', desc: 'not today' } });
        else say({ return: `to ${execute}` });
      }
    };
    const client = await QmpClient.open(path);
    expect(client.version).toBe('7.2.22');
    const asked = ['query-status', 'quit', 'query-kvm'].map((command) => client.execute(command));
    expect(await Promise.allSettled(asked)).toEqual([
      { status: 'fulfilled', value: 'to query-status' },
      { status: 'rejected', reason: expect.objectContaining({ code: 'VMI_UNSUPPORTED' }) },
      { status: 'fulfilled', value: 'to query-kvm' },
    ]);
    expect(commands.map(({ execute }) => execute)).toEqual([
      'qmp_capabilities',
      'query-status',
      'quit',
      'query-kvm',
    ]);
    client.close();
  });

  it('sends no byte that is not needed', async () => {
    answer = (_, say) => say({ return: 'text' });
    const client = await QmpClient.open(path);
    expect(await client.human('info mtree -f')).toBe('text');
    expect(commands[1]).toEqual({
      execute: 'human-monitor-command',
      arguments: { 'command-line': 'info mtree -f' },
    });
    client.close();
  });

  it('says why when its greeting is refused', async () => {
    answer = ({ execute }, say) => {
      if (execute === 'qmp_capabilities')
        say({ error: { class: 'GenericError', desc: 'not today' } });
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
