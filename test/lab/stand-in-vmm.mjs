// @ts-check
/** Processes that have the RAM of a guest laid out as VMMs do that do not run here. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { initramfsProgram } from './initramfs.mjs';
import { stderrLog } from './run.mjs';

/**
 * Starts one.
 *
 * @param {'two-blocks' | 'one-memfd' | 'with-hole'} layout
 * @param {string} ram a file of RAM as one block
 * @param {bigint} low bytes of it below 4 GiB
 * @returns {Promise<{ pid: number, end: () => Promise<void> }>}
 */
export async function startStandIn(layout, ram, low) {
  const program = await initramfsProgram('stand-in-vmm', stderrLog);
  const child = spawn(program, [layout, ram, String(low)], { stdio: ['pipe', 'pipe', 'inherit'] });
  const exit = once(child, 'exit');
  const [said] = await Promise.race([once(child.stdout, 'data'), exit]);
  if (!String(said).startsWith('ready')) throw new Error(`no stand-in for a VMM: ${said}`);
  return {
    pid: /** @type {number} */ (child.pid),
    async end() {
      child.stdin.end();
      await exit;
    },
  };
}
