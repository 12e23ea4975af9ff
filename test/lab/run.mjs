// @ts-check
/** Runs a program to its end; the one place where the lab waits for one. */
import { spawn } from 'node:child_process';

/** @typedef {(message: string) => void} Log */

/** Tells progress on standard error; the default of every `log` option. @type {Log} */
export const stderrLog = (message) => void process.stderr.write(`lab: ${message}\n`);

/**
 * Runs a program and returns what it wrote to standard output.
 *
 * @param {string} command program name or path
 * @param {string[]} args arguments, passed as they are (no shell)
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv, input?: string }} [options]
 * @returns {Promise<string>} standard output
 * @throws {Error} when the program cannot start or fails; the message ends with what it printed
 *   last
 */
export function run(command, args, { cwd, env, input } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd,
      env: env ?? process.env,
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    /** @type {Buffer[]} */ const out = [];
    /** @type {Buffer[]} */ const all = [];
    child.stdout.on('data', (data) => {
      out.push(data);
      all.push(data);
    });
    child.stderr.on('data', (data) => all.push(data));
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (code === 0) return resolve(Buffer.concat(out).toString());
      const tail = Buffer.concat(all).toString().trimEnd().split('\n').slice(-25).join('\n');
      reject(
        new Error(`${command} ${args.join(' ')} ended with ${signal ?? `code ${code}`}:\n${tail}`),
      );
    });
    child.stdin.on('error', () => {});
    child.stdin.end(input);
  });
}

/**
 * Says whether a program is on the PATH (or in the system administration folders).
 *
 * @param {string} program
 * @returns {Promise<string | undefined>} its path
 */
export async function which(program) {
  const { access, constants } = await import('node:fs/promises');
  for (const folder of `${process.env.PATH ?? ''}:/usr/sbin:/sbin:/usr/bin:/bin`.split(':')) {
    if (folder === '') continue;
    try {
      await access(`${folder}/${program}`, constants.X_OK);
      return `${folder}/${program}`;
    } catch {
      /* not here */
    }
  }
  return undefined;
}
