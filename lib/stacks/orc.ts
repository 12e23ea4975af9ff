import { wrap } from '../address.js';
import { CorruptError } from '../errors.js';
import type { Member } from '../kernel/types/table.js';
import type { KernelObjects } from '../objects/kernel-objects.js';

/*
 * ORC: for each place in the kernel's text, where the caller's frame is. Two tables of the same
 * length lie in the image: `__start_orc_unwind_ip`, ascending places as signed 32-bit distances
 * from the entry itself, and `__start_orc_unwind`, one `struct orc_entry` of 6 bytes for each: two
 * signed offsets, and bits for the register each offset counts from and the type of frame. Source:
 * arch/x86/include/asm/orc_types.h, arch/x86/kernel/unwind_orc.c,
 * Documentation/arch/x86/orc-unwinder.rst.
 */

/** What an offset counts from. */
export type OrcRegister = 'undefined' | 'sp' | 'bp' | 'previous-sp' | 'sp-indirect' | 'bp-indirect';

/** ORC_REG_… as they were numbered up to 7.1. Those of saved registers are of no use here. */
const REGISTERS: ReadonlyMap<number, OrcRegister> = new Map([
  [0, 'undefined'],
  [1, 'previous-sp'],
  [4, 'bp'],
  [5, 'sp'],
  [8, 'bp-indirect'],
  [9, 'sp-indirect'],
]);

export type OrcType = 'call' | 'regs' | 'partial' | 'end' | 'undefined';

/** How to find the frame that called a place. */
export interface OrcEntry {
  readonly spOffset: number;
  readonly bpOffset: number;
  readonly spReg: OrcRegister;
  readonly bpReg: OrcRegister;
  readonly type: OrcType;
  /**
   * Whether the place was interrupted, so that its own address is looked up, not the one before it.
   */
  readonly signal: boolean;
}

const ENTRY = 6;
/** Most entries: distributions' kernels have some 450,000. */
const MAX_ENTRIES = 1 << 23;
/**
 * Types by number since commit fb799447ae29 (6.4), and before it, when `end` was a bit of its own.
 */
const TYPES: readonly OrcType[] = ['undefined', 'end', 'call', 'regs', 'partial'];
const OLD_TYPES: readonly OrcType[] = ['call', 'regs', 'partial'];

/** The ORC tables of one kernel image, or of one module. */
export class OrcTable {
  /** Places, ascending, as distances from `base`. */
  readonly #places: Int32Array;
  readonly #base: bigint;
  readonly #entries: Buffer;
  readonly #bits: FlagBits;
  /** What each number of a register means; a module's table has those of the kernel. */
  readonly registers: ReadonlyMap<number, OrcRegister>;

  constructor(
    { places, base, entries }: Tables,
    bits: FlagBits,
    registers?: ReadonlyMap<number, OrcRegister>,
  ) {
    this.#places = places;
    this.#base = base;
    this.#entries = entries;
    this.#bits = bits;
    this.registers = registers ?? learnRegisters(entries, bits);
  }

  /** The entry for a place; `undefined` before the first one. */
  find(address: bigint): OrcEntry | undefined {
    const distance = BigInt.asIntN(64, address - this.#base);
    const places = this.#places;
    if (distance < -0x8000_0000n || distance > 0x7fff_ffffn) return undefined;
    const wanted = Number(distance);
    let low = 0;
    let high = places.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (places[middle]! <= wanted) low = middle + 1;
      else high = middle;
    }
    return low === 0 ? undefined : this.#entry(low - 1);
  }

  #entry(index: number): OrcEntry {
    const at = index * ENTRY;
    const entries = this.#entries;
    const flags = entries.readUInt16LE(at + 4);
    const { spReg, bpReg, type, end, signal } = this.#bits;
    const number = field(flags, type);
    const named: OrcType | undefined =
      end === undefined ? TYPES[number] : field(flags, end) === 1 ? 'end' : OLD_TYPES[number];
    return {
      spOffset: entries.readInt16LE(at),
      bpOffset: entries.readInt16LE(at + 2),
      spReg: this.registers.get(field(flags, spReg)) ?? 'undefined',
      bpReg: this.registers.get(field(flags, bpReg)) ?? 'undefined',
      type: named ?? 'undefined',
      // Before there was a bit for it, frames with saved registers were all interrupted ones.
      signal: signal === undefined ? named !== 'call' : field(flags, signal) === 1,
    };
  }
}

interface Tables {
  readonly places: Int32Array;
  readonly base: bigint;
  readonly entries: Buffer;
}

/**
 * The numbers of registers, by how a kernel uses them: 7.2 numbers them anew. Each function is
 * entered with its return address on top of the stack, so that what counts 8 from the caller's
 * frame, more often than anything else does, is SP. One that pushed BP and set it to SP counts 16
 * from BP, and its caller's BP is 16 below the frame that SP had.
 */
function learnRegisters(entries: Buffer, bits: FlagBits): ReadonlyMap<number, OrcRegister> {
  const atEntry = new Uint32Array(16);
  const withFrame = new Uint32Array(16);
  const saved = new Uint32Array(16);
  for (let at = 0; at + ENTRY <= entries.length; at += ENTRY) {
    const flags = entries.readUInt16LE(at + 4);
    const spOffset = entries.readInt16LE(at);
    if (spOffset === 8) atEntry[field(flags, bits.spReg)]!++;
    if (spOffset === 16 && entries.readInt16LE(at + 2) === -16) {
      withFrame[field(flags, bits.spReg)]!++;
      saved[field(flags, bits.bpReg)]!++;
    }
  }
  const most = (counts: Uint32Array) => counts.indexOf(Math.max(...counts));
  const sp = most(atEntry);
  withFrame[sp] = 0;
  const learnt = { sp, bp: most(withFrame), previous: most(saved) };
  const known = (number: number) => REGISTERS.get(number);
  if (known(sp) === 'sp' && known(learnt.previous) === 'previous-sp') return REGISTERS;
  return new Map<number, OrcRegister>([
    [learnt.bp, 'bp'],
    [learnt.sp, 'sp'],
    [learnt.previous, 'previous-sp'],
  ]);
}

/** Where the bits of an entry's flags are, by the kernel's own types. */
export interface FlagBits {
  readonly spReg: Bits;
  readonly bpReg: Bits;
  readonly type: Bits;
  readonly end: Bits | undefined;
  readonly signal: Bits | undefined;
}
interface Bits {
  readonly shift: number;
  readonly mask: number;
}

/** @throws {VmiError} `VMI_TYPE`: a kernel without ORC */
export function flagBits(objects: KernelObjects): FlagBits {
  const struct = objects.types.struct('orc_entry');
  const bits = (member: Member): Bits => ({
    shift: member.bitOffset - 32,
    mask: (1 << (member.bitSize ?? 1)) - 1,
  });
  const optional = (name: string) => {
    const member = struct.findMember(name);
    return member === undefined ? undefined : bits(member);
  };
  return {
    spReg: bits(struct.member('sp_reg')),
    bpReg: bits(struct.member('bp_reg')),
    type: bits(struct.member('type')),
    end: optional('end'),
    signal: optional('signal'),
  };
}

/** The tables of the kernel's image; `undefined` for a kernel without. @throws {CorruptError} */
export function readOrc(objects: KernelObjects, bits: FlagBits): OrcTable | undefined {
  const { symbols } = objects;
  const ips = symbols.find('__start_orc_unwind_ip');
  const end = symbols.find('__stop_orc_unwind_ip');
  const entries = symbols.find('__start_orc_unwind');
  if (ips === undefined || end === undefined || entries === undefined) return undefined;
  return orcTable(objects, { ips, entries, count: Number(end - ips) / 4 }, bits);
}

interface Where {
  readonly ips: bigint;
  readonly entries: bigint;
  readonly count: number;
}

/**
 * Two tables at given addresses, as a module has them.
 * @throws {CorruptError}
 * @throws {FaultError}
 */
export function orcTable(
  { memory }: KernelObjects,
  { ips, entries, count }: Where,
  bits: FlagBits,
  registers?: ReadonlyMap<number, OrcRegister>,
): OrcTable {
  if (!Number.isInteger(count) || count < 0 || count > MAX_ENTRIES) {
    throw new CorruptError(`the ORC table has ${count} entries`, ips);
  }
  const raw = memory.read(ips, count * 4);
  const places = new Int32Array(count);
  for (let i = 0; i < count; i++) places[i] = raw.readInt32LE(i * 4) + i * 4;
  const tables = { places, base: wrap(ips), entries: memory.read(entries, count * ENTRY) };
  return new OrcTable(tables, bits, registers);
}

function field(flags: number, { shift, mask }: Bits): number {
  return (flags >>> shift) & mask;
}
