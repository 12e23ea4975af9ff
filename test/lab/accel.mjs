// @ts-check
/** Which accelerator really runs a guest on this host. */
import { spawn } from 'node:child_process';
import { access, constants, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cached, cacheFolder } from './cache.mjs';

/** How long a kernel under KVM may take to its first line, in ms. */
const FIRST_LINE = 6000;

/**
 * Returns `kvm` where a kernel really starts with it, else `tcg` (emulation). A `/dev/kvm` that
 * opens is not enough: nested hosts have ones on which a guest hangs. Tried once per boot of the
 * host; `NODE_LIBVMI_LAB_ACCEL` overrides.
 *
 * @param {string} vmlinuz a kernel to try with
 * @param {import('./run.mjs').Log} log
 * @returns {Promise<'kvm' | 'tcg'>}
 */
export async function accelerator(vmlinuz, log) {
  const own = process.env.NODE_LIBVMI_LAB_ACCEL;
  if (own) return /** @type {'kvm' | 'tcg'} */ (own);
  if (
    !(await access('/dev/kvm', constants.R_OK | constants.W_OK).then(
      () => true,
      () => false,
    ))
  )
    return 'tcg';
  const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
  const path = await cached(join(cacheFolder(), 'accelerator', boot), async (temporary) => {
    const works = await starts(vmlinuz);
    log(works ? 'KVM works' : 'KVM does not run a guest here: emulating');
    await writeFile(temporary, works ? 'kvm' : 'tcg');
  });
  return /** @type {'kvm' | 'tcg'} */ (await readFile(path, 'utf8'));
}

/**
 * Boots a kernel with KVM until it prints something.
 * @param {string} vmlinuz
 * @returns {Promise<boolean>}
 */
function starts(vmlinuz) {
  return new Promise((resolve) => {
    const child = spawn(
      'setpriv',
      [
        '--pdeathsig=KILL',
        'qemu-system-x86_64',
        '-nodefaults',
        '-display',
        'none',
        '-no-reboot',
        '-accel',
        'kvm',
        '-cpu',
        'max',
        '-m',
        '256',
        '-kernel',
        vmlinuz,
        '-append',
        'earlyprintk=ttyS0 console=ttyS0 panic=-1',
        '-serial',
        'stdio',
      ],
      { stdio: ['ignore', 'pipe', 'ignore'] },
    );
    const timer = setTimeout(() => end(false), FIRST_LINE);
    /** @param {boolean} works */
    const end = (works) => {
      clearTimeout(timer);
      child.kill('SIGKILL');
      resolve(works);
    };
    child.stdout.on('data', (data) => {
      if (data.includes('\n')) end(true);
    });
    child.on('error', () => end(false));
    child.on('exit', () => end(false));
  });
}
