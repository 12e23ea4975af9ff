import type { Member, StructType, TypeRef, TypeTable } from '../kernel/types/table.js';

/**
 * Structures within structures, and pointers to pointers; a guest's types may claim to nest for
 * ever.
 */
const MAX_DEPTH = 8;
const MAX_MEMBERS = 65_536;
const IDENTIFIER = /^[A-Za-z_]\w*$/;
/** Names that are no members, as lib/objects/struct-object.ts has it. */
const RESERVED: ReadonlySet<string> = new Set([
  ...Object.getOwnPropertyNames(Object.prototype),
  'then',
  'toJSON',
]);

/**
 * TypeScript's view of a kernel's structures: a declaration file that makes
 * `guest.object('task_struct', …)`, and all that hangs on it, complete in an editor and be checked
 * by the compiler.
 * @param release for the file's first line: `6.1.0-50-cloud-amd64`
 * @returns the file, a piece at a time: some MB in all
 */
export function* editorTypes(types: TypeTable, release: string): Generator<string> {
  const structs = namedStructs(types);
  yield `// Structures of Linux ${printableName(release)}, from ${printableName(types.source)}.\n`;
  yield `// Written by 'vmi types'; include it in your tsconfig.json.\n`;
  yield `import type { ArrayObject, EnumValue, KernelStruct, Pointer } from 'node-libvmi';\n\n`;
  yield 'declare global {\n  interface LibvmiKernelTypes {\n';
  for (const [name] of structs) yield `    ${name}: struct_${name};\n`;
  yield '  }\n}\n';
  for (const [name, struct] of structs) {
    yield `\n/** \`${struct.kind} ${name}\`, ${struct.size} bytes. */\n`;
    yield `export interface struct_${name} extends KernelStruct {\n`;
    for (const member of membersOf(struct)) yield `  ${declaration(member, structs, 0)}\n`;
    yield '}\n';
  }
}

/** By name; of several with one name the first that has members. */
function namedStructs(types: TypeTable): Map<string, StructType> {
  const found = new Map<string, StructType>();
  for (const name of types.names()) {
    if (found.has(name) || !IDENTIFIER.test(name)) continue;
    const struct = types.find(name);
    if (struct !== undefined) found.set(name, struct);
  }
  return found;
}

function membersOf(struct: StructType): Member[] {
  const named = new Map<string, Member>();
  const collect = (within: StructType, depth: number): void => {
    for (const member of within.members) {
      const { name, type } = member;
      if (name === '') {
        const nests = (type.kind === 'struct' || type.kind === 'union') && depth < MAX_DEPTH;
        if (nests) collect(type.struct, depth + 1);
      } else if (IDENTIFIER.test(name) && !RESERVED.has(name) && !named.has(name)) {
        named.set(name, member);
      }
      if (named.size >= MAX_MEMBERS) return;
    }
  };
  collect(struct, 0);
  return [...named.values()];
}

function declaration(
  { name, type }: Member,
  structs: ReadonlyMap<string, StructType>,
  depth: number,
): string {
  return `readonly ${name}: ${typeText(type, structs, depth)};`;
}

function typeText(type: TypeRef, structs: ReadonlyMap<string, StructType>, depth: number): string {
  switch (type.kind) {
    case 'int':
      if (type.encoding === 'bool') return 'boolean';
      return type.size > 4 ? 'bigint' : 'number';
    case 'float':
      return 'number';
    case 'enum':
      return 'EnumValue';
    case 'struct':
    case 'union':
      return structText(type.struct, structs, depth);
    case 'pointer': {
      const { target } = type;
      const toStruct = target.kind === 'struct' || target.kind === 'union';
      if (toStruct) return `${structText(target.struct, structs, depth)} | null`;
      return `Pointer<${depth < MAX_DEPTH ? pointedText(target, structs, depth + 1) : 'unknown'}> | null`;
    }
    case 'array': {
      const { element } = type;
      if (element.kind === 'int' && element.encoding === 'char' && element.size === 1)
        return 'string';
      if (depth >= MAX_DEPTH) return 'ArrayObject<unknown>';
      return `ArrayObject<${typeText(element, structs, depth + 1)}>`;
    }
    default:
      return 'undefined';
  }
}

function pointedText(
  target: TypeRef,
  structs: ReadonlyMap<string, StructType>,
  depth: number,
): string {
  const opaque = target.kind === 'void' || target.kind === 'function' || target.kind === 'forward';
  return opaque ? 'unknown' : typeText(target, structs, depth);
}

/** A named structure by its name; one without is written out where it stands. */
function structText(
  struct: StructType,
  structs: ReadonlyMap<string, StructType>,
  depth: number,
): string {
  if (structs.has(struct.name)) return `struct_${struct.name}`;
  if (depth >= MAX_DEPTH || struct.name !== '') return 'KernelStruct';
  const members = membersOf(struct).map((member) => declaration(member, structs, depth + 1));
  return members.length === 0 ? 'KernelStruct' : `KernelStruct & { ${members.join(' ')} }`;
}

/** A name for a comment of one line. */
function printableName(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, '?');
}
