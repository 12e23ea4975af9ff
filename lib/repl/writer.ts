import { type InspectOptions, inspect } from 'node:util';
import { hex, VmiError } from '../errors.js';
import { type GuestCpu, type StructType, Task, type WalkResult } from '../index.js';
import { hexdump } from '../text/hexdump.js';
import { paint, printableLines, type Styles, styles } from '../text/printable.js';
import { structText } from '../text/struct.js';
import { cpuTable, taskTable } from '../text/task.js';
import { walkText } from '../text/walk.js';

/** Bytes of a buffer that are shown. */
const MAX_BYTES = 4096;
/** Rows of a table that are shown; a guest may have any number of tasks. */
const MAX_ROWS = 10_000;

/** How the REPL prints a result: tables for tasks, dumps for bytes, hex for every bigint. */
export class Writer {
  readonly #colours: boolean;
  readonly #styles: Styles;
  readonly #origins: WeakMap<Uint8Array, bigint>;

  /** @param origins guest addresses of buffers, for their dumps */
  constructor(colours: boolean, origins = new WeakMap<Uint8Array, bigint>()) {
    this.#colours = colours;
    this.#styles = styles(colours);
    this.#origins = origins;
  }

  write = (value: unknown): string => {
    if (value instanceof Error) {
      const line = errorLine(value);
      if (line !== undefined) return printableLines(line);
    }
    const lines = this.#special(value);
    return lines === undefined ? this.inspect(value) : lines.join('\n');
  };

  /** `util.inspect` with bigints in hex, at any depth. */
  inspect(value: unknown): string {
    const stylize = (text: string, style: string) =>
      this.#paint(style === 'bigint' ? hexOf(text) : text, style);
    // `stylize` is what custom inspectors are given; inspect takes it as an option too, but its
    // types do not say so.
    return inspect(value, {
      stylize,
      colors: false,
      maxArrayLength: 100,
      depth: 2,
      getters: true,
    } as InspectOptions);
  }

  #special(value: unknown): string[] | undefined {
    if (value instanceof Uint8Array) return this.#dump(value);
    if (isWalk(value)) return walkText(value, this.#styles);
    if (isStruct(value)) return structText(value, this.#styles);
    if (!Array.isArray(value) || value.length === 0) return undefined;
    const rows = value.slice(0, MAX_ROWS);
    const rest = value.length > rows.length ? [`… and ${value.length - rows.length} more`] : [];
    if (rows.every((row) => row instanceof Task)) {
      return [
        ...taskTable(
          rows.map((task) => task.toJSON()),
          this.#styles,
        ),
        ...rest,
      ];
    }
    if (rows.every(isCpu)) return [...cpuTable(rows, this.#styles), ...rest];
    return undefined;
  }

  #dump(bytes: Uint8Array): string[] {
    if (bytes.length === 0) return ['(no bytes)'];
    const lines = hexdump(bytes.subarray(0, MAX_BYTES), this.#origins.get(bytes) ?? 0n);
    if (bytes.length > MAX_BYTES) lines.push(`… and ${bytes.length - MAX_BYTES} bytes more`);
    return lines;
  }

  #paint(text: string, style: string): string {
    const colour = (inspect.styles as Record<string, string | undefined>)[style];
    return this.#colours && colour !== undefined ? paint(text, colour) : text;
  }
}

/**
 * An error whose stack says nothing to who typed the line: the guest's answer, a wrong argument,
 * ctrl-C.
 */
function errorLine(error: Error): string | undefined {
  if (error instanceof VmiError) return `${error.code}: ${error.message}`;
  if ((error as NodeJS.ErrnoException).code === 'ERR_SCRIPT_EXECUTION_INTERRUPTED')
    return 'interrupted';
  const misuse = error instanceof TypeError || error instanceof RangeError;
  return misuse && error.message.startsWith('Expected ')
    ? `${error.name}: ${error.message}`
    : undefined;
}

/** inspect's `4096n` as `0x1000n`: still what JavaScript reads. */
function hexOf(text: string): string {
  const match = /^(-?)(\d+)n$/.exec(text);
  return match === null ? text : `${match[1]}${hex(BigInt(match[2]!))}n`;
}

function isWalk(value: unknown): value is WalkResult {
  const walk = value as Partial<WalkResult> | null;
  return (
    typeof walk === 'object' &&
    walk !== null &&
    Array.isArray(walk.steps) &&
    typeof walk.root === 'bigint'
  );
}

function isStruct(value: unknown): value is StructType {
  const struct = value as Partial<StructType> | null;
  return (
    typeof struct === 'object' &&
    struct !== null &&
    typeof struct.findMember === 'function' &&
    Array.isArray(struct.members)
  );
}

function isCpu(value: unknown): value is GuestCpu {
  const cpu = value as Partial<GuestCpu> | null;
  return (
    typeof cpu === 'object' &&
    cpu !== null &&
    typeof cpu.cpu === 'number' &&
    cpu.task instanceof Task
  );
}
