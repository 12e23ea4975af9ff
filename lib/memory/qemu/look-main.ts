import type { GuardWords } from '../pause-guard.js';
import type { MonitorAccess } from './monitor.js';

/** What a monitor says of its guest at one moment. */
export interface MonitorWords {
  /** `info mtree -f` */
  readonly tree: string;
  /** `info registers -a` */
  readonly registers: string;
  readonly running: boolean;
}

/** The program: asks a monitor and prints {@link MonitorWords} as JSON. */
async function main(words: GuardWords): Promise<void> {
  const access = await accessOf(words);
  const said = await access.use(async (monitor): Promise<MonitorWords> => {
    const [tree, registers, status] = await Promise.all([
      monitor.human('info mtree -f'),
      monitor.human('info registers -a'),
      monitor.execute('query-status'),
    ]);
    return { tree, registers, running: (status as { running?: boolean }).running === true };
  });
  process.stdout.write(JSON.stringify(said));
}

/** Loads only what it takes: somebody waits. */
async function accessOf(words: GuardWords): Promise<MonitorAccess> {
  switch (words[0]) {
    case 'qmp': {
      const { QmpSocket } = await import('./qmp.js');
      return new QmpSocket(words[1]);
    }
    case 'libvirt': {
      const { LibvirtDomain } = await import('./virsh.js');
      return new LibvirtDomain(words[1], words[2]);
    }
    case 'libvmi':
    case 'stub':
      throw new Error('that is no monitor');
  }
}

await main(process.argv.slice(2) as unknown as GuardWords);
