import { hex } from '../errors.js';
import type { ExplainStep, Explanation } from '../guest/explain.js';
import { printable, type Styles } from './printable.js';
import { walkText } from './walk.js';

/**
 * An explanation as lines: each step with what was read where, what it means, and how to do the
 * same.
 */
export function explainText(explanation: Explanation, styles: Styles): string[] {
  const { pid, steps, cr3, source, error } = explanation;
  const lines: string[] = [];
  for (const [i, step] of steps.entries()) {
    lines.push(`${String(i + 1).padStart(2)}. ${styles.bold(printable(step.what))}`);
    const read = readText(step);
    if (read !== '') lines.push(`    ${printable(read)}`);
    lines.push(`    ${printable(step.meaning)}`, `    ${styles.dim(printable(step.code))}`);
    if (step.walk !== undefined)
      lines.push(...walkText(step.walk, styles).map((line) => `    ${line}`));
  }
  if (error !== undefined) lines.push('', styles.red(printable(`It ends here: ${error.message}`)));
  else {
    const answer = cr3 === null || cr3 === undefined ? 'none' : hex(cr3);
    lines.push('', `PID ${pid}: CR3 ${styles.bold(answer)} (${source})`);
  }
  return lines;
}

/** An explanation as plain data: addresses in hex, bytes in hex. */
export function explainJson({ pid, steps, cr3, source, error }: Explanation): unknown {
  return {
    pid,
    cr3: cr3 === null || cr3 === undefined ? null : hex(cr3),
    cr3Source: source ?? null,
    ...(error === undefined ? {} : { error: error.message, code: error.code }),
    steps: steps.map(({ what, address, bytes, value, meaning, code, walk }) => ({
      what,
      address: address === undefined ? null : hex(address),
      bytes: Buffer.from(bytes).toString('hex'),
      value: typeof value === 'bigint' ? hex(value) : value,
      meaning,
      code,
      ...(walk === undefined
        ? {}
        : {
            walk: walk.steps.map((step) => ({
              ...step,
              entryAddress: hex(step.entryAddress),
              entry: hex(step.entry),
            })),
          }),
    })),
  };
}

function readText({ address, bytes, value }: ExplainStep): string {
  const shown =
    value === null ? 'NULL' : typeof value === 'bigint' ? hex(value) : JSON.stringify(value);
  const at = address === undefined ? '' : `at ${hex(address)}: `;
  const raw = bytes.length === 0 ? '' : `${Buffer.from(bytes).toString('hex')} = `;
  return `${at}${raw}${shown}`;
}
