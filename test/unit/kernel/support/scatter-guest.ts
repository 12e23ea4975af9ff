import { FakeMemory } from '../../support/fake-memory.js';
import { type BuiltGuest, buildGuest, IMAGE_LENGTH, RAM_LENGTH } from './build-guest.js';

const MIB = 1n << 20n;
const ENTRY = 0x67n;
/** Where the guest's frames begin in the machine: above 4 GiB, as they do. */
const MACHINE = 0x1_4800_0000n;
const FRAMES = (RAM_LENGTH << 20) / 4096;
/**
 * Odd, so that it permutes the frames: no two neighbours of the guest are neighbours in the
 * machine.
 */
const STEP = 4099;
/** What the guest calls physical: its list of frames, and its page tables. */
const LIST = 40n * MIB;
const TABLES = 44n * MIB;

/** Frames that the list has as the machine's own, given back, and another guest's. */
export const IDENTITY_PAGE = 0xa_0000n;
export const LOST_PAGE = 0x20_0000n;
export const FOREIGN_PAGE = 0x20_1000n;

/**
 * A guest of {@link buildGuest} as a PV guest of Xen: its frames all over the machine, and page
 * tables that hold those.
 */
export interface ScatteredGuest extends BuiltGuest {
  /** Machine address of what the guest calls physical. */
  machine(physical: bigint): bigint;
  /** Overwrites 8 bytes at what the guest calls a physical address. */
  write(physical: bigint, value: bigint): void;
}

export function scatterGuest(): ScatteredGuest {
  const pageOffset = 0xffff_8880_0000_0000n;
  const guest = buildGuest({ virtual: 0xffff_ffff_8100_0000n, pageOffset, vmcoreinfo: false });
  const { ram, root, virtual, physical } = guest;
  const machine = (address: bigint) =>
    MACHINE + BigInt((Number(address >> 12n) * STEP + 17) % FRAMES) * 4096n + (address & 0xfffn);

  ram.fill(0, Number(root), Number(root) + 4096);
  let free = TABLES;
  const map = (address: bigint, to: bigint) => {
    let table = root;
    for (let level = 4n; level > 1n; level--) {
      const slot = Number(table + ((address >> (12n + 9n * (level - 1n))) & 511n) * 8n);
      // Entries are kept as the guest counts until all are there.
      if (ram.readBigUInt64LE(slot) === 0n) {
        ram.writeBigUInt64LE(free | ENTRY, slot);
        free += 4096n;
      }
      table = ram.readBigUInt64LE(slot) & ~0xfffn;
    }
    ram.writeBigUInt64LE(to | ENTRY, Number(table + ((address >> 12n) & 511n) * 8n));
  };
  for (let at = 0n; at < IMAGE_LENGTH; at += 4096n) map(virtual + at, physical + at);
  for (let at = 0n; at < BigInt(ram.length); at += 4096n) {
    if (![IDENTITY_PAGE, LOST_PAGE, FOREIGN_PAGE].includes(at)) map(pageOffset + at, at);
  }
  const toMachine = (table: bigint) => {
    for (let at = table; at < table + 4096n; at += 8n) {
      const entry = ram.readBigUInt64LE(Number(at));
      if (entry !== 0n) ram.writeBigUInt64LE(machine(entry), Number(at));
    }
  };
  toMachine(root);
  for (let table = TABLES; table < free; table += 4096n) toMachine(table);

  for (let frame = 0n; frame < BigInt(FRAMES); frame++)
    ram.writeBigUInt64LE(machine(frame << 12n) >> 12n, Number(LIST + frame * 8n));
  const special = (page: bigint, entry: bigint) =>
    ram.writeBigUInt64LE(entry, Number(LIST + (page >> 12n) * 8n));
  special(IDENTITY_PAGE, (1n << 62n) | (IDENTITY_PAGE >> 12n));
  special(LOST_PAGE, 0xffff_ffff_ffff_ffffn);
  special(FOREIGN_PAGE, (1n << 63n) | 0x5n);
  ram.writeBigUInt64LE(pageOffset + LIST, guest.at('xen_p2m_addr'));
  ram.writeBigUInt64LE(BigInt(FRAMES), guest.at('xen_p2m_size'));

  const bytes = Buffer.alloc(ram.length);
  for (let frame = 0; frame < FRAMES; frame++) {
    const to = Number(machine(BigInt(frame) << 12n) - MACHINE);
    ram.copy(bytes, to, frame * 4096, (frame + 1) * 4096);
  }
  return {
    ...guest,
    memory: new FakeMemory({ physical: MACHINE, bytes }),
    root: machine(root),
    machine,
    write: (address, value) =>
      void bytes.writeBigUInt64LE(value, Number(machine(address) - MACHINE)),
  };
}
