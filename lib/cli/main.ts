#!/usr/bin/env node
import { EXIT } from './exit-code.js';
import { run } from './run.js';

/** Milliseconds that the process may take to end after its command did and its output was read. */
const GRACE = 500;

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // The reader has seen enough: `vmi ps … | head`.
  if (error.code === 'EPIPE') process.exit(EXIT.done);
  process.stderr.write(`vmi: cannot write the result: ${error.message}\n`);
  process.exit(EXIT.output);
});
// A result is whole without its remarks, and the exit code says how it went.
process.stderr.on('error', () => {});

// Node would end with 13, without a word: nothing is under way, and the command is not done.
const stuck = () => {
  process.stderr.write('vmi: ended before it was done: what the script awaits never comes\n');
  process.exit(EXIT.no);
};
process.once('beforeExit', stuck);

const code = await run(process.argv.slice(2), {
  streams: {
    stdout: process.stdout,
    stderr: process.stderr,
    colours: process.stdout.isTTY === true && !process.env.NO_COLOR,
  },
  env: process.env,
  terminal:
    process.stdin.isTTY && process.stdout.isTTY
      ? { input: process.stdin, output: process.stdout }
      : undefined,
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
process.exitCode = code;
// Once all is written: what is under way may end, as the cache's file; what a line typed into the
// REPL started must not go on for ever.
const end = () => setTimeout(() => process.exit(), GRACE).unref();
// To write nothing where nothing can be written is a failure, too.
if (process.stdout.writableLength === 0) end();
else process.stdout.write('', end);
