import { parseArgs } from 'node:util';
import { parseAddress } from '../address.js';
import { VmiError } from '../errors.js';
import type { Guest, SpaceOptions } from '../index.js';
import { closest } from '../suggest.js';
import type { Command, Invocation, Option } from './command.js';

/** The command line is wrong: exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** Highest PID that a 32-bit pid_t can hold. */
const MAX_PID = 0x7fff_ffff;
const MAX_LENGTH = 0x7fff_ffff;

export interface ParsedLine {
  readonly operands: readonly string[];
  readonly options: Readonly<Record<string, string | boolean | readonly string[] | undefined>>;
}

/**
 * Splits a command's words into operands and options.
 * @throws {UsageError} unknown option, missing value, too few or too many operands
 */
export function parseLine(
  command: Command,
  globals: Readonly<Record<string, Option>>,
  args: readonly string[],
): ParsedLine {
  const known = { ...globals, ...command.options };
  const parsed = parseArgs({
    args: guardNegative(args),
    allowPositionals: true,
    // What is wrong is told by its tokens, in this program's words.
    strict: false,
    tokens: true,
    options: Object.fromEntries(
      Object.entries(known).map(([name, option]) => [
        name,
        {
          type: option.value === undefined ? ('boolean' as const) : ('string' as const),
          multiple: option.many === true,
          ...(option.short === undefined ? {} : { short: option.short }),
        },
      ]),
    ),
  });
  const given = new Set<string>();
  for (const token of parsed.tokens) {
    if (token.kind !== 'option') continue;
    const { value, many } = checkOption(token, known);
    // Of two values the first would be forgotten without a word.
    if (value !== undefined && many !== true && given.has(token.name))
      throw new UsageError(`option '${token.rawName}' was given twice`);
    given.add(token.name);
  }
  const options = Object.fromEntries(
    Object.entries(parsed.values).map(([name, value]) => [
      name,
      Array.isArray(value)
        ? value.map((one) => (typeof one === 'string' ? unguard(one) : one))
        : typeof value === 'string'
          ? unguard(value)
          : value,
    ]),
  ) as ParsedLine['options'];
  return { operands: parsed.positionals.map(unguard), options };
}

/** An option as it was written. */
interface OptionToken {
  readonly name: string;
  readonly rawName: string;
  readonly value?: string | undefined;
  readonly inlineValue?: boolean | undefined;
}

/**
 * The option that was written.
 * @throws {UsageError} there is none of this name, or its value is missing or one too many
 */
function checkOption(token: OptionToken, known: Readonly<Record<string, Option>>): Option {
  const { name, rawName, value } = token;
  const option = Object.hasOwn(known, name) ? known[name]! : undefined;
  if (option === undefined) {
    const close = closestOption(name, Object.keys(known));
    const hint = close === undefined ? '' : `; did you mean --${close}?`;
    throw new UsageError(`unknown option '${rawName}'${hint}`);
  }
  if (option.value === undefined) {
    if (value !== undefined) throw new UsageError(`option '${rawName}' takes no value`);
    return option;
  }
  // A word that looks like an option is one that follows, and the value was forgotten.
  if (value === undefined || (token.inlineValue !== true && /^-./.test(value)))
    throw new UsageError(`option '${rawName} ${option.value}' needs its value`);
  return option;
}

/** @throws {UsageError} too few or too many operands */
export function checkOperands(command: Command, operands: readonly string[]): void {
  const missing = command.operands[operands.length];
  if (missing !== undefined && missing.optional !== true)
    throw new UsageError(`missing ${missing.name} (${missing.summary})`);
  const last = command.operands.at(-1);
  if (operands.length > command.operands.length && last?.many !== true) {
    throw new UsageError(`unexpected argument '${operands[command.operands.length]}'`);
  }
}

/**
 * A PID as a person writes it. 0 is let through: the guest says why it names no task.
 * @throws {UsageError}
 */
export function parsePid(text: string, name = 'PID'): number {
  const pid = Number(text);
  if (!/^[0-9]+$/.test(text) || pid > MAX_PID) {
    throw new UsageError(
      `Expected ${name} as an integer between 1 and ${MAX_PID} but received '${text}'`,
    );
  }
  return pid;
}

/** @throws {UsageError} not a length, decimal or 0x… */
export function parseKernel(text: string): number {
  if (/^[1-9][0-9]{0,3}$/.test(text)) return Number(text);
  throw new UsageError(`Expected --kernel as a number of 1 and more but received '${text}'`);
}

/** @throws {UsageError} */
export function parseLength(text: string, name = 'LENGTH'): number {
  const length = Number(text);
  if (!/^([0-9]+|0x[0-9a-f]+)$/i.test(text) || length < 1 || length > MAX_LENGTH) {
    throw new UsageError(
      `Expected ${name} as an integer between 1 and ${MAX_LENGTH} but received '${text}'`,
    );
  }
  return length;
}

/** @throws {UsageError} not an address */
export function parseAddressOperand(text: string, name = 'ADDRESS'): bigint {
  try {
    return parseAddress(text, name);
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

/**
 * Whether a word is an address and nothing else: `0x…`, decimal, or sixteen hex digits. No symbol
 * looks like that.
 */
export function isAddress(text: string): boolean {
  return /^(0x|-|[0-9])/i.test(text) || /^[0-9a-f]{16}$/i.test(text);
}

/**
 * An operand that is an address, or a symbol of the kernel with or without `+OFFSET`. Checks what
 * can be checked before a guest is attached; the answer is for when one is.
 * @throws {UsageError} not an address
 */
export function parsePlace(text: string): (guest: Guest) => bigint {
  if (isAddress(text)) {
    const address = parseAddressOperand(text);
    return () => address;
  }
  const match = /^([^+]+)(?:\+(0x[0-9a-f]+|[0-9]+))?$/i.exec(text);
  if (match === null) {
    throw new UsageError(
      `Expected ADDRESS like 0xffff888000000000, 4096 or init_task+0x10 but received '${text}'`,
    );
  }
  const offset = BigInt(match[2] ?? 0);
  return (guest) => {
    try {
      return BigInt.asUintN(64, guest.symbol(match[1]!) + offset);
    } catch (error) {
      // Hex digits without 0x, as other tools print them, where no symbol has that name.
      const noSymbol = error instanceof VmiError && error.code === 'VMI_SYMBOL';
      if (noSymbol && /^[0-9a-f]+$/i.test(text)) return parseAddressOperand(text);
      throw error;
    }
  };
}

/** Bytes as hex digits. @throws {UsageError} */
export function parseBytes(text: string): Buffer {
  const digits = text.replace(/^0x|[\s:_]/gi, '');
  if (!/^(?:[0-9a-f]{2})+$/i.test(digits)) {
    throw new UsageError(`Expected bytes as pairs of hex digits but received '${text}'`);
  }
  return Buffer.from(digits, 'hex');
}

/** The page table that `--pid` or `--cr3` names. @throws {UsageError} */
export function parseSpace(invocation: Invocation): SpaceOptions {
  onlyOne(invocation, 'pid', 'cr3');
  const pid = invocation.value('pid');
  const cr3 = invocation.value('cr3');
  if (pid !== undefined) return { pid: parsePid(pid, '--pid') };
  if (cr3 !== undefined) return { cr3: parseAddressOperand(cr3, '--cr3') };
  return {};
}

/** @throws {UsageError} more than one of these options was given */
export function onlyOne(invocation: Invocation, ...options: string[]): void {
  const given = options.filter(
    (option) =>
      invocation.has(option) ||
      invocation.value(option) !== undefined ||
      invocation.values(option).length > 0,
  );
  if (given.length > 1) throw new UsageError(`--${given[0]} and --${given[1]} do not go together`);
}

/** A word like `-5` is a number out of range, not an option: parseArgs must not see its dash. */
const GUARD = '\u0000';

function guardNegative(args: readonly string[]): string[] {
  return args.map((arg) => (/^-[0-9]/.test(arg) ? GUARD + arg : arg));
}

function unguard(text: string): string {
  return text.startsWith(GUARD) ? text.slice(GUARD.length) : text;
}

function closestOption(name: string, known: readonly string[]): string | undefined {
  if (name.length < 2) return undefined;
  return closest(name, known, 1)[0] ?? known.find((one) => one.startsWith(name.slice(0, 3)));
}
