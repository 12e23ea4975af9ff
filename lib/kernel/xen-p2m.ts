import { PAGE_MASK, wrap } from '../address.js';
import { CorruptError, hex } from '../errors.js';
import type { VirtualMemory } from '../memory/virtual-memory.js';
import type { SymbolTable } from './symbols/table.js';
import { KERNEL_MAP } from './x86-64.js';

/**
 * Entries that name no frame of the guest's own. arch/x86/include/asm/xen/page.h, FOREIGN_FRAME_BIT
 * and IDENTITY_FRAME_BIT.
 */
const FOREIGN_FRAME = 1n << 63n;
const IDENTITY_FRAME = 1n << 62n;
/** INVALID_P2M_ENTRY, both bits set with it. */
const NO_FRAME = FOREIGN_FRAME | IDENTITY_FRAME;
/** Frames of 1 TiB: twice what a PV guest can have. arch/x86/xen/Kconfig, XEN_512GB. */
const MAX_FRAMES = 1n << 28n;
/** Bytes of the list that are looked through at a time. */
const CHUNK = 1 << 20;
const ENTRY = 8n;
const PAGE_SHIFT = 12n;

/**
 * The list by which a PV guest of Xen knows its frames: `xen_p2m_addr[pseudo-physical frame]` is
 * the frame of the machine.
 *
 * A PV guest's page tables, and CR3, hold frames of the machine. What it calls physical is a
 * numbering of its own frames from 0 on, which the direct map, `struct page` and everything else in
 * it count by. arch/x86/xen/p2m.c; the list is linear since commit 054954eb051f (3.19).
 */
export class P2m {
  readonly #memory: VirtualMemory;
  readonly #list: bigint;
  readonly #size: bigint;
  readonly #physBase: bigint;

  /**
   * @throws {VmiError} `VMI_SYMBOL`: no kernel that runs as a PV guest of Xen
   * @throws {CorruptError} the list is none
   */
  constructor(memory: VirtualMemory, symbols: SymbolTable) {
    this.#memory = memory;
    this.#list = symbols.address('xen_p2m_addr');
    this.#size = symbols.address('xen_p2m_size');
    this.#physBase = memory.readU64(symbols.address('phys_base'));
    if (this.frames === 0n) throw new CorruptError('xen_p2m_size is 0', this.#size);
  }

  /** Frames the list has entries for. */
  get frames(): bigint {
    const size = this.#memory.readU64(this.#size);
    return size < MAX_FRAMES ? size : MAX_FRAMES;
  }

  /**
   * Machine address of a pseudo-physical one; `undefined` where the guest has no frame of its own:
   * given back to Xen, foreign, or a device's.
   * @throws {FaultError} the list cannot be read
   */
  toMachine(physical: bigint): bigint | undefined {
    const frame = physical >> PAGE_SHIFT;
    if (frame >= this.frames) return undefined;
    const entry = this.#memory.readU64(wrap(this.#memory.readU64(this.#list) + frame * ENTRY));
    return (entry & NO_FRAME) === 0n ? (entry << PAGE_SHIFT) | (physical & PAGE_MASK) : undefined;
  }

  /**
   * Pseudo-physical address of a machine one; `undefined` when the machine's frame is none of this
   * guest's. Looks through the list: Xen's own table of the other direction is not the guest's
   * memory.
   * @throws {CorruptError} a part of the list is not mapped
   */
  toPhysical(machine: bigint): bigint | undefined {
    const wanted = machine >> PAGE_SHIFT;
    const { frames } = this;
    const list = this.#memory.readU64(this.#list);
    const bytes = Buffer.allocUnsafeSlow(CHUNK);
    const entries = new BigUint64Array(bytes.buffer, bytes.byteOffset, CHUNK / 8);
    for (let first = 0n; first < frames; first += BigInt(entries.length)) {
      const left = frames - first;
      const count = left < BigInt(entries.length) ? Number(left) : entries.length;
      const at = wrap(list + first * ENTRY);
      if (this.#memory.readInto(at, bytes.subarray(0, count * 8)) < count * 8)
        throw new CorruptError(`xen_p2m_addr[${first}…] at ${hex(at)} is not mapped`, at);
      const found = entries.subarray(0, count).indexOf(wanted);
      if (found >= 0) return ((first + BigInt(found)) << PAGE_SHIFT) | (machine & PAGE_MASK);
    }
    return undefined;
  }

  /**
   * Pseudo-physical address of an address in the kernel's image. arch/x86/include/asm/page_64.h,
   * __phys_addr_symbol.
   */
  ofImage(address: bigint): bigint {
    return wrap(address - KERNEL_MAP + this.#physBase);
  }
}
