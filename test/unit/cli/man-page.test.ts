import { spawnSync } from 'node:child_process';
import { expect, it } from 'vitest';
import { COMMANDS } from '../../../lib/cli/commands.js';
import { EXIT_HELP } from '../../../lib/cli/exit-code.js';
import { vmi } from './fake-guest.js';

it('the manual page is ASCII, and groff sets it without a warning', async ({ skip }) => {
  const { code, stdout } = await vmi(['man']);
  expect(code).toBe(0);
  expect(stdout).toMatch(/^[\n\x20-\x7e]+$/);
  // Only a macro begins a line with a dot or an apostrophe.
  for (const line of stdout.split('\n')) expect(line).toMatch(/^(\\|\.[A-Z]{1,2}\b|\.(nf|fi)$|$)/);
  const made = spawnSync('groff', ['-man', '-Tutf8', '-ww', '-rLL=400n', '-P-cbou'], {
    input: stdout,
    encoding: 'utf8',
  });
  if (made.error !== undefined) return skip('groff is not installed');
  expect(made.stderr).toBe('');
  // Words are set with any number of spaces between them.
  const page = made.stdout.replace(/\s+/g, ' ');
  const said = (text: string) => expect(page).toContain(text.replace(/\s+/g, ' '));
  for (const { options, summary, details, examples } of COMMANDS) {
    said(summary.slice(1));
    for (const [name, option] of Object.entries(options)) {
      said(`--${name}`);
      said(option.summary);
    }
    for (const paragraph of details ?? []) said(paragraph);
    for (const example of examples) said(example);
  }
  for (const [exit, meaning] of EXIT_HELP) said(`${exit} ${meaning}`);
});
