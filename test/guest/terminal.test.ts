import { execFile } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bootGuest, type LabGuest } from '../lab/guest.mjs';
import { which } from '../lab/run.mjs';

const MAIN = fileURLToPath(new URL('../../dist/bundle/cli/main.js', import.meta.url));
const TMUX = await which('tmux');
if (TMUX === undefined) console.log('skipped: vmi in a real terminal, since there is no tmux');

/** A shell with job control in a terminal of its own. */
class Terminal {
  readonly #socket = `vmi-test-${process.pid}`;

  async #tmux(...args: string[]): Promise<string> {
    const environment = { ...process.env, LC_ALL: 'C.UTF-8', TERM: 'xterm', PS1: '' };
    const { stdout } = await promisify(execFile)(
      TMUX!,
      ['-u', '-L', this.#socket, '-f', '/dev/null', ...args],
      { env: environment },
    );
    return stdout;
  }

  async open(columns: number, rows: number): Promise<void> {
    const size = ['-x', String(columns), '-y', String(rows)];
    await this.#tmux('new-session', '-d', ...size, 'env PS1="PROMPT " sh -i');
    await this.until(/PROMPT/);
  }

  /** Types a line. */
  async line(text: string): Promise<void> {
    await this.#tmux('send-keys', '-l', text);
    await this.keys('Enter');
  }

  async keys(...names: string[]): Promise<void> {
    await this.#tmux('send-keys', ...names);
  }

  async resize(columns: number, rows: number): Promise<void> {
    await this.#tmux('resize-window', '-x', String(columns), '-y', String(rows));
  }

  async lines(): Promise<string[]> {
    return (await this.#tmux('capture-pane', '-p')).replace(/\n$/, '').split('\n');
  }

  /** The lines of the terminal, once they are as they are wanted. */
  async until(wanted: RegExp | ((lines: string[]) => boolean)): Promise<string[]> {
    const fits = (lines: string[]) =>
      typeof wanted === 'function' ? wanted(lines) : wanted.test(lines.join('\n'));
    for (let tries = 0; tries < 600; tries++) {
      const lines = await this.lines();
      if (fits(lines)) return lines;
      await sleep(100);
    }
    throw new Error(`${wanted} was never to be seen in:\n${(await this.lines()).join('\n')}`);
  }

  async close(): Promise<void> {
    await this.#tmux('kill-server').catch(() => {});
  }
}

describe.skipIf(TMUX === undefined)('in a real terminal', () => {
  const terminal = new Terminal();
  let lab: LabGuest;
  let vmi: string;

  beforeAll(async () => {
    lab = await bootGuest({ flavour: 'cloud', memory: 256, cpus: 1, tasks: 40, backend: 'memfd' });
    await lab.shell(
      "printf '#!/bin/sh\\nwhile :; do usleep 9000; done\\n' > /tmp/計算機; chmod +x /tmp/計算機",
    );
    await lab.shell('/tmp/計算機 > /dev/null 2>&1 < /dev/null &');
    vmi = `${process.execPath} ${MAIN}`;
    await terminal.open(80, 24);
  });

  afterAll(async () => {
    await terminal.close();
    await lab?.close();
  });

  /** The terminal is the shell's again: lines are edited and echoed, and its old screen is back. */
  async function expectRestored(word: string): Promise<void> {
    await terminal.until((all) => /^PROMPT ?$/.test(all.findLast((line) => line !== '') ?? ''));
    await terminal.line(`stty -a | tr ' ;' '\\n\\n' | grep -x -e icanon -e echo; echo ${word}-$?`);
    const lines = await terminal.until(new RegExp(`^${word}-0`, 'm'));
    expect(lines, lines.join('\n')).toContain('icanon');
    expect(lines).toContain('echo');
  }

  it('vmi top fills any size, is put aside and comes back, and leaves nothing behind', async () => {
    await terminal.line(`${vmi} top qemu:${lab.pid}`);
    const lines = await terminal.until(/busy, \d+ switches\/s/);
    expect(lines[2]).toMatch(/^ {4}PID {4}UID S {3}%CPU {4}SW\/S {10}CR3 COMM$/);
    expect(lines.at(-1)).toBe('q quit  c/s/p/n sort  t tree  h threads  / filter  ↑↓ scroll');
    await terminal.resize(40, 12);
    const narrow = await terminal.until((all) => all.length === 12 && /…$/.test(all.at(-1)!));
    expect(narrow[2]).toBe('    PID   %CPU COMM');
    expect(narrow.at(-1)).toBe('q quit  c/s/p/n sort  t tree  h threads…');
    await terminal.resize(200, 30);
    const wide = await terminal.until((all) => all.length === 30 && /TGID/.test(all[2]!));
    expect(wide.at(-1)).toMatch(/scroll$/);
    await terminal.keys('/');
    await terminal.line('計');
    const [, , , found, next] = await terminal.until(
      (all) => all[4] === '' && /計算機/.test(all[3]!),
    );
    expect(found).toMatch(/ 0x[0-9a-f]+ 計算機$/);
    expect(next).toBe('');

    await terminal.keys('C-z');
    await terminal.until(/Stopped/);
    await expectRestored('aside');
    await terminal.line('fg');
    await terminal.until((all) => /計算機$/.test(all[3]!));
    await terminal.keys('C-c');
    await expectRestored('over');
    await terminal.line('clear');
  });

  it('vmi watch has lines that fit, and its sums after Ctrl-C', async () => {
    await terminal.resize(40, 12);
    await terminal.line(`clear; ${vmi} watch qemu:${lab.pid} --rate 2000`);
    const narrow = await terminal.until(
      (all) => all.filter((one) => / 計算機$/.test(one)).length > 2,
    );
    for (const line of narrow.filter((one) => / 計算機$/.test(one)))
      expect(line).toMatch(/^ +\d+\.\d{6} {4}0 +\d+ 計算機$/);
    await terminal.resize(200, 30);
    // COMM is padded by what it takes on the screen.
    const wide = await terminal.until(/ 計算機 {13}\d+ /);
    const named = wide.find((line) => / 計算機 {13}\d+ /.test(line))!;
    const heading = wide.find((line) => /BEFORE$/.test(line));
    // Three characters take six columns.
    if (heading !== undefined) expect(named.search(/\d+ \S+$/)).toBe(heading.indexOf('BEFORE') - 3);
    await terminal.keys('C-z');
    await terminal.until(/Stopped/);
    await terminal.line('clear; fg');
    await terminal.until(/ 計算機 {13}\d+ /);
    await terminal.keys('C-c');
    await terminal.until(/vmi: \d+ shown, \d+ seen, \d+ missed, at \d+ looks a second$/m);
    await expectRestored('watched');
  });
});
