import { VmiError } from '../errors.js';
import type { AttachOptions, Guest } from '../index.js';
import { milliseconds } from '../milliseconds.js';
import { didYouMean } from '../suggest.js';
import { parseTarget, type Target } from '../target.js';
import { version } from '../version.js';
import { checkOperands, type ParsedLine, parseKernel, parseLine, UsageError } from './arguments.js';
import { type Command, GLOBAL_OPTIONS, type Invocation, TARGET } from './command.js';
import { COMMANDS } from './commands.js';
import { EXIT, exitCodeOf } from './exit-code.js';
import { commandHelp, generalHelp } from './help.js';
import { Output, OutputError, type Streams } from './output.js';
import type { Terminal } from './screen.js';

/** What a run of `vmi` needs from the world; a test gives its own. */
export interface World {
  readonly streams: Streams;
  readonly env: NodeJS.ProcessEnv;
  /** Standard input; the process's when left out. */
  readonly input?: NodeJS.ReadableStream;
  attach(target: Target, options: AttachOptions): Promise<Guest>;
  /** The terminal, where input and output are one. */
  readonly terminal?: Terminal | undefined;
  /** What a word that is no target means on this host; without one, the only guest. */
  find(word: string | undefined): Promise<Target>;
  /** Calls `interrupt` on ctrl-C from now on; the function it returns stops that. */
  onInterrupt(interrupt: () => void): () => void;
}

/**
 * Runs `vmi` with the words after its name.
 * @returns the exit code; never throws for what a user or a guest did
 */
export async function run(args: readonly string[], world: World): Promise<number> {
  const out = new Output(world.streams);
  const [first, ...rest] = args;
  if (first === undefined) {
    for (const line of generalHelp()) world.streams.stderr.write(`${line}\n`);
    return EXIT.usage;
  }
  const isVersion = first === '--version' || first === '-V';
  const isHelp = first === '--help' || first === '-h' || first === 'help';
  if (!isVersion && !isHelp) {
    const command = COMMANDS.find(({ name }) => name === first);
    return command === undefined ? refuse(first, out) : runCommand(command, rest, world);
  }
  const surplus = rest[isHelp ? 1 : 0];
  if (surplus !== undefined) {
    out.error(`unexpected argument '${surplus}'; see 'vmi --help'`);
    return EXIT.usage;
  }
  if (isVersion) out.line(version());
  else if (rest[0] === undefined) out.lines(generalHelp());
  else {
    const command = COMMANDS.find(({ name }) => name === rest[0]);
    if (command === undefined) return refuse(rest[0], out);
    out.lines(commandHelp(command));
  }
  return EXIT.done;
}

/** A word where a command stands that is none. @returns the exit code */
function refuse(word: string, out: Output): number {
  const hint = didYouMean(
    word,
    COMMANDS.map(({ name }) => name),
  );
  const what = word.startsWith('-') ? 'option' : 'command';
  out.error(`unknown ${what} '${word}'${hint.replace(/\?$/, '')}; see 'vmi --help'`);
  return EXIT.usage;
}

async function runCommand(
  command: Command,
  args: readonly string[],
  world: World,
): Promise<number> {
  let out = new Output(world.streams);
  let attaching = false;
  try {
    const { operands, options } = parseLine(command, GLOBAL_OPTIONS, args);
    if (options.help === true) {
      out.lines(commandHelp(command));
      return EXIT.done;
    }
    // A command that asks nothing but for a guest finds the only one by itself.
    if (operands.length > 0 || !asksForGuestOnly(command)) checkOperands(command, operands);
    out = new Output(world.streams, options.quiet === true);
    const value = (name: string) => {
      const given = options[name];
      return typeof given === 'string' ? given : undefined;
    };
    const invocation: Invocation = {
      operands,
      out,
      env: world.env,
      commands: COMMANDS,
      get input() {
        return world.input ?? process.stdin;
      },
      has: (name) => options[name] === true,
      value,
      values: (name) => (Array.isArray(options[name]) ? (options[name] as string[]) : []),
      get terminal() {
        return world.terminal;
      },
      onInterrupt: (interrupt) => world.onInterrupt(interrupt),
      async runOn([name = '', ...rest], attach) {
        const other = COMMANDS.find((one) => one.name === name);
        if (other === undefined) throw new UsageError(`unknown command '${name}'`);
        return runCommand(
          other,
          [operands[0]!, ...rest],
          Object.create(world, { attach: { value: attach } }),
        );
      },
      words: (from) => readWords(operands.slice(from), world),
      async withGuest(use) {
        const target = await toTarget(operands[0], world);
        const asked = attachOptions(options);
        attaching = true;
        const started = milliseconds();
        const guest = await attachInterruptibly(world, target, asked);
        attaching = false;
        if (asked.kernel === undefined) await tellKernels(guest, out);
        try {
          return await use(guest, milliseconds() - started);
        } finally {
          await guest.close();
        }
      },
    };
    return await command.run(invocation);
  } catch (error) {
    return report(error, out, command, attaching);
  }
}

/** What an attach is told by options. @throws {UsageError} a number of a kernel that is none */
function attachOptions(options: ParsedLine['options']): AttachOptions {
  const { profile, kernel } = options;
  return {
    ...(Array.isArray(profile) ? { profile: profile as string[] } : {}),
    ...(options['no-cache'] === true ? { cache: false } : {}),
    ...(options.isolate === true ? { isolate: true } : {}),
    ...(typeof kernel === 'string' ? { kernel: parseKernel(kernel) } : {}),
    ...(options.write === true || options.yes === true ? { write: true } : {}),
  };
}

/** Names the kernels in RAM where one of several was taken unasked. */
async function tellKernels({ kernel }: Guest, out: Output): Promise<void> {
  const { inRam = [], provenance } = kernel;
  if (inRam.length < 2) return;
  const { kernelsText } = await import('../index.js');
  const { number } = inRam.find(({ chosen }) => chosen)!;
  out.note(
    `${inRam.length} kernels are in this memory: ${kernelsText(inRam)}. Kernel ${number} was taken because ${provenance.chosen}; --kernel N takes another`,
  );
}

/** Ctrl-C ends an attach; it is nobody's signal any more once the guest is there. */
async function attachInterruptibly(
  world: World,
  target: Target,
  options: AttachOptions,
): Promise<Guest> {
  const abort = new AbortController();
  const forget = world.onInterrupt(() => abort.abort());
  try {
    return await world.attach(target, { ...options, signal: abort.signal });
  } finally {
    forget();
  }
}

function asksForGuestOnly({ operands: [first, ...rest] }: Command): boolean {
  return first === TARGET && rest.every(({ optional }) => optional === true);
}

/** A target; or the name or PID of a guest, which is looked up. */
async function toTarget(text: string | undefined, world: World): Promise<Target> {
  try {
    const isName = text === undefined || !text.includes(':') || /^qemu:(?![0-9-])./.test(text);
    return isName ? await world.find(text) : parseTarget(text);
  } catch (error) {
    if (error instanceof VmiError) throw error;
    throw new UsageError((error as Error).message);
  }
}

/** Most that is taken from standard input. */
const MAX_INPUT = 64 << 20;

/** Operands, and for `-` the words of standard input. @throws {UsageError} there is none in it */
async function readWords(operands: readonly string[], world: World): Promise<string[]> {
  if (!operands.includes('-')) return [...operands];
  let text = '';
  for await (const chunk of world.input ?? process.stdin) {
    text += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString('latin1');
    if (text.length > MAX_INPUT) throw new UsageError('standard input is too long');
  }
  const words = text.split(/\s+/).filter((word) => word !== '');
  if (words.length === 0) throw new UsageError("'-' stands for standard input, which has no words");
  return operands.flatMap((operand) => (operand === '-' ? words : [operand]));
}

function report(error: unknown, out: Output, command: Command, attaching: boolean): number {
  if (error instanceof UsageError) {
    out.error(`${error.message}; see 'vmi ${command.name} --help'`);
    return EXIT.usage;
  }
  if (error instanceof OutputError) {
    out.error(error.message);
    return EXIT.output;
  }
  if (error instanceof VmiError) {
    out.error(error.message);
    return attaching && error.code !== 'VMI_ABORTED' ? EXIT.attach : exitCodeOf(error.code);
  }
  out.error(
    `this is a bug in vmi: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
  );
  return EXIT.bug;
}
