import { CorruptError, VmiError } from '../../errors.js';
import { checkName } from '../../options.js';
import { didYouMean } from '../../suggest.js';
import type { Member, StructType } from './table.js';

/** Unnamed structures may nest; a guest's types may claim to nest for ever. */
const MAX_NESTING = 16;
const MAX_MEMBERS = 65_536;

/** Structure whose members are made at the first question. */
export class Struct implements StructType {
  readonly name: string;
  readonly kind: 'struct' | 'union';
  readonly size: number;
  readonly #load: () => Member[];
  #members: Member[] | undefined;
  #byName: Map<string, Member> | undefined;

  constructor(name: string, kind: 'struct' | 'union', size: number, load: () => Member[]) {
    this.name = name;
    this.kind = kind;
    this.size = size;
    this.#load = load;
  }

  get members(): readonly Member[] {
    this.#members ??= this.#load();
    return this.#members;
  }

  findMember(path: string): Member | undefined {
    const steps = parsePath(checkName(path, 'path'));
    if (steps === undefined) return undefined;
    let struct: StructType = this;
    let at: Member | undefined;
    for (const step of steps) {
      if (typeof step === 'string') {
        if (at !== undefined) {
          if (at.type.kind !== 'struct' && at.type.kind !== 'union') return undefined;
          struct = at.type.struct;
        }
        const next: Member | undefined =
          struct instanceof Struct ? struct.#named().get(step) : struct.findMember(step);
        if (next === undefined) return undefined;
        at = at === undefined ? next : shifted(next, at.bitOffset);
      } else {
        if (at?.type.kind !== 'array') return undefined;
        const { element, count } = at.type;
        // count 0: a flexible array, as long as its allocation
        if (count !== 0 && step >= count) return undefined;
        const bitOffset = at.bitOffset + step * element.size * 8;
        at = {
          name: at.name,
          offset: bitOffset >>> 3,
          bitOffset,
          size: element.size,
          type: element,
        };
      }
    }
    return at;
  }

  member(path: string): Member {
    const found = this.findMember(path);
    if (found !== undefined) return found;
    const spelled = `${this.kind} ${this.name || '(unnamed)'}`;
    const first = path.split(/[.[]/, 1)[0]!;
    if (this.#named().has(first) && first !== path) {
      throw new VmiError('VMI_TYPE', `${spelled} has a member '${first}', but no '${path}'`);
    }
    throw new VmiError(
      'VMI_TYPE',
      `${spelled} has no member '${path}'${didYouMean(first, this.#named().keys())}`,
    );
  }

  /** Members by name, those of unnamed structures included. */
  #named(): Map<string, Member> {
    if (this.#byName === undefined) {
      const byName = new Map<string, Member>();
      this.#collect(this.members, 0, byName, 0);
      this.#byName = byName;
    }
    return this.#byName;
  }

  #collect(
    members: readonly Member[],
    bits: number,
    into: Map<string, Member>,
    depth: number,
  ): void {
    for (const member of members) {
      if (member.name !== '') {
        if (!into.has(member.name)) into.set(member.name, shifted(member, bits));
        if (into.size > MAX_MEMBERS)
          throw new CorruptError(`${this.kind} ${this.name} has too many members`, 0n);
      } else if (member.type.kind === 'struct' || member.type.kind === 'union') {
        if (depth >= MAX_NESTING)
          throw new CorruptError(`${this.kind} ${this.name} nests for ever`, 0n);
        this.#collect(member.type.struct.members, bits + member.bitOffset, into, depth + 1);
      }
    }
  }
}

function shifted(member: Member, bits: number): Member {
  if (bits === 0) return member;
  const bitOffset = member.bitOffset + bits;
  return { ...member, bitOffset, offset: Math.floor(bitOffset / 8) };
}

/** `a.b[2].c` as steps; `undefined` when it is no path. */
function parsePath(path: string): (string | number)[] | undefined {
  if (path.length > 256) return undefined;
  const steps: (string | number)[] = [];
  for (const part of path.split('.')) {
    const match = /^(\w+)((?:\[\d{1,9}\])*)$/.exec(part);
    if (match === null) return undefined;
    steps.push(match[1]!);
    for (const index of match[2]!.matchAll(/\d+/g)) steps.push(Number(index[0]));
  }
  return steps;
}
