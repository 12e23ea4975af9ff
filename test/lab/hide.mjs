// @ts-check
/**
 * Takes away from a stopped guest what its kernel tells of itself: its types (BTF), its symbols
 * (kallsyms).
 *
 * Overwritten in the RAM of the QEMU process, through /proc; the guest must not run afterwards.
 */
import { open, readFile } from 'node:fs/promises';

/** @typedef {'btf' | 'kallsyms'} Hidden */
/** What can be hidden. @type {readonly Hidden[]} */
export const HIDEABLE = ['btf', 'kallsyms'];

/** Bytes that are overwritten: without the start nobody finds the rest. */
const LENGTH = 32;
/** Mappings of a process that may be guest RAM. */
const LEAST_RAM = 64 << 20;
/** Where RAM goes on above the hole below 4 GiB, bytes; machine types differ in where it begins. */
const HOLES = [0, 2 ** 32 - 2 ** 31, 2 ** 32 - 3 * 2 ** 30, 2 ** 32 - 3.5 * 2 ** 30];
/** How a table of kallsyms' tokens goes on: the digits, each a text of its own. */
const TOKENS = Buffer.from([...'0123456789'].map((digit) => `${digit}\0`).join(''), 'latin1');

/**
 * @param {import('node-libvmi').Guest} guest
 * @param {number} pid of QEMU
 * @param {Hidden} what
 * @param {bigint} btf physical address of the kernel's BTF
 */
export async function hide(guest, pid, what, btf) {
  // Whatever has digits like these: the table itself, and what the decompressor left of it.
  const places = what === 'btf' ? [btf] : await guest.memory.scan(TOKENS, { max: 4096 });
  const file = await open(`/proc/${pid}/mem`, 'r+');
  try {
    const maps = await mappings(pid);
    for (const place of places) {
      const bytes = guest.memory.read(place, LENGTH);
      if (bytes.every((byte) => byte === 0)) continue;
      const at = await find(file, maps, Number(place), bytes);
      await file.write(Buffer.alloc(LENGTH), 0, LENGTH, at);
    }
  } finally {
    await file.close();
  }
}

/** @typedef {{ start: number, length: number }} Mapping */

/** Large mappings of a process. @param {number} pid @returns {Promise<Mapping[]>} */
async function mappings(pid) {
  const lines = (await readFile(`/proc/${pid}/maps`, 'latin1')).split('\n');
  return lines
    .map((line) => /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(line))
    .filter((match) => match !== null)
    .map(([, from, to]) => ({ start: parseInt(from ?? '', 16), end: parseInt(to ?? '', 16) }))
    .map(({ start, end }) => ({ start, length: end - start }))
    .filter(({ length }) => length >= LEAST_RAM);
}

/**
 * Where some bytes of guest RAM are in the process.
 *
 * @param {import('node:fs/promises').FileHandle} file
 * @param {readonly Mapping[]} maps
 * @param {number} place guest-physical
 * @param {Buffer} bytes
 */
async function find(file, maps, place, bytes) {
  for (const { start, length } of maps) {
    for (const hole of HOLES) {
      const offset = place - hole;
      if (offset < 0 || offset + LENGTH > length) continue;
      const { buffer } = await file.read(Buffer.alloc(LENGTH), 0, LENGTH, start + offset);
      if (buffer.equals(bytes)) return start + offset;
    }
  }
  throw new Error(`0x${place.toString(16)} is in no mapping of QEMU`);
}
