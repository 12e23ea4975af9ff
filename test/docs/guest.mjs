// @ts-check
/** The guest that the documentation's commands are run on. */
import { bootGuest } from '../lab/guest.mjs';

/** @returns {Promise<import('../lab/guest.mjs').LabGuest>} */
export async function docsGuest() {
  const lab = await bootGuest({
    suite: 'bookworm',
    flavour: 'cloud',
    backend: 'file',
    memory: 256,
    cpus: 2,
    tasks: 5,
  });
  await lab.shell('ifconfig lo up; nc -l -p 4444 </dev/null >/dev/null 2>&1 & sleep 1');
  return lab;
}
