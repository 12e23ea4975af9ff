// @ts-check
/** Runs before `npm test`: the project built, the guests' kernels fetched, their oracles built. */
import { setUpProject } from './setup.mjs';

/** @param {string} message */
const log = (message) => console.error(`• ${message}`);

try {
  setUpProject(log);
  const { kernel } = await import('./lab/kernel.mjs');
  const { ensureHost } = await import('./lab/host.mjs');
  const { oracle } = await import('./lab/oracle.mjs');
  await ensureHost({ log });
  for (const suite of ['bookworm', 'trixie'])
    await oracle(await kernel({ suite, flavour: 'cloud', log }), { log });
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
