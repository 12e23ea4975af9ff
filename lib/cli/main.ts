import { fstatSync } from 'node:fs';
import { isatty, type WriteStream } from 'node:tty';
import { EXIT } from './exit-code.js';
import { run } from './run.js';
import { StandardStream } from './standard-stream.js';

/** Milliseconds that the process may take to end after its command did and its output was read. */
const GRACE = 500;

// A result is whole without its remarks, and the exit code says how it went.
const stderr = new StandardStream(2, () => {});
const stdout = new StandardStream(1, (error) => {
  // The reader has seen enough: `vmi ps … | head`.
  if (error.code === 'EPIPE') process.exit(EXIT.done);
  stderr.write(`vmi: cannot write the result: ${error.message}\n`);
  process.exit(EXIT.output);
});

/** Whether it is a terminal; `node:tty` is loaded only for what may be one. */
const isTerminal = (descriptor: 0 | 1) =>
  fstatSync(descriptor).isCharacterDevice() && isatty(descriptor);

// Node would end with 13, without a word: nothing is under way, and the command is not done.
const stuck = () => {
  stderr.write('vmi: ended before it was done: what the script awaits never comes\n');
  process.exit(EXIT.no);
};
process.once('beforeExit', stuck);

void main();

async function main(): Promise<void> {
  process.exitCode = await run(process.argv.slice(2), {
    streams: { stdout, stderr, colours: isTerminal(1) && !process.env.NO_COLOR },
    env: process.env,
    // To make streams of these costs as much as a look-up: only for who needs them.
    get input() {
      return process.stdin;
    },
    get terminal() {
      return isTerminal(0) && isTerminal(1)
        ? { input: process.stdin, output: process.stdout as WriteStream }
        : undefined;
    },
    // Loaded when it is needed: help, and a wrong option, cost a fraction of it.
    attach: async (target, options) => (await import('../index.js')).attach(target, options),
    find: async (word) => (await import('../index.js')).findTarget(word),
    onInterrupt(interrupt) {
      // Once: a second ctrl-C ends the process the hard way.
      process.once('SIGINT', interrupt);
      return () => process.off('SIGINT', interrupt);
    },
  });
  process.off('beforeExit', stuck);
  // What is under way may end, as the cache's file; what a line typed into the REPL started must
  // not go on for ever.
  stdout.whenWritten(() => setTimeout(() => process.exit(), GRACE).unref());
}
