import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export type Fault = 'fail' | 'short' | 'lie' | 'block' | 'loop' | 'crash';

const SOURCE = fileURLToPath(new URL('../stand-in.c', import.meta.url));

/** A folder with the stand-in library, built, and a file of RAM for it. */
export class StandIn {
  readonly folder = mkdtempSync(join(tmpdir(), 'node-libvmi-stand-in-'));
  readonly library = join(this.folder, 'stand-in.so');
  readonly tooOld = join(this.folder, 'too-old.so');
  readonly noEvents = join(this.folder, 'no-events.so');
  readonly ram = join(this.folder, 'ram');
  readonly #log = join(this.folder, 'log');
  #seen = 0;

  /** @param bytes of RAM; each 8 of them hold their own address */
  constructor(bytes = 1 << 20) {
    const build = (output: string, ...flags: string[]) =>
      execFileSync('cc', [
        '-Wall',
        '-Wextra',
        '-O1',
        '-shared',
        '-fPIC',
        ...flags,
        '-o',
        output,
        SOURCE,
      ]);
    build(this.library);
    build(this.tooOld, '-DTOO_OLD');
    build(this.noEvents, '-DNO_EVENTS');
    const content = new BigUint64Array(bytes / 8);
    for (let i = 0; i < content.length; i++) content[i] = BigInt(i * 8);
    writeFileSync(this.ram, content);
  }

  /** What the next instances do. */
  order(fault?: Fault, call = 1, milliseconds = 400): void {
    const environment = this.environment(fault, call, milliseconds);
    delete process.env.STANDIN_FAULT;
    Object.assign(process.env, environment);
  }

  /** The same for a child process. */
  environment(fault?: Fault, call = 1, milliseconds = 400): Record<string, string> {
    return {
      STANDIN_LOG: this.#log,
      STANDIN_MS: String(milliseconds),
      ...(fault === undefined ? {} : { STANDIN_FAULT: `${fault}@${call}` }),
    };
  }

  /** Calls since the last look, in order. */
  calls(): string[] {
    // Never removed or cut: an instance that was left behind still writes to it.
    const content = existsSync(this.#log) ? readFileSync(this.#log, 'utf8') : '';
    const lines = content.slice(this.#seen).split('\n');
    this.#seen = content.length;
    return lines.filter((line) => line !== '').map((line) => line.slice(line.indexOf(' ') + 1));
  }

  remove(): void {
    for (const name of ['STANDIN_FAULT', 'STANDIN_LOG', 'STANDIN_MS']) delete process.env[name];
    rmSync(this.folder, { recursive: true });
  }
}

export const count = (calls: readonly string[], name: string) =>
  calls.filter((call) => call === name).length;
