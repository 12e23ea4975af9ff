// @ts-check
/** Overwrites what begins at some places of an image of RAM. */
import { closeSync, openSync, writeSync } from 'node:fs';

/**
 * @param {string} ram
 * @param {readonly bigint[]} places physical, which is where they are in a raw image below 3 GiB
 */
export function wipe(ram, places) {
  const file = openSync(ram, 'r+');
  for (const place of places) writeSync(file, Buffer.alloc(32), 0, 32, Number(place));
  closeSync(file);
}
