import { VmiError } from '../errors.js';
import { noType, type TypeRef, type TypeTable } from '../kernel/types/table.js';
import { checkName } from '../options.js';

const MAX_LENGTH = 256;
const MAX_DEPTH = 8;
/** `struct list_head`, `unsigned long`; then `*`s; then `[n]`s. */
const FORM =
  /^([A-Za-z_][\w ]*?)\s*((?:\*\s*(?:const\b|volatile\b|restrict\b)?\s*)*)((?:\[\d{0,9}\]\s*)*)$/;
const INTEGER_WORDS: ReadonlySet<string> = new Set([
  'unsigned',
  'signed',
  'long',
  'short',
  'int',
  'char',
]);
/** C's own integers, for kernels whose types name none of them. System V ABI, AMD64, 3.1.2. */
const SIZES = { char: 1, short: 2, int: 4, long: 8, 'long long': 8 } as const;

/**
 * A type by the name C has for it: `struct page *`, `unsigned long`, `u8[16]`, `pid_t`, `void *`.
 * @throws {VmiError} `VMI_TYPE`: no such type, or no name of one
 */
export function parseTypeName(types: TypeTable, name: string): TypeRef {
  const match = checkName(name, 'type').length > MAX_LENGTH ? null : FORM.exec(name.trim());
  if (match === null) {
    throw new VmiError(
      'VMI_TYPE',
      `Expected a C type like 'struct page *' or 'char[16]' but received '${name.slice(0, 80)}'`,
    );
  }
  const [, base, stars, brackets] = match;
  let type = baseType(types, base!);
  const pointers = (stars!.match(/\*/g) ?? []).length;
  if (pointers > MAX_DEPTH) throw noType(name, types.source, types.names());
  for (let i = 0; i < pointers; i++) type = pointerTo(type);
  const counts = [...brackets!.matchAll(/\[(\d*)\]/g)].map(([, count]) => Number(count));
  // The last dimension is the innermost.
  for (const count of counts.slice(-MAX_DEPTH).reverse()) type = arrayOf(type, count);
  return type;
}

/** The type of a pointer to another. */
export function pointerTo(target: TypeRef): TypeRef {
  return {
    kind: 'pointer',
    name: `${target.name}${target.name.endsWith('*') ? '' : ' '}*`,
    size: 8,
    target,
  };
}

function arrayOf(element: TypeRef, count: number): TypeRef {
  const name = `${element.name}[${count === 0 ? '' : count}]`;
  return { kind: 'array', name, size: element.size * count, count, element };
}

function baseType(types: TypeTable, spelling: string): TypeRef {
  const words = spelling.split(/\s+/).filter((word) => word !== 'const' && word !== 'volatile');
  const name = words.join(' ');
  if (name === 'void') return { kind: 'void', name, size: 0 };
  if (name === 'bool') return types.findType('bool') ?? bool(name);
  const found = words.every((word) => INTEGER_WORDS.has(word))
    ? integer(words)
    : types.findType(name);
  if (found === undefined) throw noType(name, types.source, types.names());
  return found;
}

function integer(words: readonly string[]): TypeRef | undefined {
  const longs = words.filter((word) => word === 'long').length;
  const signs = words.filter((word) => word === 'unsigned' || word === 'signed');
  const rest = words.filter((word) => word === 'short' || word === 'char');
  const ints = words.filter((word) => word === 'int').length;
  if (ints > 1) return undefined;
  if (longs > 2 || signs.length > 1 || rest.length > 1 || (longs > 0 && rest.length > 0)) {
    return undefined;
  }
  const base = rest[0] ?? (longs === 0 ? 'int' : longs === 1 ? 'long' : 'long long');
  const size = SIZES[base as keyof typeof SIZES];
  const signed = signs[0] !== 'unsigned';
  const name = `${signed ? (signs.length > 0 && base === 'char' ? 'signed ' : '') : 'unsigned '}${base}`;
  return { kind: 'int', name, size, signed, encoding: name === 'char' ? 'char' : 'int' };
}

function bool(name: string): TypeRef {
  return { kind: 'int', name, size: 1, signed: false, encoding: 'bool' };
}
