#!/usr/bin/env node
// @ts-check
/*
 * Fills in what the commands of documentation pages print on a real guest.
 *
 *   node test/docs/write.mjs PAGE… [--lines N] [--all]
 *
 * Commands that show some output already keep it; --all writes theirs, too. Read what it wrote
 * before you commit it.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { blocksOf, partsOf, Runner, root } from './blocks.mjs';
import { docsGuest } from './guest.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { lines: { type: 'string', default: '8' }, all: { type: 'boolean', default: false } },
});
const most = Number(values.lines);
const lab = await docsGuest();
const folder = mkdtempSync(join(root, 'build', 'docs-'));
const runner = new Runner(`qemu:${lab.pid}`, folder);
try {
  for (const page of positionals) {
    const lines = readFileSync(page, 'utf8').split('\n');
    // From the last to the first, so that lines above stay where they are.
    for (const block of blocksOf(lines.join('\n')).reverse()) {
      if (!['console', 'repl'].includes(block.language) || block.reason !== undefined) continue;
      for (const part of partsOf(block).reverse()) {
        if (part.printed.length > 0 && !values.all) continue;
        const text = block.language === 'repl' ? `> ${part.input}` : `$ ${part.input}`;
        const [done] = await runner.run({ ...block, text });
        let printed = (done?.done.output ?? '').trimEnd().split('\n');
        if (block.language === 'repl') printed = printed.filter((line) => line !== 'undefined');
        if (printed.length > most) printed = [...printed.slice(0, most), '…'];
        if (done?.done.status !== part.exit)
          console.error(
            `${page}:${block.line}: exit ${done?.done.status}: ${part.input}\n${done?.done.output}`,
          );
        lines.splice(
          block.line + part.at + 1,
          part.printed.length,
          ...printed.map((line) => line.trimEnd()),
        );
      }
    }
    writeFileSync(page, lines.join('\n'));
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
  await lab.close();
}
