// @ts-check
/** The RAM of a real, small guest, kept in the lab's cache: what hostile guests are made from. */
import { copyFile, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cached, cacheFolder, exists } from '../lab/cache.mjs';
import { bootGuest } from '../lab/guest.mjs';
import { kernel } from '../lab/kernel.mjs';
import { run } from '../lab/run.mjs';

/**
 * @typedef {object} GuestImage
 * @property {string} ram path of the raw RAM file; never to be written to
 * @property {string} release
 * @property {{ vcpu: number, cr0: bigint, cr3: bigint, cr4: bigint, rip: bigint, efer: bigint }[]}
 *   registers of its CPUs
 * @property {number[]} pids of every task and thread, by the oracle
 */

/** Bumped when what is in the folder changes. */
const FORM = 1;
/** CR0 of any Linux in 64-bit mode: PG, WP, PE. SDM vol. 3A, 2.5. */
const CR0 = 0x8001_0001n;

/** @param {string} release */
const folderOf = (release) => join(cacheFolder(), 'images', `${release}-${FORM}`);

/**
 * Whether an image of a guest of this suite is there already.
 *
 * @param {string} suite
 */
export async function hasGuestImage(suite) {
  // Asking for a kernel that is not there would fetch it.
  if (!(await exists(join(cacheFolder(), 'kernels', `${suite}-cloud`)))) return false;
  try {
    const { release } = await kernel({ suite, flavour: 'cloud' });
    return await exists(join(folderOf(release), 'ram'));
  } catch {
    return false;
  }
}

/**
 * Boots a guest of 256 MiB, halts it, and keeps its RAM; later calls find it there.
 *
 * @param {string} suite
 * @returns {Promise<GuestImage>}
 */
export async function guestImage(suite = 'bookworm') {
  const { release } = await kernel({ suite, flavour: 'cloud' });
  const folder = folderOf(release);
  await cached(folder, async (temporary) => {
    await mkdir(temporary, { recursive: true });
    const guest = await bootGuest({
      suite,
      flavour: 'cloud',
      backend: 'file',
      memory: 256,
      cpus: 2,
      tasks: 20,
    });
    try {
      const truth = await guest.truth({ freeze: 'halt' });
      await guest.stop();
      await copySparse(/** @type {string} */ (guest.memoryPath), join(temporary, 'ram'));
      const registers = truth.cpus.map(({ cr3, cr4 }, vcpu) => ({
        vcpu,
        cr3: String(cr3),
        cr4: String(cr4),
      }));
      const pids = truth.tasks
        .filter(({ kind }) => kind === 'process' || kind === 'thread')
        .map(({ pid }) => pid);
      await writeFile(join(temporary, 'facts.json'), JSON.stringify({ registers, pids }));
    } finally {
      await guest.close();
    }
  });
  const facts = JSON.parse(await readFile(join(folder, 'facts.json'), 'utf8'));
  return {
    ram: join(folder, 'ram'),
    release,
    registers: facts.registers.map(
      (/** @type {{ vcpu: number, cr3: string, cr4: string }} */ { vcpu, cr3, cr4 }) => ({
        vcpu,
        cr0: CR0,
        cr3: BigInt(cr3),
        cr4: BigInt(cr4),
        rip: 0n,
        efer: 0n,
      }),
    ),
    pids: facts.pids,
  };
}

/**
 * Copies a file with its holes, by reference where the file system can.
 *
 * @param {string} from
 * @param {string} to
 */
export async function copySparse(from, to) {
  const temporary = `${to}.part`;
  await run('cp', ['--reflink=auto', '--sparse=always', from, temporary]).catch(() =>
    copyFile(from, temporary),
  );
  await rename(temporary, to);
}
