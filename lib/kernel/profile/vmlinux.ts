import { VmiError } from '../../errors.js';
import type { ByteReader } from '../bytes.js';
import { Kallsyms } from '../symbols/kallsyms.js';
import { TOKEN_PATTERN, tokenTableAround } from '../symbols/kallsyms-tokens.js';
import { ListedSymbols } from '../symbols/listed.js';
import type { KernelSymbol } from '../symbols/table.js';
import { Btf } from '../types/btf.js';
import type { TypeTable } from '../types/table.js';
import { KERNEL_MAP, KERNEL_MAP_END } from '../x86-64.js';
import { Elf } from './elf.js';
import { btfOfDwarf } from './pahole.js';
import type { Profile } from './profile.js';

/** Bytes around a hit in which a token table may be. */
const TOKENS_BEFORE = 8192;
const TOKENS_AROUND = 16_384;

/**
 * Reads a profile from an ELF file: a `vmlinux`, with symbols (`.symtab`, or kallsyms where it was
 * stripped) and types (`.BTF`, or DWARF by way of pahole); or a module or object that was built for
 * the kernel, of which the DWARF has the kernel's types.
 * @param onDisk whether `path` is this very file, so that pahole can read it
 * @throws {VmiError} `VMI_ATTACH`: it has neither; what else would help is in the message
 */
export async function elfProfile(bytes: Buffer, path: string, onDisk = true): Promise<Profile> {
  const elf = new Elf(bytes, path);
  const symbols = elf.relocatable ? [] : symbolsOf(elf);
  const types = await typesOf(elf, onDisk);
  if (symbols.length === 0 && types === undefined) {
    const why = elf.relocatable
      ? 'a module holds the types of its kernel only as DWARF (build it with -g): its BTF is what ' +
        "the kernel's own lacks"
      : 'it has neither symbols (.symtab) nor types (.BTF, DWARF)';
    throw new VmiError('VMI_ATTACH', `${path} is of no use as a profile: ${why}`);
  }
  const banner = bannerOf(elf, symbols);
  return {
    source: path,
    ...(symbols.length === 0 ? {} : { symbols: new ListedSymbols(path, symbols) }),
    ...(types === undefined ? {} : { types }),
    ...(banner === undefined ? {} : { banner }),
  };
}

function symbolsOf(elf: Elf): KernelSymbol[] {
  const listed = elf.symbols();
  return listed.length > 0 ? listed : [...(kallsymsOf(elf)?.entries() ?? [])];
}

/** kallsyms of a kernel that was stripped: the tables are part of its data. */
function kallsymsOf(elf: Elf): Kallsyms | undefined {
  const image = { start: KERNEL_MAP, end: KERNEL_MAP_END };
  for (const { address, bytes } of elf.loaded()) {
    const source: ByteReader = {
      read: (from, length) => {
        const at = Number(from - address);
        return bytes.subarray(at, at + length);
      },
    };
    const range = { start: address, end: address + BigInt(bytes.length) };
    for (
      let at = bytes.indexOf(TOKEN_PATTERN);
      at >= 0;
      at = bytes.indexOf(TOKEN_PATTERN, at + 1)
    ) {
      const from = Math.max(0, at - TOKENS_BEFORE);
      const found = tokenTableAround(bytes.subarray(from, from + TOKENS_AROUND), at - from);
      if (found === undefined) continue;
      try {
        return Kallsyms.find(source, address + BigInt(from + found.table), image, range);
      } catch (error) {
        // Digits that are no token table; the next ones may be.
        if (!(error instanceof VmiError)) throw error;
      }
    }
  }
  return undefined;
}

async function typesOf(elf: Elf, onDisk: boolean): Promise<TypeTable | undefined> {
  // The BTF of a module counts on from the kernel's own, and is nothing without that.
  const btf = elf.relocatable ? undefined : elf.section('.BTF');
  if (btf !== undefined) return btfProfile(btf, elf.path).types;
  if (!onDisk || !(elf.has('.debug_info') || elf.has('.zdebug_info'))) return undefined;
  return btfProfile(await btfOfDwarf(elf.path), elf.path).types;
}

/**
 * Types of a BTF file: what `pahole --btf_encode_detached` writes, and BTFHub gives.
 * @throws {VmiError} `VMI_ATTACH`: damaged, or not of a kernel
 */
export function btfProfile(bytes: Buffer, path: string): Profile {
  let types: Btf;
  try {
    types = new Btf(bytes, path);
  } catch (error) {
    if (!(error instanceof VmiError)) throw error;
    throw new VmiError('VMI_ATTACH', `${path} has no BTF: ${error.message}`, { cause: error });
  }
  if (types.find('task_struct') === undefined) {
    throw new VmiError('VMI_ATTACH', `${path} has no kernel's types: no task_struct in its BTF`);
  }
  return { source: path, types };
}

function bannerOf(elf: Elf, symbols: readonly KernelSymbol[]): string | undefined {
  const at = symbols.find(({ name }) => name === 'linux_banner')?.address;
  if (at === undefined) return undefined;
  for (const { address, bytes } of elf.loaded()) {
    if (at < address || at >= address + BigInt(bytes.length)) continue;
    const from = Number(at - address);
    const end = bytes.indexOf(0, from);
    const text = bytes.toString('latin1', from, end < 0 ? from : end).trimEnd();
    return text.startsWith('Linux version ') ? text : undefined;
  }
  return undefined;
}
