import type { Guest } from '../index.js';
import { TARGET_FORMS } from '../target.js';
import type { Output } from './output.js';
import type { Terminal } from './screen.js';

/** What a value is taken from: a closed set, or what can be listed when one is typed. */
export type Values = readonly string[] | 'files' | 'targets' | 'commands';

/** A word after the command that is no option. */
export interface Operand {
  readonly name: string;
  readonly summary: string;
  /** Whether it may be given more than once; only the last operand may. */
  readonly many?: boolean;
  /** Whether it may be left out; only the last operand may. */
  readonly optional?: boolean;
  readonly values?: Values;
}

export interface Option {
  readonly summary: string;
  readonly short?: string;
  /** Name of its value in the help; a switch when left out. */
  readonly value?: string;
  readonly values?: Values;
  /** Whether it may be given more than once. */
  readonly many?: boolean;
}

/** One command of `vmi`: what the help says of it, and what it does. */
export interface Command {
  readonly name: string;
  readonly summary: string;
  readonly operands: readonly Operand[];
  readonly options: Readonly<Record<string, Option>>;
  /** Paragraphs below the options in the command's own help. */
  readonly details?: readonly string[];
  readonly examples: readonly string[];
  /** @returns the exit code */
  run(invocation: Invocation): Promise<number> | number;
}

/** One call of a command. */
export interface Invocation {
  /** As many as the command declares, or more when the last one may be repeated. */
  readonly operands: readonly string[];
  readonly out: Output;
  readonly env: NodeJS.ProcessEnv;
  /** Every command of `vmi`, for those that tell of the others. */
  readonly commands: readonly Command[];
  /** Standard input. */
  readonly input: NodeJS.ReadableStream;
  /** Whether a switch was given. */
  has(option: string): boolean;
  /** The value of an option. */
  value(option: string): string | undefined;
  /** The values of an option that may be given more than once. */
  values(option: string): readonly string[];
  /** The terminal that it was started from; `undefined`: input or output is something else. */
  readonly terminal: Terminal | undefined;
  /** Calls `interrupt` on Ctrl-C from now on; the function it returns stops that. */
  onInterrupt(interrupt: () => void): () => void;
  /**
   * Runs another command, given as its words without TARGET, on what `attach` gives; closes that
   * whatever happens.
   * @returns the exit code
   */
  runOn(words: readonly string[], attach: () => Promise<Guest>): Promise<number>;
  /** Operands from this one on; `-` among them stands for the words of standard input. */
  words(from: number): Promise<string[]>;
  /** Attaches to the first operand, and closes the guest whatever happens. */
  withGuest(
    use: (guest: Guest, attachMilliseconds: number) => Promise<number> | number,
  ): Promise<number>;
}

/** Options that every command takes. */
export const GLOBAL_OPTIONS: Readonly<Record<string, Option>> = {
  quiet: { short: 'q', summary: 'print results and errors only, no remarks' },
  help: { short: 'h', summary: 'show this help' },
};

/** What may stand where a command does. */
export const INSTEAD: Readonly<Record<string, Option>> = {
  help: { short: 'h', summary: 'show this help, or that of the command that follows' },
  version: { short: 'V', summary: 'print the version of vmi' },
};

export const JSON_OPTION = {
  json: { summary: 'print one JSON object a line; addresses are hex strings' },
} as const;

/** Options of every command that attaches. */
export const ATTACH_OPTIONS = {
  profile: {
    value: 'FILE',
    values: 'files',
    many: true,
    summary:
      'take symbols and types from a file: System.map, Volatility ISF, libvmi.conf[#ENTRY]; may be repeated',
  },
  kernel: {
    value: 'N',
    summary:
      'take this one of several kernels in RAM, which a crash, a kexec or a warm reset leaves there: vmi info names them with their numbers',
  },
  isolate: {
    summary:
      'run libvmi, where it is the source, in a process of its own: it cannot take this one along',
  },
  'no-cache': { summary: 'neither use nor keep what was found in this kernel before' },
} as const;

/** Of commands that may change the guest; it is opened read-only without. */
export const WRITE_OPTION = {
  write: { summary: 'let the code write guest memory; without, it is opened read-only' },
} as const;

export const SPACE_OPTIONS = {
  pid: {
    value: 'PID',
    summary: "look the address up in this task's page table instead of the kernel's",
  },
  cr3: { value: 'CR3', summary: 'look the address up in the page table of this CR3 value' },
} as const;

export const TARGET: Operand = {
  name: 'TARGET',
  summary: `${TARGET_FORMS}; or the name or PID of a guest on this host`,
  values: 'targets',
};

/** `cr3 TARGET PID…` */
export function operandsText(command: Command): string {
  return [command.name, ...command.operands.map(operandText)].join(' ');
}

function operandText(operand: Operand): string {
  const text = operand.many === true ? `${operand.name}…` : operand.name;
  return operand.optional === true ? `[${text}]` : text;
}
