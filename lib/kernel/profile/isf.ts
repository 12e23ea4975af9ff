import { brotliDecompressSync, gunzipSync } from 'node:zlib';
import { VmiError } from '../../errors.js';
import { ListedSymbols } from '../symbols/listed.js';
import type { KernelSymbol } from '../symbols/table.js';
import { Struct } from '../types/struct.js';
import { BaseTypes, bareName, type Member, type StructType, type TypeRef } from '../types/table.js';
import type { Profile } from './profile.js';

/** Largest JSON unpacked: a whole kernel's is 40–60 MB. */
const MAX_BYTES = 512 << 20;
const MAX_DEPTH = 64;

/**
 * The parts of Volatility 3's Intermediate Symbol File that are used.
 * volatility3/schemas/schema-6.2.0.json.
 */
interface RawType {
  kind?: string;
  name?: string;
  count?: number;
  subtype?: RawType;
  type?: RawType;
  bit_position?: number;
  bit_length?: number;
}
interface RawField {
  offset?: number;
  anonymous?: boolean;
  type?: RawType;
}
interface RawStruct {
  kind?: string;
  size?: number;
  fields?: Record<string, RawField>;
}
interface RawBase {
  kind?: string;
  size?: number;
  signed?: boolean;
}
interface RawEnum {
  size?: number;
  base?: string;
  constants?: Record<string, number>;
}
interface RawSymbol {
  address?: number;
  constant_data?: string;
}
interface RawIsf {
  metadata?: { format?: string };
  base_types?: Record<string, RawBase>;
  user_types?: Record<string, RawStruct>;
  enums?: Record<string, RawEnum>;
  symbols?: Record<string, RawSymbol>;
}

/**
 * Parses a Volatility 3 symbol file: JSON, plain or packed with gzip or Brotli.
 * @param source path, for messages; `.br` tells Brotli, which has no magic
 * @throws {VmiError} `VMI_ATTACH`: packed with xz (which Node cannot unpack), no JSON, or no symbol
 *   file
 */
export function parseIsf(bytes: Buffer, source = 'ISF'): Profile {
  const isf = parseJson(unpack(bytes, source), source);
  if (
    typeof isf !== 'object' ||
    isf === null ||
    typeof isf.metadata?.format !== 'string' ||
    typeof isf.user_types !== 'object'
  ) {
    throw new VmiError(
      'VMI_ATTACH',
      `${source} is no Volatility 3 symbol file: it has no metadata.format or no user_types`,
    );
  }
  const symbols = Object.entries(isf.symbols ?? {}).flatMap(([name, raw]) => symbol(name, raw));
  const constant = isf.symbols?.linux_banner?.constant_data;
  const banner =
    constant === undefined
      ? undefined
      : Buffer.from(constant, 'base64').toString('latin1').split('\0')[0]!;
  return {
    source,
    types: new IsfTypes(source, isf),
    ...(symbols.length === 0 ? {} : { symbols: new ListedSymbols(source, symbols) }),
    ...(banner === undefined || banner === '' ? {} : { banner: banner.trimEnd() }),
  };
}

function unpack(bytes: Buffer, source: string): Buffer {
  if (bytes.subarray(0, 6).equals(Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]))) {
    throw new VmiError(
      'VMI_ATTACH',
      `${source} is packed with xz, which Node cannot unpack: run 'xz -dk ${source}' and give the .json file`,
    );
  }
  try {
    if (bytes[0] === 0x1f && bytes[1] === 0x8b)
      return gunzipSync(bytes, { maxOutputLength: MAX_BYTES });
    if (source.endsWith('.br')) return brotliDecompressSync(bytes, { maxOutputLength: MAX_BYTES });
  } catch (error) {
    throw new VmiError('VMI_ATTACH', `cannot unpack ${source}: ${(error as Error).message}`, {
      cause: error,
    });
  }
  return bytes;
}

/**
 * Addresses beyond 2^53 lose digits as numbers, so they are made strings before the text is parsed.
 */
function parseJson(bytes: Buffer, source: string): RawIsf {
  try {
    return JSON.parse(
      bytes.toString('utf8').replace(/("address"\s*:\s*)(\d{16,20})/g, '$1"$2"'),
    ) as RawIsf;
  } catch (error) {
    throw new VmiError('VMI_ATTACH', `${source} is no JSON: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

function symbol(name: string, raw: RawSymbol): KernelSymbol[] {
  const address: unknown = raw.address;
  if (typeof address !== 'number' && typeof address !== 'string') return [];
  if (typeof address === 'number' && !Number.isSafeInteger(address)) return [];
  if (typeof address === 'string' && !/^\d+$/.test(address)) return [];
  const value = BigInt(address);
  // An address of 0 stands for a symbol without one.
  return value === 0n && !name.includes('per_cpu')
    ? []
    : [{ name, address: BigInt.asUintN(64, value), type: '?' }];
}

class IsfTypes extends BaseTypes {
  readonly source: string;
  readonly #isf: RawIsf;
  readonly #structs = new Map<string, Struct>();

  constructor(source: string, isf: RawIsf) {
    super();
    this.source = source;
    this.#isf = isf;
  }

  find(name: string): StructType | undefined {
    const bare = bareName(name);
    const known = this.#structs.get(bare);
    if (known !== undefined) return known;
    const types = this.#isf.user_types!;
    const raw = Object.hasOwn(types, bare) ? types[bare] : undefined;
    if (
      raw === undefined ||
      (raw.kind !== 'struct' && raw.kind !== 'union') ||
      typeof raw.size !== 'number'
    )
      return undefined;
    // dwarf2json calls unnamed types unnamed_0123456789abcdef.
    const spelled = /^unnamed_/.test(bare) ? '' : bare;
    const struct = new Struct(spelled, raw.kind, raw.size, () => this.#members(raw));
    this.#structs.set(bare, struct);
    return struct;
  }

  findSize(name: string): number | undefined {
    const bare = bareName(name);
    const of = <T>(table: Record<string, T> | undefined) =>
      table !== undefined && Object.hasOwn(table, bare) ? table[bare] : undefined;
    return this.find(name)?.size ?? of(this.#isf.enums)?.size ?? of(this.#isf.base_types)?.size;
  }

  names(): Iterable<string> {
    return Object.keys(this.#isf.user_types!);
  }

  #members(raw: RawStruct): Member[] {
    const members: Member[] = [];
    for (const [name, field] of Object.entries(raw.fields ?? {})) {
      if (!Number.isInteger(field.offset) || field.offset! < 0 || field.type === undefined)
        continue;
      const bits = field.type.kind === 'bitfield' ? field.type : undefined;
      const type = this.#ref(bits?.type ?? field.type, 0);
      const bitOffset = field.offset! * 8 + (bits?.bit_position ?? 0);
      members.push({
        name: field.anonymous === true ? '' : name,
        offset: Math.floor(bitOffset / 8),
        bitOffset,
        ...(bits?.bit_length === undefined ? {} : { bitSize: bits.bit_length }),
        size: type.size,
        type,
      });
    }
    return members.sort((a, b) => a.bitOffset - b.bitOffset);
  }

  #ref(raw: RawType, depth: number): TypeRef {
    const name = raw.name ?? '';
    if (depth > MAX_DEPTH)
      throw new VmiError('VMI_ATTACH', `${this.source}: a type refers to itself`);
    switch (raw.kind) {
      case 'pointer': {
        const self = this;
        const target = raw.subtype ?? { kind: 'base', name: 'void' };
        return {
          kind: 'pointer',
          size: 8,
          get name() {
            return `${self.#ref(target, depth + 1).name} *`;
          },
          get target() {
            return self.#ref(target, 0);
          },
        };
      }
      case 'array': {
        const element = this.#ref(raw.subtype ?? {}, depth + 1);
        const count = raw.count ?? 0;
        return {
          kind: 'array',
          name: `${element.name}[${count}]`,
          size: count * element.size,
          count,
          element,
        };
      }
      case 'struct':
      case 'union': {
        const struct = this.find(name);
        if (struct === undefined) return { kind: 'forward', name: `${raw.kind} ${name}`, size: 0 };
        return {
          kind: struct.kind,
          name: `${struct.kind} ${struct.name || '(unnamed)'}`,
          size: struct.size,
          struct,
        };
      }
      case 'enum':
        return this.#enumRef(name);
      case 'function':
        return { kind: 'function', name: 'function', size: 0 };
      default:
        return this.#baseRef(name);
    }
  }

  #enumRef(name: string): TypeRef {
    const found = this.#isf.enums?.[name];
    const constants = Object.entries(found?.constants ?? {});
    const values = new Map(constants.map(([key, value]) => [key, BigInt(Math.trunc(value))]));
    const base = this.#isf.base_types?.[found?.base ?? ''];
    const size = found?.size ?? 4;
    return { kind: 'enum', name: `enum ${name}`, size, signed: base?.signed ?? false, values };
  }

  #baseRef(name: string): TypeRef {
    const base = this.#isf.base_types?.[name];
    if (base === undefined || base.kind === 'void') {
      return { kind: 'void', name: name || 'void', size: 0 };
    }
    const size = base.size ?? 0;
    if (base.kind === 'float') return { kind: 'float', name, size };
    const encoding = base.kind === 'char' ? 'char' : base.kind === 'bool' ? 'bool' : 'int';
    return { kind: 'int', name, size, signed: base.signed ?? false, encoding };
  }
}
