import { createHash } from 'node:crypto';
import { VmiError } from '../errors.js';
import type { Kernel } from '../kernel/kernel.js';
import type { Member, StructType, TypeRef, TypeTable } from '../kernel/types/table.js';
import { linkedSymbols } from './linked.js';

/** Of volatility3/schemas/schema-6.2.0.json, which every Volatility 3 since 2.0 reads. */
const FORMAT = '6.2.0';
/** Pointers to pointers, arrays of arrays: a guest's types may claim to go on for ever. */
const MAX_DEPTH = 32;
const MAX_BANNER = 512;

interface BaseType {
  readonly size: number;
  readonly signed: boolean;
  readonly kind: 'void' | 'int' | 'float' | 'char' | 'bool';
  readonly endian: 'little';
}
interface EnumType {
  readonly size: number;
  readonly base: string;
  readonly constants: Map<string, bigint>;
}
/** A type as the format refers to it. */
type Reference =
  | { readonly kind: 'base' | 'struct' | 'union' | 'enum'; readonly name: string }
  | { readonly kind: 'pointer'; readonly subtype: Reference }
  | { readonly kind: 'array'; readonly count: number; readonly subtype: Reference }
  | { readonly kind: 'function' };
type Field =
  | Reference
  | {
      readonly kind: 'bitfield';
      readonly bit_length: number;
      readonly bit_position: number;
      readonly type: Reference;
    };

const VOID: Reference = { kind: 'base', name: 'void' };
/**
 * What Volatility asks for by name, whether or not a structure has a member of it. x86-64 ABI,
 * figure 3.1.
 */
const BASE_TYPES: readonly (readonly [name: string, BaseType])[] = [
  ['void', base(0, false, 'void')],
  ['pointer', base(8, false)],
  ['char', base(1, true, 'char')],
  ['signed char', base(1, true, 'char')],
  ['unsigned char', base(1, false, 'char')],
  ['short int', base(2, true)],
  ['short unsigned int', base(2, false)],
  ['int', base(4, true)],
  ['unsigned int', base(4, false)],
  ['long int', base(8, true)],
  ['long unsigned int', base(8, false)],
  ['long long int', base(8, true)],
  ['long long unsigned int', base(8, false)],
  ['_Bool', base(1, false, 'bool')],
];

/**
 * Types of the variables that Volatility's plugins start from; kallsyms has none, and BTF those of
 * per-cpu variables only. A structure that this kernel lacks counts as void.
 * volatility3/framework/{plugins,symbols}/linux, object_from_symbol.
 */
const VARIABLES: Readonly<Record<string, (struct: (name: string) => Reference) => Reference>> = {
  cap_last_cap: () => ({ kind: 'base', name: 'int' }),
  idt_table: (struct) => ({ kind: 'array', count: 256, subtype: struct('gate_struct') }),
  init_cred: (struct) => struct('cred'),
  init_files: (struct) => struct('files_struct'),
  init_fs: (struct) => struct('fs_struct'),
  init_mm: (struct) => struct('mm_struct'),
  init_net: (struct) => struct('net'),
  init_pid_ns: (struct) => struct('pid_namespace'),
  init_task: (struct) => struct('task_struct'),
  init_user_ns: (struct) => struct('user_namespace'),
  init_uts_ns: (struct) => struct('uts_namespace'),
  iomem_resource: (struct) => struct('resource'),
  ioport_resource: (struct) => struct('resource'),
  keyboard_notifier_list: (struct) => struct('atomic_notifier_head'),
  log_buf: () => ({ kind: 'pointer', subtype: { kind: 'base', name: 'char' } }),
  log_buf_len: () => ({ kind: 'base', name: 'unsigned int' }),
  module_kset: (struct) => ({ kind: 'pointer', subtype: struct('kset') }),
  modules: (struct) => struct('list_head'),
  net_namespace_list: (struct) => struct('list_head'),
  page_offset_base: () => ({ kind: 'base', name: 'long unsigned int' }),
  prb: (struct) => ({ kind: 'pointer', subtype: struct('printk_ringbuffer') }),
  prog_idr: (struct) => struct('idr'),
  sockfs_dentry_operations: (struct) => struct('dentry_operations'),
  socket_file_ops: (struct) => struct('file_operations'),
  super_blocks: (struct) => struct('list_head'),
  tty_drivers: (struct) => struct('list_head'),
  vmalloc_base: () => ({ kind: 'base', name: 'long unsigned int' }),
  vmemmap_base: () => ({ kind: 'base', name: 'long unsigned int' }),
};

/**
 * A Volatility 3 symbol file: every structure, and every symbol at the address it was linked to.
 * Some 30 MB.
 */
export function* exportIsf(
  kernel: Kernel,
  producer: { readonly version: string },
): Iterable<string> {
  const { symbols, types, memory } = kernel;
  if (types.findSize('task_struct') === undefined) {
    throw new VmiError(
      'VMI_UNSUPPORTED',
      'a symbol file for Volatility holds every structure with its size, and of this kernel only ' +
        'the members by which tasks are read are known: it has no BTF',
    );
  }
  const metadata = {
    linux: {
      symbols: [{ kind: 'symtab', name: `${symbols.source} of Linux ${kernel.release}` }],
      types: [],
    },
    producer: { name: 'node-libvmi', version: producer.version },
    format: FORMAT,
  };
  yield `{"metadata":${JSON.stringify(metadata)}`;
  const writer = new IsfTypeWriter(types);
  yield ',\n"user_types":{';
  yield* joined(writer.structs());
  yield '},\n"enums":{';
  yield* joined(writer.enums());
  yield '},\n"base_types":{';
  yield* joined(writer.bases());
  yield '},\n"symbols":{';
  const struct = (name: string): Reference =>
    types.find(name) === undefined ? VOID : { kind: 'struct', name };
  const banner = Buffer.alloc(MAX_BANNER);
  const read = memory.readInto(symbols.address('linux_banner'), banner);
  const end = banner.indexOf(0);
  const constant = banner.subarray(0, end < 0 ? read : end + 1);
  yield* joined(linkedEntries(kernel, struct, constant));
  yield '}}\n';
}

function* linkedEntries(
  kernel: Kernel,
  struct: (name: string) => Reference,
  banner: Buffer,
): Iterable<string> {
  // The format has a name once: the lowest address, as everywhere.
  const written = new Set<string>();
  for (const { name, address } of linkedSymbols(kernel)) {
    if (written.has(name)) continue;
    written.add(name);
    const known = Object.hasOwn(VARIABLES, name) ? VARIABLES[name] : undefined;
    const isBanner = name === 'linux_banner';
    const type: Reference = isBanner
      ? { kind: 'array', count: banner.length, subtype: { kind: 'base', name: 'char' } }
      : (known?.(struct) ?? VOID);
    const data = isBanner ? `,"constant_data":"${banner.toString('base64')}"` : '';
    yield `${JSON.stringify(name)}:{"type":${JSON.stringify(type)},"address":${address}${data}}`;
  }
}

function* joined(entries: Iterable<string>): Iterable<string> {
  let separator = '\n';
  for (const entry of entries) {
    yield separator + entry;
    separator = ',\n';
  }
}

function base(size: number, signed: boolean, kind: BaseType['kind'] = 'int'): BaseType {
  return { size, signed, kind, endian: 'little' };
}

/** Structures by name, and what their members are made of. */
class IsfTypeWriter {
  readonly #types: TypeTable;
  readonly #names = new Map<StructType, string>();
  readonly #taken = new Set<string>();
  /**
   * Structures that were referred to and stand nowhere yet: those without a name, and second ones
   * of a name.
   */
  readonly #pending: StructType[] = [];
  readonly #enums = new Map<string, EnumType>();
  readonly #bases = new Map<string, BaseType>();

  constructor(types: TypeTable) {
    this.#types = types;
  }

  *structs(): Iterable<string> {
    const all = new Set<StructType>();
    for (const name of new Set(this.#types.names())) {
      const struct = this.#types.find(name);
      // A typedef may answer to the name; its structure comes by its own.
      if (struct === undefined || struct.name !== name || this.#taken.has(name)) continue;
      this.#names.set(struct, name);
      this.#taken.add(name);
      all.add(struct);
    }
    for (const struct of all) yield this.#entry(struct);
    for (let next = this.#pending.pop(); next !== undefined; next = this.#pending.pop())
      yield this.#entry(next);
  }

  *enums(): Iterable<string> {
    for (const [name, { size, base, constants }] of this.#enums) {
      const values = [...constants]
        .map(([key, value]) => `${JSON.stringify(key)}:${value}`)
        .join(',');
      yield `${JSON.stringify(name)}:{"size":${size},"base":${JSON.stringify(base)},"constants":{${values}}}`;
    }
  }

  *bases(): Iterable<string> {
    for (const [name, type] of new Map([...BASE_TYPES, ...this.#bases])) {
      yield `${JSON.stringify(name)}:${JSON.stringify(type)}`;
    }
  }

  #entry(struct: StructType): string {
    const name = this.#names.get(struct)!;
    const fields = struct.members.map((member, i) => {
      const key = member.name === '' ? `unnamed_field_${i}` : member.name;
      const type = this.#field(member, `${name}.${i}`);
      const offset =
        member.offset - (type.kind === 'bitfield' ? Math.floor(bitsBefore(member) / 8) : 0);
      const anonymous = member.name === '' && (type.kind === 'struct' || type.kind === 'union');
      return `${JSON.stringify(key)}:{"type":${JSON.stringify(type)},"offset":${offset}${anonymous ? ',"anonymous":true' : ''}}`;
    });
    return `${JSON.stringify(name)}:{"size":${struct.size},"fields":{${fields.join(',')}},"kind":"${struct.kind}"}`;
  }

  #field(member: Member, path: string): Field {
    const type = this.#reference(member.type, path, 0);
    if (member.bitSize === undefined) return type;
    const bit_position = bitsBefore(member) + (member.bitOffset % 8);
    return { kind: 'bitfield', bit_length: member.bitSize, bit_position, type };
  }

  #reference(ref: TypeRef, path: string, depth: number): Reference {
    if (depth > MAX_DEPTH) return VOID;
    switch (ref.kind) {
      case 'void':
        return VOID;
      case 'function':
        return { kind: 'function' };
      case 'forward': {
        const [kind, name = ''] = ref.name.split(' ');
        return kind === 'struct' || kind === 'union' ? { kind, name } : VOID;
      }
      case 'pointer':
        return { kind: 'pointer', subtype: this.#reference(ref.target, path, depth + 1) };
      case 'array':
        return {
          kind: 'array',
          count: ref.count,
          subtype: this.#reference(ref.element, path, depth + 1),
        };
      case 'struct':
      case 'union':
        return { kind: ref.kind, name: this.#nameOf(ref.struct, path) };
      case 'enum':
        return { kind: 'enum', name: this.#enumName(ref) };
      case 'int':
        this.#bases.set(ref.name, base(ref.size, ref.signed, ref.encoding));
        return { kind: 'base', name: ref.name };
      case 'float':
        this.#bases.set(ref.name, base(ref.size, true, 'float'));
        return { kind: 'base', name: ref.name };
    }
  }

  #nameOf(struct: StructType, path: string): string {
    const known = this.#names.get(struct);
    if (known !== undefined) return known;
    // Unnamed ones as dwarf2json calls them; drivers' structures of one name as libbpf does, ___2.
    let name = struct.name === '' ? `unnamed_${digest(path)}` : struct.name;
    for (let n = 2; this.#taken.has(name); n++)
      name = `${struct.name || `unnamed_${digest(path)}`}___${n}`;
    this.#names.set(struct, name);
    this.#taken.add(name);
    this.#pending.push(struct);
    return name;
  }

  #enumName(ref: Extract<TypeRef, { kind: 'enum' }>): string {
    const constants = new Map(ref.values);
    const written = ref.name.replace(/^enum /, '');
    const name =
      written === '(unnamed)' ? `unnamed_${digest([...constants].flat().join())}` : written;
    if (!this.#enums.has(name)) {
      const base = ref.size === 8 ? 'long ' : '';
      const sign = ref.signed ? 'int' : 'unsigned int';
      const basic =
        ref.size === 1 ? 'unsigned char' : ref.size === 2 ? 'short unsigned int' : base + sign;
      this.#enums.set(name, { size: ref.size, base: basic, constants });
    }
    return name;
  }
}

/**
 * Bits from the start of the field's storage, whole units of its type, to the byte its first bit is
 * in: that is how compilers and this format count. 0 where the field would reach beyond its unit,
 * as in a packed structure.
 */
function bitsBefore({ bitOffset, bitSize = 0, size }: Member): number {
  if (size === 0) return 0;
  const within = bitOffset % (size * 8);
  return within + bitSize > size * 8 ? 0 : within - (within % 8);
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}
