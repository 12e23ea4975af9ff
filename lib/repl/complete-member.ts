import type { CompleterResult } from 'node:readline';
import { type Guest, StructObject } from '../index.js';

/**
 * What a chain of members may begin with, then members and indexes, then what was typed of a name.
 */
const CHAIN =
  /(?:\btask\((\d+)\)|\bvariable\((['"])(\w+)\2\)|([A-Za-z_$][\w$]*))((?:\??\.[\w$]+|\[\d+\])*)\??\.([\w$]*)$/;
const STEP = /\??\.([\w$]+)|\[(\d+)\]/g;
/** What every object has beside its members. */
const OWN = [
  '$address',
  '$type',
  '$size',
  '$struct',
  '$path',
  '$member(',
  '$has(',
  '$cast(',
  '$object(',
  '$add(',
  '$containerOf(',
  '$perCpu(',
  '$snapshot()',
  '$bytes()',
  '$format(',
];

/**
 * Completes members of structures: `task(1).object.mm.p`. Reads the guest for what stands before
 * the last dot, as running that would; no function is called but `task(PID)` and
 * `variable('name')`.
 * @returns `undefined` where that is no structure
 */
export function completeMember(
  line: string,
  guest: Guest,
  context: object,
): CompleterResult | undefined {
  const match = CHAIN.exec(line);
  if (match === null) return undefined;
  const [, pid, , variable, name, steps, prefix] = match;
  let value: unknown;
  if (pid !== undefined) value = guest.task(Number(pid));
  else if (variable !== undefined) value = guest.variable(variable);
  else value = Object.hasOwn(context, name!) ? Reflect.get(context, name!) : undefined;
  for (const [, member, index] of steps!.matchAll(STEP)) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = Reflect.get(value, member ?? index!);
  }
  if (!(value instanceof StructObject)) return undefined;
  const members = Object.getOwnPropertyNames(Object.getPrototypeOf(value)).filter(
    (one) => one !== 'constructor',
  );
  const all = prefix!.startsWith('$') ? OWN : members;
  return [all.filter((one) => one.startsWith(prefix!)), prefix!];
}
