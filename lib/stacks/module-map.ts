import { FaultError, VmiError } from '../errors.js';
import type { KernelObjects } from '../objects/kernel-objects.js';
import { list } from '../objects/list.js';
import type { Pointer } from '../objects/pointer.js';
import type { StructObject } from '../objects/struct-object.js';
import type { Frame } from './frames.js';
import { type FlagBits, type OrcEntry, type OrcTable, orcTable } from './orc.js';

/** Milliseconds for which the list of modules is not read again. */
const MAX_AGE = 1000;
type Registers = OrcTable['registers'] | undefined;

const MAX_MODULES = 65_536;
/** `Elf64_Sym`: 24 bytes; st_name at 0, st_value at 8. */
const SYMBOL = 24;
const MAX_SYMBOLS = 1 << 18;
const MAX_NAME = 512;

interface ModuleText {
  readonly name: string;
  readonly start: bigint;
  readonly end: bigint;
  readonly object: StructObject;
  orc?: OrcTable | null;
  symbols?: readonly { readonly name: string; readonly address: bigint }[];
}

/**
 * Where the modules' code is, with the symbols and ORC tables of each; read when a frame lies in
 * one.
 */
export class ModuleMap {
  readonly #objects: KernelObjects;
  readonly #bits: FlagBits | undefined;
  readonly #registers: Registers;
  #modules: ModuleText[] | undefined;
  #read = 0;

  constructor(objects: KernelObjects, bits: FlagBits | undefined, registers: Registers) {
    this.#objects = objects;
    this.#bits = bits;
    this.#registers = registers;
  }

  /** Forgets the list of modules when it is old. */
  begin(): void {
    if (performance.now() - this.#read > MAX_AGE) this.#modules = undefined;
  }

  has(address: bigint): boolean {
    return this.#at(address) !== undefined;
  }

  /** How a place in a module was entered. */
  orc(address: bigint): OrcEntry | undefined {
    const module = this.#at(address);
    if (module === undefined || this.#bits === undefined) return undefined;
    module.orc ??= tryRead(() => this.#orcOf(module.object)) ?? null;
    return module.orc?.find(address);
  }

  /** A frame with the name of its function, and of the module it is in. */
  frame(address: bigint, guessed: boolean, exact: boolean): Frame {
    // A call may be the last instruction of a function: the place before it is in the right one.
    const inside = exact ? address : address - 1n;
    const place = this.#objects.symbols.at(inside);
    const module = place === undefined ? this.#at(inside) : undefined;
    if (module === undefined) {
      const offset = place === undefined ? 0 : Number(address - place.address);
      return { address, symbol: place?.name, offset, guessed };
    }
    module.symbols ??= tryRead(() => symbolsOf(this.#objects, module)) ?? [];
    const symbol = module.symbols.findLast((one) => one.address <= inside);
    const offset = Number(address - (symbol?.address ?? address));
    return { address, symbol: symbol?.name, offset, module: module.name, guessed };
  }

  /**
   * `struct mod_arch_specific { unsigned int num_orcs; int *orc_unwind_ip; struct orc_entry
   * *orc_unwind; }`
   */
  #orcOf(module: StructObject): OrcTable | undefined {
    const { num_orcs: count, orc_unwind_ip: ips, orc_unwind: entries } = module.arch;
    if (ips == null || entries == null || this.#bits === undefined) return undefined;
    const where = { ips: ips.value, entries: entries.$address, count };
    return orcTable(this.#objects, where, this.#bits, this.#registers);
  }

  #at(address: bigint): ModuleText | undefined {
    if (this.#modules === undefined) {
      this.#modules = tryRead(() => textsOf(this.#objects)) ?? [];
      this.#read = performance.now();
    }
    return this.#modules.find(({ start, end }) => address >= start && address < end);
  }
}

/**
 * `struct module_memory module.mem[MOD_TEXT]` since 6.4, `struct module_layout core_layout` before.
 */
function textsOf(objects: KernelObjects): ModuleText[] {
  const all: ModuleText[] = [];
  if (!objects.has('modules')) return all;
  for (const object of list(objects.variable('modules'), 'struct module', 'list', MAX_MODULES)) {
    const parts: StructObject[] = object.$has('mem')
      ? [object.mem[0]]
      : [object.core_layout, object.init_layout];
    for (const part of parts) {
      const start = (part.base as Pointer | null)?.value ?? 0n;
      if (start !== 0n) {
        all.push({ name: object.name, start, end: start + BigInt(part.size as number), object });
      }
    }
  }
  return all;
}

/**
 * `struct mod_kallsyms { Elf64_Sym *symtab; unsigned int num_symtab; char *strtab; }`, ascending.
 */
function symbolsOf(
  objects: KernelObjects,
  { object, start, end }: ModuleText,
): { name: string; address: bigint }[] {
  const { symtab, num_symtab: count, strtab } = (object.kallsyms ?? {}) as StructObject;
  if (symtab == null || strtab == null || count > MAX_SYMBOLS) return [];
  const bytes = objects.memory.read(symtab.$address, count * SYMBOL);
  const all: { name: string; address: bigint }[] = [];
  for (let at = 0; at < bytes.length; at += SYMBOL) {
    const address = bytes.readBigUInt64LE(at + 8);
    if (address < start || address >= end) continue;
    const name = (strtab as Pointer).add(bytes.readUInt32LE(at)).string(MAX_NAME);
    if (name !== '') all.push({ name, address });
  }
  return all.sort((a, b) => (a.address < b.address ? -1 : a.address > b.address ? 1 : 0));
}

/** What a hostile or half-loaded module does not have is left out. */
function tryRead<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof FaultError || error instanceof VmiError) return undefined;
    throw error;
  }
}
