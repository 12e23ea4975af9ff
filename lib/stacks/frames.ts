import { inspect } from 'node:util';
import { hex } from '../errors.js';
import { escapeText } from '../escape.js';
import { describe } from '../options.js';

/** A function that has not returned: where it goes on. */
export interface Frame {
  /** Where the function goes on once what it called returns. */
  readonly address: bigint;
  /** Name of the function; `undefined` where no symbol is. */
  readonly symbol: string | undefined;
  /** Bytes from the start of the function. */
  readonly offset: number;
  /** The module that the function is in. */
  readonly module?: string;
  /** Whether it was guessed by a frame pointer, where the kernel's tables say nothing. */
  readonly guessed: boolean;
}

/** The functions a task is in, the innermost first. */
export class Stack extends Array<Frame> {
  /** Why it ends before the task's first function; `undefined` when it does not. */
  incomplete: string | undefined;
  /** The vCPU whose registers it begins with, where the task runs; `undefined` off the CPU. */
  vcpu: number | undefined;

  /** Derived arrays (`filter`, `map`) are plain ones. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }

  /** A line a frame, as `/proc/PID/stack` has them. */
  override toString(): string {
    return this.map(frameText).join('\n');
  }

  [inspect.custom](): string {
    const end = this.incomplete === undefined ? '' : `\n(ends here: ${this.incomplete})`;
    if (this.vcpu === undefined) return `${this.toString()}${end}`;
    const where = this.length === 0 && end === '' ? ', in user mode' : '';
    return `(runs on vCPU ${this.vcpu}${where})${this.length === 0 ? '' : `\n${this}`}${end}`;
  }
}

/** `do_wait+0x160`, `nf_hook+0x4 [nf_tables]`, `? schedule+0x5a` where it is a guess. */
export function frameText(frame: Frame): string {
  if (typeof frame !== 'object' || frame === null)
    throw new TypeError(`Expected frame as a frame of a stack but received ${describe(frame)}`);
  const { address, symbol, offset, module, guessed } = frame;
  const name = symbol === undefined ? hex(address) : `${escapeText(symbol)}+${hex(offset)}`;
  const where = module === undefined ? '' : ` [${escapeText(module)}]`;
  return `${guessed ? '? ' : ''}${name}${where}`;
}
