import { hex, VmiError } from '../errors.js';
import { escapeBytes, escapeText } from '../escape.js';
import type { Member, StructType, TypeRef } from '../kernel/types/table.js';
import { checkFlag, checkOptions, describe, type OptionNames } from '../options.js';
import { readCString } from './c-string.js';
import { namedMembers } from './members.js';
import { symbolAt } from './place-text.js';
import { bitField, type ObjectSpace } from './space.js';

/** How a structure is printed. */
export interface FormatOptions {
  /** Characters a line has at most; longer values are cut. Default 100. */
  readonly columns?: number;
  /** Base of integers, 10 or 16; addresses are always hex. Default 10. */
  readonly base?: 10 | 16;
  /** Whether what a `char *` points to is shown. Default true. */
  readonly strings?: boolean;
  /** Whether a pointer into the kernel's image shows its symbol. Default true. */
  readonly symbols?: boolean;
  /** Whether members show their C type. Default true. */
  readonly types?: boolean;
  /** Whether members show their offset. Default false. */
  readonly offsets?: boolean;
}

const NAMES: OptionNames<FormatOptions> = {
  columns: true,
  base: true,
  strings: true,
  symbols: true,
  types: true,
  offsets: true,
};

/** @throws {TypeError} @throws {RangeError} an option that is none, or has no such value */
export function checkFormat(options: FormatOptions): FormatOptions {
  checkOptions(options, NAMES);
  const { columns = 100, base = 10, ...flags } = options;
  if (!Number.isSafeInteger(columns) || columns < 20)
    throw new RangeError(
      `Expected columns as an integer of 20 or more but received ${describe(columns)}`,
    );
  if (base !== 10 && base !== 16)
    throw new RangeError(`Expected base as 10 or 16 but received ${describe(base)}`);
  for (const [name, flag] of Object.entries(flags)) checkFlag(flag, name);
  return options;
}

/** Most members that are shown: `task_struct` has some 300. */
const MAX_LINES = 1000;
/** Elements of an array that are shown. */
const MAX_ELEMENTS = 8;
/**
 * Members of a structure within the one that is printed: those of a list's links are shown, those
 * of larger ones not.
 */
const MAX_INNER = 4;
const MAX_INNER_BYTES = 32;
/** Bytes of a string that are shown. */
const MAX_STRING = 64;

interface Shown {
  readonly $type: string;
  readonly $address: bigint;
  readonly $struct: StructType;
}

/**
 * A structure and its members, one a line, none deeper than one level. Reads no more than it shows;
 * never throws.
 */
export function formatStruct(
  object: Shown,
  space: ObjectSpace,
  options: FormatOptions = {},
): string[] {
  const { columns = 100 } = options;
  const struct = object.$struct;
  const symbol = symbolText(space, object.$address, options);
  const lines = [`${object.$type} at ${hex(object.$address)}${symbol} {`];
  let members: readonly Member[];
  try {
    members = namedMembers(struct);
    space.fresh();
  } catch (error) {
    return [...lines, `  <${reason(error)}>`, '}'];
  }
  for (const member of members.slice(0, MAX_LINES)) {
    const address = BigInt.asUintN(64, object.$address + BigInt(member.offset));
    const value = valueText(space, member.type, address, bitField(member), options, 1);
    const name = options.types === false ? escapeText(member.name) : declaration(member);
    const offset = options.offsets ? `+${String(member.offset).padEnd(6)}` : '  ';
    lines.push(cut(`${offset}${name} = ${value}`, columns));
  }
  if (members.length > MAX_LINES) lines.push(`  … ${members.length - MAX_LINES} more`);
  lines.push('}');
  return lines;
}

/** The first elements of an array on one line. Never throws. */
export function formatArray(
  space: ObjectSpace,
  type: TypeRef,
  address: bigint,
  count: number | undefined,
  options: FormatOptions = {},
): string {
  const inner = type.kind === 'array' ? arrayText(space, type, address, count, options, 1) : '';
  return cut(`${escapeText(type.name)} at ${hex(address)} ${inner}`, options.columns ?? 100);
}

/** One value, in the form of a line of {@link formatStruct}. Never throws. */
export function formatValue(
  space: ObjectSpace,
  type: TypeRef,
  address: bigint,
  options: FormatOptions = {},
): string {
  return cut(valueText(space, type, address, undefined, options, 1), options.columns ?? 100);
}

type Bits = ReturnType<typeof bitField>;

function valueText(
  space: ObjectSpace,
  type: TypeRef,
  address: bigint,
  bits: Bits,
  options: FormatOptions,
  depth: number,
): string {
  try {
    if (bits === undefined) {
      if (type.kind === 'pointer') return pointerText(space, type.target, address, options);
      if (type.kind === 'struct' || type.kind === 'union') {
        return innerText(space, type.struct, address, options, depth);
      }
      if (type.kind === 'array' && isChars(type)) {
        const most = Math.min(type.count || MAX_STRING, MAX_STRING);
        const bytes = readCString(space, address, most);
        const more = bytes.length === MAX_STRING && type.count > MAX_STRING ? '…' : '';
        return `"${escapeBytes(bytes)}"${more}`;
      }
      if (type.kind === 'array') {
        return arrayText(space, type, address, type.count || undefined, options, depth);
      }
    }
    const value = space.reader(type, bits)(space, address, undefined, '');
    if ((typeof value === 'number' || typeof value === 'bigint') && options.base === 16) {
      return value < 0 ? `-${hex(-value)}` : hex(value);
    }
    return value === undefined ? '…' : String(value);
  } catch (error) {
    return `<${reason(error)}>`;
  }
}

function pointerText(
  space: ObjectSpace,
  target: TypeRef,
  address: bigint,
  options: FormatOptions,
): string {
  const value = space.memory.readU64(address);
  if (value === 0n) return 'NULL';
  const text = `${hex(value)}${symbolText(space, value, options)}`;
  const isString = target.kind === 'int' && target.size === 1 && /\bchar$/.test(target.name);
  if (!isString || options.strings === false) return text;
  try {
    const bytes = readCString(space, value, MAX_STRING);
    return `${text} "${escapeBytes(bytes)}"${bytes.length === MAX_STRING ? '…' : ''}`;
  } catch (error) {
    return `${text} <${reason(error)}>`;
  }
}

function innerText(
  space: ObjectSpace,
  struct: StructType,
  address: bigint,
  options: FormatOptions,
  depth: number,
): string {
  if (depth === 0 || struct.size > MAX_INNER_BYTES) return '{ … }';
  const members = namedMembers(struct);
  if (members.length > MAX_INNER) return '{ … }';
  const parts = members.map((member) => {
    const at = BigInt.asUintN(64, address + BigInt(member.offset));
    const value = valueText(space, member.type, at, bitField(member), options, depth - 1);
    return `${escapeText(member.name)}: ${value}`;
  });
  return parts.length === 0 ? '{}' : `{ ${parts.join(', ')} }`;
}

function arrayText(
  space: ObjectSpace,
  type: Extract<TypeRef, { kind: 'array' }>,
  address: bigint,
  count: number | undefined,
  options: FormatOptions,
  depth: number,
): string {
  if (count === undefined || depth === 0) return '{ … }';
  const { element } = type;
  const parts: string[] = [];
  for (let i = 0; i < Math.min(count, MAX_ELEMENTS); i++) {
    const at = BigInt.asUintN(64, address + BigInt(i) * BigInt(element.size));
    parts.push(valueText(space, element, at, undefined, options, 0));
  }
  if (count > MAX_ELEMENTS) parts.push('…');
  return `{ ${parts.join(', ')} }`;
}

function symbolText(space: ObjectSpace, address: bigint, options: FormatOptions): string {
  if (options.symbols === false) return '';
  try {
    const symbol = symbolAt(space.symbols, address);
    return symbol === undefined ? '' : ` <${symbol}>`;
  } catch {
    // The value is worth more than its name.
    return '';
  }
}

/** `char comm[16]`, `struct mm_struct *mm`, `unsigned int flags : 3`. */
function declaration({ name, type, bitSize }: Member): string {
  const bits = bitSize === undefined ? '' : ` : ${bitSize}`;
  const array = /^(.*?)((?:\[\d*\])+)$/.exec(type.name);
  if (array !== null) return escapeText(`${array[1]} ${name}${array[2]}${bits}`);
  return escapeText(`${type.name}${type.name.endsWith('*') ? '' : ' '}${name}${bits}`);
}

function isChars(type: Extract<TypeRef, { kind: 'array' }>): boolean {
  const { element } = type;
  return element.kind === 'int' && element.encoding === 'char' && element.size === 1;
}

function reason(error: unknown): string {
  if (error instanceof VmiError) return escapeText(error.message);
  return 'cannot be shown';
}

function cut(line: string, columns: number): string {
  return line.length > columns ? `${line.slice(0, columns - 1)}…` : line;
}
