import type { Cr3Name, Cr3Owner } from '../monitor/cr3-index.js';

/**
 * Numbers that can be CR3 values: with 0x, as register dumps print them (zeroes in front), or
 * behind the register's name.
 */
const NUMBERS =
  /(?<![\w.])(?:0x([0-9a-f]{4,16})|(0[0-9a-f]{7,15}))(?![\w])|(?<=\bcr3\W{1,3})([0-9a-f]{4,16})(?!\w)/gi;
/** Processes that are named in one place. */
const MAX_OWNERS = 3;

/** A number of a text that is a CR3 value of the guest, and where it ends. */
export interface FoundCr3 {
  readonly end: number;
  readonly name: Cr3Name;
}

/** Numbers in a text that may be CR3 values. */
export function numbersOf(line: string): { value: bigint; end: number }[] {
  return Array.from(line.matchAll(NUMBERS), (match) => ({
    value: BigInt(`0x${match[1] ?? match[2] ?? match[3]}`),
    end: match.index + match[0].length,
  }));
}

/** A line with whose each CR3 value is behind it: `cr3 0x3acec005 [412 make]`. */
export function annotated(line: string, found: readonly FoundCr3[]): string {
  let text = '';
  let from = 0;
  for (const { end, name } of found) {
    text += `${line.slice(from, end)} [${nameText(name)}]`;
    from = end;
  }
  return text + line.slice(from);
}

/** Whose a CR3 value is: a `?` where nobody can be sure. */
function nameText({ kernel, owners, certain }: Cr3Name): string {
  if (kernel) return 'kernel';
  const processes = leaders(owners);
  const names = processes
    .slice(0, MAX_OWNERS)
    .map(({ pid, comm, gone }) => `${pid} ${comm}${gone ? ', gone' : ''}${certain ? '' : '?'}`);
  const more = processes.length - names.length;
  return names.join(' | ') + (more > 0 ? ` | ${more} more` : '');
}

/** The processes among the owners, or the tasks where no leader is among them. */
export function leaders(owners: readonly Cr3Owner[]): readonly Cr3Owner[] {
  const own = owners.filter(({ pid, tgid }) => pid === tgid);
  return own.length > 0 ? own : owners;
}
