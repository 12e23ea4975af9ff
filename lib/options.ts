import { didYouMean } from './suggest.js';

/**
 * The keys of an object with options, written down once more so that they exist at run time; the
 * compiler compares.
 */
export type OptionNames<Options> = { readonly [Name in keyof Required<Options>]: true };

/**
 * Checks that a value is an object, so that its members can be looked at.
 * @throws {TypeError}
 */
export function checkObject<Value>(value: Value, what = 'options'): Value & object {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  throw new TypeError(`Expected ${what} as an object but received ${describe(value)}`);
}

/**
 * Refuses an object with options that is none, or that has one nobody would read:
 * `{ thread: true }` for `threads`.
 * @throws {TypeError} with the names that there are, and those that come close
 */
export function checkOptions<Options>(
  options: Options,
  names: OptionNames<Options>,
  what = 'options',
): Options {
  checkObject(options, what);
  for (const key of Object.keys(options as object)) {
    if (Object.hasOwn(names, key)) continue;
    const known = Object.keys(names);
    throw new TypeError(
      `Expected ${what} with ${listed(known)} but received '${key}'${didYouMean(key, known)}`,
    );
  }
  return options;
}

/**
 * Refuses a signal that is none: a promise or a controller in its place would never abort anything.
 * @throws {TypeError}
 */
export function checkSignal(signal: unknown): void {
  if (signal === undefined || signal instanceof AbortSignal) return;
  throw new TypeError(`Expected signal as an AbortSignal but received ${describe(signal)}`);
}

/**
 * Checks a switch: `'no'` in its place would be taken for yes.
 * @throws {TypeError}
 */
export function checkFlag(value: unknown, name: string): void {
  if (value === undefined || typeof value === 'boolean') return;
  throw new TypeError(`Expected ${name} as a boolean but received ${describe(value)}`);
}

/**
 * Checks an option that is called.
 * @throws {TypeError}
 */
export function checkFunction(value: unknown, name: string): void {
  if (value === undefined || typeof value === 'function') return;
  throw new TypeError(`Expected ${name} as a function but received ${describe(value)}`);
}

/**
 * Checks an option that is text.
 * @throws {TypeError}
 */
export function checkText(value: unknown, name: string): void {
  if (value === undefined || typeof value === 'string') return;
  throw new TypeError(`Expected ${name} as a string but received ${describe(value)}`);
}

/**
 * Checks a number that has to be whole and within limits, both of them allowed.
 * @throws {TypeError} no number
 * @throws {RangeError} no integer, or beyond the limits
 */
export function checkWhole(value: unknown, name: string, min: number, max: number): number {
  if (Number.isInteger(value) && (value as number) >= min && (value as number) <= max)
    return value as number;
  const Failure = typeof value === 'number' ? RangeError : TypeError;
  throw new Failure(
    `Expected ${name} as an integer between ${min} and ${max} but received ${describe(value)}`,
  );
}

/**
 * Checks an option that is one of a few values.
 * @throws {TypeError}
 */
export function checkOneOf(value: unknown, name: string, values: readonly unknown[]): void {
  if (value === undefined || values.includes(value)) return;
  throw new TypeError(
    `Expected ${name} as one of ${values.join(', ')} but received ${describe(value)}`,
  );
}

/**
 * Checks an option that is a list, and what is in it: holes in it, too.
 * @throws {TypeError} no list @throws whatever `check` throws
 */
export function checkList(
  value: unknown,
  name: string,
  check: (element: unknown, name: string) => void,
): void {
  if (value === undefined) return;
  if (!Array.isArray(value))
    throw new TypeError(`Expected ${name} as an array but received ${describe(value)}`);
  // Not by forEach: it passes over holes.
  for (const [i, element] of value.entries()) check(element, `${name}[${i}]`);
}

/**
 * Refuses an argument of a method that has none: whoever gives one expects it to do something.
 * @throws {TypeError}
 */
export function checkNone(surplus: readonly unknown[], method: string): void {
  if (surplus.length === 0) return;
  throw new TypeError(`Expected ${method} without arguments but received ${describe(surplus[0])}`);
}

/**
 * Checks a number of elements, which may be negative.
 * @throws {TypeError} no integer
 */
export function toCount(value: unknown, name = 'count'): bigint {
  if (typeof value === 'bigint') return value;
  if (typeof value === 'number' && Number.isSafeInteger(value)) return BigInt(value);
  throw new TypeError(`Expected ${name} as an integer but received ${describe(value)}`);
}

/**
 * Checks a name.
 * @throws {TypeError}
 */
export function checkName(value: string, what = 'name'): string {
  if (typeof value === 'string') return value;
  throw new TypeError(`Expected ${what} as a string but received ${describe(value)}`);
}

/**
 * What a value is, for the end of a message: `undefined`, `null`, `an array`, `'text'`, `14776`,
 * `an object`.
 */
export function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value === 'string') return `'${value.length > 60 ? `${value.slice(0, 60)}…` : value}'`;
  if (Array.isArray(value)) return 'an array';
  if (typeof value === 'object') return 'an object';
  if (typeof value === 'function') return 'a function';
  return typeof value === 'bigint' ? `${value}n` : String(value);
}

function listed(names: readonly string[]): string {
  return names.length === 0 ? 'nothing in it' : names.join(', ');
}
