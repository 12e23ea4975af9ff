import type { Finding } from '../../index.js';
import { printable, type Styles } from '../../text/printable.js';
import { type Command, JSON_OPTION } from '../command.js';
import { EXIT } from '../exit-code.js';

export const doctor: Command = {
  name: 'doctor',
  summary: 'check this host: what works, what does not, and the fix',
  operands: [],
  options: {
    fix: {
      summary: 'turn off events of Xen that a listener has left on, and that freeze a guest',
    },
    ...JSON_OPTION,
  },
  details: [
    'Nothing is changed without --fix, and no events of which a process of this host may be the listener are turned off with it.',
    'The exit code is 3 when no guest could be attached at all, as without the native addon; warnings leave it at 0.',
  ],
  examples: ['vmi doctor', 'vmi doctor --fix'],
  async run({ has, out, env }) {
    const { diagnose, fixEvents } = await import('../../index.js');
    const findings = [...(has('fix') ? fixEvents() : []), ...(await diagnose(env))];
    if (has('json')) out.json(findings);
    else out.lines(findings.flatMap((finding) => findingText(finding, out.styles)));
    return findings.some(({ status }) => status === 'problem') ? EXIT.attach : EXIT.done;
  },
};

/** A finding as one line, and its fix as another. */
export function findingText(finding: Finding, styles: Styles): string[] {
  const colour = { ok: styles.green, warning: styles.yellow, problem: styles.red }[finding.status];
  const lines = [
    `${colour(finding.status.padEnd(7))}  ${finding.check.padEnd(7)}  ${printable(finding.detail)}`,
  ];
  if (finding.fix !== undefined) lines.push(`${' '.repeat(18)}fix: ${printable(finding.fix)}`);
  return lines;
}
