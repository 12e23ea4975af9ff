import { rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { type AccessWords, BEAT, type GuardWords, RESUMED } from './guard-words.js';
import type { MonitorAccess } from './qemu/monitor.js';
import { Watchdog } from './watchdog.js';

/**
 * How often a monitor that is still held by the process that ended is tried again, milliseconds.
 */
const RETRY = 50;
const MAX_TRIES = 100;

/**
 * Waits for the end of standard input; without a word before it, resumes the guest. Whoever uses a
 * debug stub says a word now and then as well: while it says none, as when it is stopped itself,
 * nobody would let the guest go from its next stop.
 */
async function main(words: GuardWords): Promise<void> {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
  process.stdout.write('ready\n');
  const watchdog = words[0] === 'stub' ? stubWatchdog(words) : undefined;
  let said = '';
  try {
    for await (const chunk of process.stdin) {
      said = `${said}${chunk}`.slice(-RESUMED.length);
      watchdog?.heard(said.endsWith(BEAT));
    }
    await watchdog?.stop();
    if (said !== RESUMED) await insist(words);
  } finally {
    // The folder is of the stub that this guards, and of that alone.
    if (words[0] === 'stub') rmSync(dirname(words[1]), { recursive: true, force: true });
  }
}

function stubWatchdog([, path, ...access]: Extract<GuardWords, readonly ['stub', ...unknown[]]>) {
  return new Watchdog(() => freeStopped(path, access));
}

async function freeStopped(path: string, access: AccessWords): Promise<void> {
  const { freeFromStub, isStoppedByStub } = await import('./qemu/stub-control.js');
  const monitor = await monitorOf(access);
  if (await isStoppedByStub(monitor)) await freeFromStub(monitor, path);
}

async function insist(words: GuardWords): Promise<void> {
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    try {
      await resume(words);
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, RETRY));
    }
  }
}

/** Loads only what it takes: a guard is to be ready soon. */
async function resume(words: GuardWords): Promise<void> {
  switch (words[0]) {
    case 'qmp':
    case 'libvirt': {
      const access = await monitorOf(words);
      await access.use((monitor) => monitor.execute('cont'));
      return;
    }
    case 'stub': {
      const { freeFromStub } = await import('./qemu/stub-control.js');
      const [, path, ...rest] = words;
      await freeFromStub(await monitorOf(rest), path);
      return;
    }
    case 'libvmi': {
      const { LibvmiSession } = await import('../libvmi/session.js');
      const library = words[3] === '' ? undefined : words[3];
      const session = await LibvmiSession.open({ driver: words[1], name: words[2], library });
      try {
        const { failed } = await session.call('vmi_resume_vm');
        if (failed) throw new Error('libvmi cannot resume the guest');
      } finally {
        await session.close();
      }
    }
  }
}

async function monitorOf(words: AccessWords): Promise<MonitorAccess> {
  if (words[0] === 'qmp') {
    const { QmpSocket } = await import('./qemu/qmp.js');
    return new QmpSocket(words[1]);
  }
  const { LibvirtDomain } = await import('./qemu/virsh.js');
  return new LibvirtDomain(words[1], words[2]);
}

await main(process.argv.slice(2) as unknown as GuardWords);
