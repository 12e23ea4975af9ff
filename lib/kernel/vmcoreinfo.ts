import { VmiError } from '../errors.js';
import type { PhysicalMemory } from '../memory/physical-memory.js';

/**
 * Bytes of the kernel's VMCOREINFO text at most: one page. include/linux/vmcore_info.h,
 * VMCOREINFO_BYTES.
 */
export const VMCOREINFO_BYTES = 4096;
const FIRST_KEY = Buffer.from('OSRELEASE=', 'latin1');
/**
 * Where the text starts in its page: the data page itself, and the ELF note made from it, behind a
 * 12-byte note header and the name `VMCOREINFO\0` padded to 12. kernel/vmcore_info.c,
 * update_vmcoreinfo_note().
 */
const PAGE_OFFSETS = [0x000, 0x018] as const;
/** Copies looked at: two a boot; a kernel that a warm reset left behind adds its own. */
const MAX_COPIES = 64;

/**
 * What a Linux kernel says about itself for crash dumps: `key=value` lines. kernel/vmcore_info.c.
 */
export interface Vmcoreinfo {
  /** Physical address of the text. */
  readonly address: bigint;
  readonly release: string;
  /** Hex, lower case; `undefined` where the kernel gives none. */
  readonly buildId: string | undefined;
  /** `SYMBOL(name)=`: addresses as they are in the running guest. */
  readonly symbols: ReadonlyMap<string, bigint>;
  /** `NUMBER(name)=`: signed. */
  readonly numbers: ReadonlyMap<string, bigint>;
  /** `KERNELOFFSET=`: how far KASLR moved the image. */
  readonly kernelOffset: bigint | undefined;
}

/**
 * Parses VMCOREINFO text, up to the first NUL.
 * @returns `undefined` when it is something else, or cut short before the keys that tell where the
 *   image is
 */
export function parseVmcoreinfo(bytes: Buffer, address = 0n): Vmcoreinfo | undefined {
  const nul = bytes.subarray(0, VMCOREINFO_BYTES).indexOf(0);
  const text = bytes.toString(
    'latin1',
    0,
    nul < 0 ? Math.min(bytes.length, VMCOREINFO_BYTES) : nul,
  );
  let release: string | undefined;
  let buildId: string | undefined;
  let kernelOffset: bigint | undefined;
  const symbols = new Map<string, bigint>();
  const numbers = new Map<string, bigint>();
  for (const line of text.split('\n')) {
    const split = line.indexOf('=');
    if (split < 0) continue;
    const key = line.slice(0, split);
    const value = line.slice(split + 1);
    const named = /^(SYMBOL|NUMBER)\(([\w.]+)\)$/.exec(key);
    if (named?.[1] === 'SYMBOL') {
      if (/^[0-9a-f]{1,16}$/.test(value)) symbols.set(named[2]!, BigInt(`0x${value}`));
    } else if (named?.[1] === 'NUMBER') {
      if (/^-?[0-9]{1,20}$/.test(value)) numbers.set(named[2]!, BigInt(value));
    } else if (key === 'OSRELEASE') {
      if (/^[\x21-\x7e]{1,64}$/.test(value)) release = value;
    } else if (key === 'BUILD-ID') {
      if (/^[0-9a-f]{16,64}$/.test(value)) buildId = value;
    } else if (key === 'KERNELOFFSET' && /^[0-9a-f]{1,16}$/.test(value)) {
      kernelOffset = BigInt(`0x${value}`);
    }
  }
  if (release === undefined || !symbols.has('_stext') || !numbers.has('phys_base'))
    return undefined;
  return { address, release, buildId, symbols, numbers, kernelOffset };
}

/** Reads and parses the copy at a physical address; `undefined` when there is none. */
export function vmcoreinfoAt(memory: PhysicalMemory, address: bigint): Vmcoreinfo | undefined {
  const bytes = Buffer.alloc(VMCOREINFO_BYTES);
  const read = memory.readInto(address, bytes);
  if (!bytes.subarray(0, FIRST_KEY.length).equals(FIRST_KEY)) return undefined;
  return parseVmcoreinfo(bytes.subarray(0, read), address);
}

/**
 * Finds every copy in guest RAM: two places a page are looked at. Copies of the same text count
 * once. A kernel that a warm reset left in RAM has its own; which one runs is not known here.
 * @throws {VmiError} `VMI_ABORTED` when the signal fires
 */
export async function findVmcoreinfo(
  memory: PhysicalMemory,
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<Vmcoreinfo[]> {
  const hits = await memory.scan(FIRST_KEY, {
    stride: 4096,
    offsets: PAGE_OFFSETS,
    max: MAX_COPIES,
    signal: options.signal,
  });
  const found = new Map<string, Vmcoreinfo>();
  for (const address of hits) {
    const info = vmcoreinfoAt(memory, address);
    if (info === undefined) continue;
    const key = [info.release, info.symbols.get('_stext'), info.numbers.get('phys_base')].join(' ');
    if (!found.has(key)) found.set(key, info);
  }
  return [...found.values()];
}

/** A value that `parseVmcoreinfo` promises, or a kernel too odd to go on with. */
export function requiredNumber(info: Vmcoreinfo, name: string): bigint {
  const value = info.numbers.get(name);
  if (value === undefined)
    throw new VmiError('VMI_ATTACH', `VMCOREINFO of ${info.release} has no NUMBER(${name})`);
  return value;
}
