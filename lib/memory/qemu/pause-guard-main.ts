import type { MonitorAccess } from './monitor.js';
import { QmpSocket } from './qmp.js';
import { LibvirtDomain } from './virsh.js';

/** How often a monitor that is still held by the process that ended is tried again, milliseconds. */
const RETRY = 50;
const MAX_TRIES = 100;

/** Waits for the end of standard input; without a word before it, resumes the guest. */
async function main(access: MonitorAccess): Promise<void> {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
  process.stdout.write('ready\n');
  let said = '';
  for await (const chunk of process.stdin) said += String(chunk);
  if (said.startsWith('resumed')) return;
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    try {
      await access.use((monitor) => monitor.execute('cont'));
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, RETRY));
    }
  }
}

/** The same access as the one that has these {@link MonitorAccess.words}. */
function accessOf([kind = '', ...words]: readonly string[]): MonitorAccess {
  const [first = '', second = ''] = words;
  return kind === 'libvirt' ? new LibvirtDomain(first, second) : new QmpSocket(first);
}

await main(accessOf(process.argv.slice(2)));
