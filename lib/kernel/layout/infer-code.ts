import { tryAnswer } from '../try-answer.js';
import { type Load, loadsOf } from './code.js';
import type { Inference } from './inference.js';
import type { MemberName } from './members.js';

/** Bytes of a function that are read. */
const LENGTH = 160;

/** A function that reads one member of a pair and not the other. */
interface Reader {
  readonly function: string;
  readonly from: Load['from'];
}

/** Functions that read a member, and not the other one that has the same values. */
const READERS = {
  // kernel/sys.c: task_tgid_vnr(rcu_dereference(current->real_parent)).
  'task_struct.real_parent': { function: '__x64_sys_getppid', from: 'current' },
  // kernel/cred.c: __task_cred(task), which is real_cred.
  'task_struct.real_cred': { function: 'get_task_cred', from: 'argument' },
  // kernel/fork.c.
  'task_struct.mm': { function: 'get_task_mm', from: 'argument' },
} as const satisfies Partial<Record<MemberName, Reader>>;
export type ReadMember = keyof typeof READERS;

/**
 * Places the first of two members that have the same values, by the code that reads it and by the
 * order in which they are declared: where both tell, they must agree, unless the kernel shuffled
 * its structures.
 */
export function settleTwin(of: Inference, name: ReadMember, places: readonly number[]): void {
  const byCode = placeByCode(of, name, places);
  const side = places.length === 2 && places[1]! - places[0]! === 8;
  const byOrder = side && !of.shuffled ? places[0] : undefined;
  if (byCode !== undefined && (byOrder ?? byCode) === byCode) of.place(name, byCode, 'by code');
  else if (byCode === undefined && byOrder !== undefined) of.place(name, byOrder, 'by order');
  else of.undecided.set(name, places);
}

/**
 * Which of several places a member has, by the code that reads it.
 * @returns `undefined` where the kernel names no such function, or its code says nothing or both
 */
export function placeByCode(
  of: Inference,
  name: ReadMember,
  places: readonly number[],
): number | undefined {
  const { function: reader, from } = READERS[name];
  const read = loads(of, reader)
    .filter((load) => load.from === from && load.path.length === 1 && load.size === 8)
    .map(({ path }) => path[0]!);
  const found = places.filter((place) => read.includes(place));
  return found.length === 1 ? found[0] : undefined;
}

/**
 * Where the user is in a task's credentials, by the code of getuid: `current->cred->uid`.
 * @param cred where `task_struct.cred` may be
 * @param places where `cred.uid` may be
 */
export function uidByCode(
  of: Inference,
  cred: readonly number[],
  places: readonly number[],
): number | undefined {
  const read = loads(of, '__x64_sys_getuid')
    .filter(({ from, path, size }) => from === 'current' && path.length === 2 && size === 4)
    .filter(({ path }) => cred.includes(path[0]!))
    .map(({ path }) => path[1]!);
  const found = places.filter((place) => read.includes(place));
  return found.length === 1 ? found[0] : undefined;
}

function loads(of: Inference, name: string): Load[] {
  const at = tryAnswer(() => of.from.symbols.find(name));
  if (at === undefined) return [];
  return loadsOf(of.words.atMost(at, LENGTH));
}
