import { QmpClient } from './qmp.js';

/** How often a monitor that is still held by the process that ended is tried again, milliseconds. */
const RETRY = 50;
const MAX_TRIES = 100;

/** Waits for the end of standard input; without a word before it, resumes the guest behind the QMP socket given. */
async function main(socketPath: string): Promise<void> {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
  process.stdout.write('ready\n');
  let said = '';
  for await (const chunk of process.stdin) said += String(chunk);
  if (said.startsWith('resumed')) return;
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    try {
      await QmpClient.use(socketPath, (client) => client.execute('cont'));
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, RETRY));
    }
  }
}

await main(process.argv[2] ?? '');
