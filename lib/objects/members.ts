import { CorruptError } from '../errors.js';
import { escapeText } from '../escape.js';
import type { Member, StructType } from '../kernel/types/table.js';

/** Unnamed structures nest; a guest's types may claim to nest for ever. */
const MAX_NESTING = 16;
const MAX_MEMBERS = 65_536;

/**
 * Members by name, those of unnamed structures included; the first of several with a name.
 * @throws {CorruptError} types that contain themselves
 */
export function namedMembers(struct: StructType): Member[] {
  const named = new Map<string, Member>();
  const collect = (within: StructType, bits: number, depth: number): void => {
    if (depth > MAX_NESTING) throw endless(struct);
    for (const member of within.members) {
      const { type } = member;
      const bitOffset = member.bitOffset + bits;
      if (member.name !== '') {
        if (named.has(member.name)) continue;
        named.set(member.name, { ...member, bitOffset, offset: Math.floor(bitOffset / 8) });
      } else if (type.kind === 'struct' || type.kind === 'union') {
        collect(type.struct, bitOffset, depth + 1);
      }
      if (named.size > MAX_MEMBERS) throw endless(struct);
    }
  };
  collect(struct, 0, 0);
  return [...named.values()];
}

/** C name of a structure. */
export function spelled({ kind, name }: StructType): string {
  return `${kind} ${escapeText(name) || '(unnamed)'}`;
}

function endless(struct: StructType): CorruptError {
  return new CorruptError(`${spelled(struct)} has members without end`, 0n);
}
