import { spawn } from 'node:child_process';
import { VmiError } from '../../errors.js';

/** How long a program may take: pahole reads a kernel's DWARF in a minute or two. */
const TIMEOUT = 600_000;
const MAX_OUTPUT = 512 << 20;
const MAX_ERROR = 2_000;

/** A program that reads what is not read here. */
export interface Tool {
  readonly command: string;
  readonly args: readonly string[];
  /** What its user gave, and what is to be done where the program is missing. */
  readonly file: string;
  readonly advice: string;
  /** What it reads from its standard input. */
  readonly input?: Buffer;
}

/**
 * Runs a program, and gives what it writes.
 * @throws {VmiError} `VMI_ATTACH`: it is not installed, fails, or takes ten minutes
 */
export function runTool({ command, args, file, advice, input }: Tool): Promise<Buffer> {
  return new Promise((done, failed) => {
    const child = spawn(command, args, { timeout: TIMEOUT, stdio: 'pipe' });
    const output: Buffer[] = [];
    let length = 0;
    let errors = '';
    const fail = (why: string) => {
      failed(new VmiError('VMI_ATTACH', `cannot read ${file} with ${command}: ${why}`));
    };
    child.stdout.on('data', (part: Buffer) => {
      length += part.length;
      if (length > MAX_OUTPUT) child.kill();
      else output.push(part);
    });
    child.stderr.on('data', (part: Buffer) => {
      if (errors.length < MAX_ERROR) errors += part.toString();
    });
    child.on('error', (error: NodeJS.ErrnoException) => {
      fail(error.code === 'ENOENT' ? advice : error.message);
    });
    child.on('close', (code) => {
      if (code === 0) done(Buffer.concat(output));
      else fail(errors.trim().slice(0, MAX_ERROR) || 'it was ended');
    });
    // A program that ends before it has read all is judged by how it ended.
    child.stdin.on('error', () => {});
    child.stdin.end(input);
  });
}
