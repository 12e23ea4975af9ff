import { VmiError } from '../../errors.js';
import { ListedSymbols } from '../symbols/listed.js';
import type { KernelSymbol } from '../symbols/table.js';
import { Struct } from '../types/struct.js';
import { BaseTypes, bareName, type Member, type StructType, type TypeRef } from '../types/table.js';
import type { Profile } from './profile.js';

/** Says that a JSON file is what `vmi profile --format json` writes. */
export const PLAIN_FORMAT = 'node-libvmi-profile-1';

interface RawMember {
  readonly offset?: unknown;
  readonly size?: unknown;
  readonly type?: unknown;
}
interface RawProfile {
  readonly format?: unknown;
  readonly banner?: unknown;
  readonly types?: Readonly<
    Record<string, { readonly size?: unknown; readonly members?: Record<string, RawMember> }>
  >;
  readonly symbols?: readonly {
    readonly name?: unknown;
    readonly address?: unknown;
    readonly type?: unknown;
  }[];
}

/**
 * Whether a file is JSON that names this format. Tools that re-format JSON add spaces and sort
 * keys, so the name is looked for where it stands, not at the start.
 */
export function isPlain(bytes: Buffer): boolean {
  if (!/^\s*\{/.test(bytes.toString('latin1', 0, 64))) return false;
  const name = `"${PLAIN_FORMAT}"`;
  for (let at = bytes.indexOf(name); at >= 0; at = bytes.indexOf(name, at + 1)) {
    if (/"format"\s*:\s*$/.test(bytes.toString('latin1', Math.max(0, at - 64), at))) return true;
  }
  return false;
}

/**
 * Parses what `vmi profile --format json` wrote.
 * @throws {VmiError} `VMI_ATTACH`: no JSON, or not of this form
 */
export function parsePlain(bytes: Buffer, source = 'profile'): Profile {
  let raw: RawProfile;
  try {
    raw = JSON.parse(bytes.toString('utf8')) as RawProfile;
  } catch (error) {
    throw new VmiError('VMI_ATTACH', `${source} is no JSON: ${(error as Error).message}`, {
      cause: error,
    });
  }
  if (
    raw?.format !== PLAIN_FORMAT ||
    typeof raw.types !== 'object' ||
    !Array.isArray(raw.symbols)
  ) {
    throw new VmiError('VMI_ATTACH', `${source} is no profile of the format ${PLAIN_FORMAT}`);
  }
  const symbols = raw.symbols.map(({ name, address, type }): KernelSymbol => {
    if (
      typeof name !== 'string' ||
      typeof address !== 'string' ||
      !/^0x[0-9a-f]{1,16}$/.test(address)
    ) {
      throw new VmiError(
        'VMI_ATTACH',
        `${source} has a symbol without name or address: ${JSON.stringify({ name, address })}`,
      );
    }
    return { name, address: BigInt(address), type: typeof type === 'string' ? type : '?' };
  });
  return {
    source,
    types: new PlainTypes(source, raw.types ?? {}),
    ...(symbols.length === 0 ? {} : { symbols: new ListedSymbols(source, symbols) }),
    ...(typeof raw.banner === 'string' ? { banner: raw.banner } : {}),
  };
}

/**
 * Offsets and sizes, without what members are made of: the guest's own types are asked for that.
 */
class PlainTypes extends BaseTypes {
  readonly source: string;
  readonly #structs = new Map<string, StructType>();
  readonly #sizes = new Map<string, number>();

  constructor(source: string, types: NonNullable<RawProfile['types']>) {
    super();
    this.source = source;
    for (const [name, { size, members }] of Object.entries(types)) {
      if (isLength(size)) this.#sizes.set(name, size);
      // Size 0: no full answer, see ProfileTypes.
      this.#structs.set(
        name,
        new Struct(name, 'struct', 0, () => Object.entries(members ?? {}).flatMap(plainMember)),
      );
    }
  }

  find(name: string): StructType | undefined {
    return this.#structs.get(bareName(name));
  }

  findSize(name: string): number | undefined {
    return this.#sizes.get(bareName(name));
  }

  names(): Iterable<string> {
    return this.#structs.keys();
  }
}

function plainMember([name, { offset, size, type }]: [string, RawMember]): Member[] {
  if (!isLength(offset) || !isLength(size)) return [];
  return [{ name, offset, bitOffset: offset * 8, size, type: plainType(String(type), size) }];
}

/** A type of which only spelling and size are known; of an array also how many elements it has. */
function plainType(name: string, size: number): TypeRef {
  const [, element, length, rest] = /^([^[]*)\[(\d{1,6})\](.*)$/.exec(name) ?? [];
  const count = Number(length);
  if (element === undefined || count === 0 || size % count !== 0) {
    return { kind: 'int', name, size, signed: false, encoding: 'int' };
  }
  return {
    kind: 'array',
    name,
    size,
    count,
    element: plainType(`${element}${rest}`, size / count),
  };
}

function isLength(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
