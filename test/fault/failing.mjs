// @ts-check
/** Builds the libvmi whose reads fail when told to (failing.c), and gives the orders. */
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const SOURCE = fileURLToPath(new URL('failing.c', import.meta.url));
/** Fails every read from a point on. */
export const FOR_EVER = 1_000_000_000;

/**
 * @param {import('../hostile/image.mjs').GuestImage} image
 * @param {Record<'CR0' | 'CR3' | 'CR4', number>} registers libvmi's numbers of them
 */
export function failingLibrary(image, registers) {
  const folder = mkdtempSync(join(tmpdir(), 'node-libvmi-fault-'));
  const library = join(folder, 'failing.so');
  const { cr0, cr3, cr4 } = image.registers[0] ?? { cr0: 0n, cr3: 0n, cr4: 0n };
  const numbers = /** @type {const} */ (['CR0', 'CR3', 'CR4']).map(
    (name) => `-DFAILING_${name}=${registers[name]}`,
  );
  const flags = ['-Wall', '-Wextra', '-O1', '-shared', '-fPIC'];
  execFileSync('cc', [...flags, ...numbers, '-o', library, SOURCE]);
  const control = openSync(join(folder, 'control'), 'w+');
  process.env.FAILING_CONTROL = join(folder, 'control');
  process.env.FAILING_REGISTERS = [cr0, cr3, cr4].join();

  /**
   * Fails `count` reads from the `first` on (0: none), whole or short; returns the reads since the
   * last order.
   *
   * @param {number} [first]
   * @param {number} [count]
   * @param {boolean} [short]
   */
  const order = (first = 0, count = 1, short = false) => {
    const words = new BigUint64Array(4);
    readSync(control, words, 0, 8, 0);
    const reads = Number(words[0]);
    words.set([0n, BigInt(first), BigInt(count), short ? 1n : 0n]);
    writeSync(control, words, 0, 32, 0);
    return reads;
  };
  order();
  const close = () => {
    closeSync(control);
    delete process.env.FAILING_CONTROL;
    delete process.env.FAILING_REGISTERS;
    rmSync(folder, { recursive: true, force: true });
  };
  return { library, order, close };
}
