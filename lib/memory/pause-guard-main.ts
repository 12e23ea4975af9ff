import { rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { type AccessWords, BEAT, type GuardWords, RESUMED } from './guard-words.js';
import type { MonitorAccess } from './qemu/monitor.js';

/**
 * How often a monitor that is still held by the process that ended is tried again, milliseconds.
 */
const RETRY = 50;
const MAX_TRIES = 100;
/** After how long without a word a user of a debug stub does not attend to it, milliseconds. */
const SILENCE = 3_000;
/** How often it is looked whether such a guest is stopped, milliseconds. */
const LOOK = 500;

/**
 * Waits for the end of standard input; without a word before it, resumes the guest. Whoever uses a
 * debug stub says a word now and then as well: while it says none, as when it is stopped itself,
 * nobody would let the guest go from its next stop.
 */
async function main(words: GuardWords): Promise<void> {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
  process.stdout.write('ready\n');
  const watchdog = words[0] === 'stub' ? new Watchdog(words[1], words.slice(2)) : undefined;
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

/** Frees a guest from a debug stub that nobody attends to. */
class Watchdog {
  readonly #path: string;
  readonly #access: AccessWords;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;

  constructor(path: string, access: readonly string[]) {
    this.#path = path;
    this.#access = access as unknown as AccessWords;
  }

  /** @param isBeat whether another word is to come within {@link SILENCE} */
  heard(isBeat: boolean): void {
    clearTimeout(this.#timer);
    this.#timer = isBeat ? setTimeout(() => this.#bark(), SILENCE) : undefined;
  }

  async stop(): Promise<void> {
    clearTimeout(this.#timer);
    await this.#looking;
    clearTimeout(this.#timer);
  }

  /** Looks until a word comes: the guest may run now and reach a stop later. */
  #bark(): void {
    this.#looking = this.#freeStopped()
      .catch(() => {})
      .then(() => {
        this.#timer = setTimeout(() => this.#bark(), LOOK);
      });
  }

  async #freeStopped(): Promise<void> {
    const { freeFromStub, isStoppedByStub } = await import('./qemu/stub-control.js');
    const access = await monitorOf(this.#access);
    if (await isStoppedByStub(access)) await freeFromStub(access, this.#path);
  }
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
