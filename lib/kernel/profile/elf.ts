import { VmiError } from '../../errors.js';
import type { KernelSymbol } from '../symbols/table.js';
import { KERNEL_HALF } from '../x86-64.js';

/*
 * ELF64, little-endian, as far as a kernel's files need it (elf(5)):
 *
 *   file header     0x10 type (1: .ko and .o, 2: vmlinux), 0x12 machine, 0x28 where the section
 *                   headers are, 0x3a bytes of one, 0x3c how many, 0x3e the one of their names
 *   section header  0x00 name, 0x04 type, 0x08 flags, 0x10 address, 0x18 offset, 0x20 bytes,
 *                   0x28 the section it goes with
 *   symbol          0x00 name, 0x04 type and binding, 0x06 section, 0x08 value, 0x10 bytes
 */
const MAGIC = Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1]);
const HEADER = 64;
const SECTION = 64;
const SYMBOL = 24;
const X86_64 = 62;
const RELOCATABLE = 1;
const NOBITS = 8;
/** Flags of a section. */
const WRITE = 1n;
const ALLOC = 2n;
const EXECUTE = 4n;
/** Types of a symbol that name an address: none, object, function. */
const NAMED = [0, 1, 2];
const ABSOLUTE = 0xfff1;
const MAX_SYMBOLS = 2_000_000;

interface Section {
  readonly name: string;
  readonly type: number;
  readonly flags: bigint;
  readonly address: bigint;
  readonly offset: number;
  readonly length: number;
  readonly link: number;
}

export function isElf(bytes: Buffer): boolean {
  return bytes.subarray(0, MAGIC.length).equals(MAGIC);
}

/** An ELF file in memory. */
export class Elf {
  readonly path: string;
  /** Whether it is a module or an object: its symbols have no addresses yet. */
  readonly relocatable: boolean;
  readonly #bytes: Buffer;
  readonly #sections: readonly Section[];

  /** @throws {VmiError} `VMI_ATTACH`: cut off, or of another machine */
  constructor(bytes: Buffer, path: string) {
    this.path = path;
    this.#bytes = bytes;
    if (bytes.length < HEADER) throw this.#broken('it is cut off');
    if (bytes.readUInt16LE(0x12) !== X86_64) throw this.#broken('it is not for x86-64');
    this.relocatable = bytes.readUInt16LE(0x10) === RELOCATABLE;
    const start = Number(bytes.readBigUInt64LE(0x28));
    const count = bytes.readUInt16LE(0x3c);
    if (count === 0 || start + count * SECTION > bytes.length)
      throw this.#broken('its table of sections is cut off');
    const raw = Array.from({ length: count }, (_, i) => this.#rawSection(start + i * SECTION));
    const names = raw[bytes.readUInt16LE(0x3e)];
    if (names === undefined) throw this.#broken('its sections have no names');
    this.#sections = raw.map(({ name, ...rest }) => ({
      ...rest,
      name: this.#text(names.offset + name, names.offset + names.length),
    }));
  }

  has(name: string): boolean {
    return this.#sections.some((section) => section.name === name);
  }

  /** What a section holds; a view into the file. */
  section(name: string): Buffer | undefined {
    const found = this.#sections.find((section) => section.name === name);
    return found === undefined ? undefined : this.#view(found);
  }

  /** Sections that are in a kernel's memory, with their addresses. */
  *loaded(): Generator<{ readonly address: bigint; readonly bytes: Buffer }> {
    for (const section of this.#sections) {
      const inMemory = (section.flags & ALLOC) !== 0n && section.type !== NOBITS;
      if (inMemory && section.address >= KERNEL_HALF)
        yield { address: section.address, bytes: this.#view(section) };
    }
  }

  /** Symbols of `.symtab`; none in a file that was stripped. */
  symbols(): KernelSymbol[] {
    const table = this.#sections.find(({ name }) => name === '.symtab');
    const names = table === undefined ? undefined : this.#sections[table.link];
    if (table === undefined || names === undefined) return [];
    const bytes = this.#view(table);
    const count = Math.min(MAX_SYMBOLS, Math.floor(bytes.length / SYMBOL));
    const symbols: KernelSymbol[] = [];
    for (let i = 1; i < count; i++) {
      const at = i * SYMBOL;
      const info = bytes[at + 4]!;
      const section = bytes.readUInt16LE(at + 6);
      if (!NAMED.includes(info & 15) || section === 0) continue;
      const name = this.#text(names.offset + bytes.readUInt32LE(at), names.offset + names.length);
      if (name === '') continue;
      const address = bytes.readBigUInt64LE(at + 8);
      symbols.push({ name, address, type: this.#letter(section, info >> 4) });
    }
    return symbols;
  }

  /** The letter that nm(1) prints. */
  #letter(index: number, binding: number): string {
    const section = this.#sections[index];
    const letterOf = ({ type, flags }: Section) => {
      if ((flags & EXECUTE) !== 0n) return 'T';
      if (type === NOBITS) return 'B';
      return (flags & WRITE) !== 0n ? 'D' : 'R';
    };
    const letter = index === ABSOLUTE || section === undefined ? 'A' : letterOf(section);
    return binding === 0 ? letter.toLowerCase() : letter;
  }

  #rawSection(at: number): Omit<Section, 'name'> & { readonly name: number } {
    const bytes = this.#bytes;
    return {
      name: bytes.readUInt32LE(at),
      type: bytes.readUInt32LE(at + 4),
      flags: bytes.readBigUInt64LE(at + 8),
      address: bytes.readBigUInt64LE(at + 0x10),
      offset: Number(bytes.readBigUInt64LE(at + 0x18)),
      length: Number(bytes.readBigUInt64LE(at + 0x20)),
      link: bytes.readUInt32LE(at + 0x28),
    };
  }

  #view({ name, type, offset, length }: Section): Buffer {
    if (type === NOBITS) return Buffer.alloc(0);
    if (offset + length > this.#bytes.length) throw this.#broken(`${name} is cut off`);
    return this.#bytes.subarray(offset, offset + length);
  }

  #text(from: number, end: number): string {
    if (from >= end || end > this.#bytes.length) return '';
    const zero = this.#bytes.indexOf(0, from);
    return this.#bytes.toString('latin1', from, zero < 0 || zero > end ? end : zero);
  }

  #broken(why: string): VmiError {
    return new VmiError('VMI_ATTACH', `${this.path} is no ELF file of a kernel: ${why}`);
  }
}
